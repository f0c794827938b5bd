"""A GPU for machines that have none: tensors that say they are elsewhere, and hold their values on the CPU.

Torch's fake tensors carry the device ``cuda`` without a GPU, but without one they can neither be back-propagated nor
tell a label from another. The tensors here lie on torch's device ``meta``, and have
values: what a step does with them is computed, on the CPU, after a look at where everything lies. So a whole training
runs, checks of its data included, and its result must be that of the CPU to the bit. As on a GPU, an operation on
tensors of two devices is an error, and so is a random stream of the other device; and whatever makes the program wait
for a GPU is noted.
"""

from __future__ import annotations

import linecache
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import FunctionType
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import dropout
from torch.optim import Optimizer
from torch.overrides import TorchFunctionMode
from torch.utils._mode_utils import no_dispatch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

import hsiaug
from hsiaug.engine.cuda_graphs import SWITCH

GPU = torch.device('meta')
_MOVES = ('_to_copy', 'copy_', '_local_scalar_dense', '_foreach_copy_')
# Shapes that follow from values: a GPU has to be asked for them. Masks that index are looked at besides.
_SHAPES = ('nonzero', 'masked_select', 'bincount', 'unique_dim', '_unique2', 'unique_consecutive', 'repeat_interleave')
_RANDOM = {
    *('rand', 'randn', 'randint', 'randperm', 'rand_like', 'randn_like', 'randint_like', 'normal', 'bernoulli'),
    *('multinomial', 'bernoulli_', 'normal_', 'uniform_', 'random_', 'exponential_'),
}
_PACKAGE = str(Path(hsiaug.__file__).parent)


@dataclass(frozen=True)
class Wait:
    """Something that a GPU would be waited for.

    Args:
        what: ``'item'``, ``'to host'``, ``'to device'`` or ``'shape'``.
        operation: of torch.
        where: the line of the package that asked for it.
    """

    what: str
    operation: str
    where: str


_WAITS: list[Wait] = []


class OnGPU(Tensor):
    """A tensor that lies on the pretended GPU."""

    inner: Tensor
    is_meta = False
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, inner: Tensor) -> OnGPU:
        return Tensor._make_wrapper_subclass(
            cls, inner.shape, strides=inner.stride(), storage_offset=inner.storage_offset(), dtype=inner.dtype,
            device=GPU,
        )  # fmt: skip

    def __init__(self, inner: Tensor) -> None:
        self.inner = inner

    @classmethod
    def __torch_dispatch__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _computed(function, args, kwargs or {})

    # What torch answers below the place where operations are looked at.

    def item(self) -> Any:  # type: ignore[override]
        _note('item', 'item')
        return self.inner.item()

    def new_tensor(self, data: Any, **kwargs: Any) -> Tensor:  # type: ignore[override]
        return torch.tensor(data, **{'dtype': self.dtype, 'device': GPU, **kwargs})

    def tolist(self) -> Any:
        _note('to host', 'tolist')
        return self.inner.tolist()

    def __bool__(self) -> bool:
        return bool(self.item())

    def __int__(self) -> int:
        return int(self.item())

    def __float__(self) -> float:
        return float(self.item())

    __index__ = __int__

    def __array__(self, dtype: Any = None) -> Any:  # type: ignore[override]
        raise TypeError("can't convert a tensor on the GPU to numpy. Use Tensor.cpu() to copy it to host memory first.")

    numpy = __array__  # type: ignore[assignment]

    def __repr__(self, **_: Any) -> str:  # type: ignore[override]
        return f'on the GPU: {self.inner!r}'


class _Stream(torch.Generator):
    """A random stream that says where it was made for."""

    _device: torch.device

    def __new__(cls, device: Any = 'cpu') -> _Stream:
        stream = super().__new__(cls, device='cpu')
        stream._device = torch.device(device)
        return stream

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        return self._device


class _Watch(TorchDispatchMode):
    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _computed(function, args, kwargs or {})


class _Streams(TorchFunctionMode):
    """Below this place streams have lost what :class:`_Stream` knows of them."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if (stream := kwargs.get('generator')) is not None:
            tensors = [x for x in args if isinstance(x, Tensor)]
            wanted = torch.device(kwargs.get('device') or (tensors[0].device if tensors else 'cpu'))
            if stream.device.type != wanted.type:
                raise RuntimeError(f'expected a {wanted} device type for generator but found {stream.device}')
        return function(*args, **kwargs)


@contextmanager
def pretended_gpu() -> Iterator[list[Wait]]:
    """Have a GPU at the device :data:`GPU`; gives what has been waited for, which grows as the program runs."""
    with pytest.MonkeyPatch.context() as patch, _Watch(), _Streams():
        waits: list[Wait] = []
        patch.setattr(sys.modules[__name__], '_WAITS', waits)
        patch.setattr(torch, 'Generator', _Stream)
        autocast: Any = torch.autocast
        # 'meta' is no device that autocast knows; what is computed in half precision there is not to be tested here
        patch.setattr(
            torch, 'autocast', lambda kind, *a, **k: nullcontext() if kind == GPU.type else autocast(kind, *a, **k)
        )
        for maker in ('tensor', 'as_tensor'):
            patch.setattr(torch, maker, _made_here(getattr(torch, maker)))
        # Fused optimisers take the devices of a list.
        optimisers, fused = sys.modules[Optimizer.__module__], '_get_fused_kernels_supported_devices'
        known = getattr(optimisers, fused)
        patch.setattr(optimisers, fused, lambda: [*known(), GPU.type])
        yield waits


def _made_here(make: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Of what is no tensor yet: made on the CPU, and copied."""

    def made(data: Any, *args: Any, device: Any = None, **kwargs: Any) -> Tensor:
        there = device is not None and torch.device(device).type == GPU.type
        return make(data, *args, **kwargs).to(GPU) if there else make(data, *args, device=device, **kwargs)

    return made


class _Shared(TorchFunctionMode):
    """Whatever is random is drawn on the CPU, and moved to where it is asked for."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, name = dict(kwargs or {}), getattr(function, '__name__', '')
        if function is dropout:
            return _dropped(*args, **kwargs)
        if name not in _RANDOM or isinstance(function, FunctionType):  # initialisations, of networks on the CPU
            return function(*args, **kwargs)
        tensors = [x for x in args if isinstance(x, Tensor)]
        device = kwargs.pop('device', None) or (tensors[0].device if tensors else 'cpu')
        result = function(*(x.cpu() if isinstance(x, Tensor) else x for x in args), **kwargs)
        return args[0].copy_(result) if name.endswith('_') else result.to(device)


def _dropped(x: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    return x * (torch.rand(x.shape) >= p).to(x) / (1 - p) if training and p else x


@contextmanager
def shared_streams() -> Iterator[None]:
    """Give a training the same random numbers on every device, so that its results there can be compared.

    They come from the CPU, which a CUDA graph would ask only once: every step is launched anew.
    """
    with pytest.MonkeyPatch.context() as patch, _Shared():
        patch.setenv(SWITCH, '0')
        patch.setattr(torch, 'Generator', _Stream)
        yield


def on_gpu(tensor: Tensor) -> Tensor:
    """A copy on the pretended GPU."""
    return tensor.to(GPU)


def back(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of the pretended GPU on the CPU.

    Raises:
        RuntimeError: if one was there already.
    """
    if here := [name for name, value in tensors.items() if not isinstance(value, OnGPU)]:
        raise RuntimeError(f'{here} lie on the CPU')
    return {name: value.inner.detach().clone() for name, value in tensors.items()}


def _computed(function: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """An operation's result, on the device where it would be.

    Raises:
        RuntimeError: if it would not be possible there, as torch says it.
    """
    name = function.overloadpacket.__name__
    flat, spec = tree_flatten((args, kwargs))
    tensors = [x for x in flat if isinstance(x, Tensor)]
    there = [x for x in tensors if isinstance(x, OnGPU)]
    here = [x for x in tensors if not isinstance(x, OnGPU)]
    device = None if kwargs.get('device') is None else torch.device(kwargs['device'])
    result_there = bool(there) if device is None else device.type == GPU.type
    if name == 'copy_':
        result_there = isinstance(args[0], OnGPU)
    if name == '_local_scalar_dense':
        result_there = False
    if not there and not result_there:  # nothing of it lies on the GPU
        return function(*args, **kwargs)
    if there and name not in _MOVES:
        _require_one_device(function, name, args, here)
    if what := _wait(name, args, kwargs, there, here, result_there):
        _note(what, name)
    plain_args, plain_kwargs = tree_unflatten([x.inner if isinstance(x, OnGPU) else x for x in flat], spec)
    if device is not None and device.type == GPU.type:
        plain_kwargs['device'] = torch.device('cpu')
    result = function(*plain_args, **plain_kwargs)
    if there and torch.Tag.inplace_view in function.tags:  # the shape that the outside shows changes too
        with no_dispatch():
            function(*args, **kwargs)
    same = {id(x.inner): x for x in there}

    def outer(x: Any) -> Any:
        if not isinstance(x, Tensor) or isinstance(x, OnGPU) or not result_there:
            return x
        return same[id(x)] if id(x) in same else OnGPU(x)

    return outer(result) if isinstance(result, Tensor) else tree_map(outer, result)


def _require_one_device(function: Any, name: str, args: Any, here: list[Tensor]) -> None:
    if name in ('index', 'index_put_', 'index_put', '_index_put_impl_', '_unsafe_index'):
        # Indices may lie on the CPU, but values that are indexed or put may not, unless they are numbers.
        here = [x for x in (args[0], *args[2:3]) if isinstance(x, Tensor) and not isinstance(x, OnGPU)]
    if odd := [tuple(x.shape) for x in here if x.ndim]:
        raise RuntimeError(
            f'{function}: expected all tensors to be on the same device, but found at least two devices, the GPU and '
            f'cpu, where tensors of shape {odd} are'
        )


def _wait(
    name: str, args: Any, kwargs: dict[str, Any], there: list[OnGPU], here: list[Tensor], result_there: bool
) -> str | None:
    if not there and not (here and result_there):
        return None
    if name == '_local_scalar_dense':
        return 'item'
    if name in ('_to_copy', 'copy_'):
        source = args[1] if name == 'copy_' else args[0]
        if isinstance(source, OnGPU) == result_there:
            return None
        # What does not block copies small pageable memory at once, and pinned memory later.
        return 'to host' if not result_there else None if _unblocking(name, args, kwargs) else 'to device'
    if name in ('index', 'index_put_', 'index_put', '_index_put_impl_', '_unsafe_index'):
        indices = [x for x in args[1] if isinstance(x, Tensor)]
        if any(x.dtype in (torch.bool, torch.uint8) for x in indices):
            return 'shape'
        return 'to device' if any(not isinstance(x, OnGPU) and x.ndim for x in indices) else None
    return 'shape' if name in _SHAPES else None


def _unblocking(name: str, args: Any, kwargs: dict[str, Any]) -> bool:
    return bool(args[2:3] and args[2]) if name == 'copy_' else bool(kwargs.get('non_blocking'))


def _note(what: str, operation: str) -> None:
    _WAITS.append(Wait(what, operation, _caller()))


def _caller() -> str:
    """The line of the package that is being run."""
    frame = sys._getframe()
    while frame is not None:
        file = frame.f_code.co_filename
        if file.startswith(_PACKAGE):
            line = linecache.getline(file, frame.f_lineno).strip()
            return f'{Path(file).relative_to(_PACKAGE)}:{frame.f_lineno}: {line}'
        frame = frame.f_back  # type: ignore[assignment]
    return 'outside the package'


@contextmanager
def steady_waits(owner: Any, method: str, waits: list[Wait], first: int = 1) -> Iterator[list[Wait]]:
    """What the calls of a method wait for, from call number ``first`` of each object on."""
    found: list[Wait] = []
    whole: Callable[..., Any] = getattr(owner, method)
    calls: dict[int, int] = {}

    def watched(self: Any, *args: Any, **kwargs: Any) -> Any:
        before, number = len(waits), calls.get(id(self), 0)
        calls[id(self)] = number + 1
        result = whole(self, *args, **kwargs)
        if number >= first:
            found.extend(waits[before:])
        return result

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owner, method, watched)
        yield found
