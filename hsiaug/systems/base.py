"""Generators by name, and their base class: a module with a spec and a provenance that can be sampled and saved."""

from __future__ import annotations

import inspect
import os
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import Any, ClassVar, TypeVar, get_args

import torch
from torch import Tensor

from .. import __version__
from ..functional.devices import sent
from ..functional.plain import as_trained, plain_torch
from ..named_configs import unknown
from ..records import as_record, json_ready
from ..samples import Kind, Provenance, SampleSpec, SpecMismatchError
from ..settings import NOT_NEGATIVE, Range, check_arguments, check_value, checked_arguments
from ..streams import as_seed, stream
from .buffers import BufferedModule
from .saved import (
    CONFIG_FILE,
    CheckpointError,
    SavedConfig,
    card_text,
    find_folder,
    read_config,
    read_weights,
    write_folder,
)
from .training_data import TrainingData, Unlabelled

__all__ = [
    'REGISTRY',
    'Generator',
    'TrainingData',
    'generator_class',
    'load',
    'make_generator',
    'make_part',
    'own_settings',
    'part_of',
    'register',
]

G = TypeVar('G', bound='type[Generator]')
REGISTRY: dict[str, type[Generator]] = {}
"""Generators by name, which fill as modules are imported, see :func:`load`."""


def register(name: str) -> Callable[[G], G]:
    """Class decorator that registers a generator under the name used in config files and saved folders."""

    def decorate(cls: G) -> G:
        if not (isinstance(name, str) and name and isinstance(cls, type) and issubclass(cls, Generator)):
            raise TypeError(f'a subclass of Generator is registered by a name, found {cls!r} by {name!r}')
        if name in REGISTRY:
            raise ValueError(
                f'a generator named {name!r} is registered already: {REGISTRY[name].__name__}; choose another name'
            )
        REGISTRY[name] = cls
        cls.type_name = name
        return cls

    return decorate


def load(until: str | None = None) -> None:
    """Import the systems, all of them or until a name is registered: diffusers alone takes seconds."""
    found = {module.name: module.ispkg for module in iter_modules([str(Path(__file__).parent)])}
    if until in found:
        import_module(f'.{until}', __package__)
    for name in sorted(found, key=lambda name: found[name]):  # packages, which are heavier, last
        if until in REGISTRY:
            return
        import_module(f'.{name}', __package__)


def generator_class(name: str) -> type[Generator]:
    """Look a generator class up by its registered name.

    Raises:
        ValueError: for an unknown name, with the choices.
    """
    if not isinstance(name, str):
        raise ValueError(f'the name of a generator was expected, found {name!r}')
    load(until=name)
    if name not in REGISTRY:
        raise ValueError(unknown('generator', name, REGISTRY))
    return REGISTRY[name]


def make_generator(
    name: str, spec: SampleSpec, settings: Mapping[str, Any], error: type[Exception] = ValueError
) -> Generator:
    """A generator by its registered name, unfitted.

    Raises:
        ValueError: or ``error``, for an unknown name or setting, or one that does not fit.
    """
    where = cannot_make(name, settings)
    try:
        cls = generator_class(name)
        return cls(spec, **checked_arguments(cls, settings, where, given=('spec',)))
    except Exception as reason:  # whatever networks say about numbers that they cannot be made with
        if type(reason) is error or (error is ValueError and isinstance(reason, error)):
            raise
        raise error(f'{where}: {reason}') from reason


def cannot_make(name: str, settings: Any) -> str:
    """The beginning of messages about a generator that cannot be made."""
    names = [str(key)[:40] for key in settings][:12] if isinstance(settings, Mapping) else type(settings).__name__
    return f'generator {name!r} cannot be made with settings {names}'


@dataclass(frozen=True)
class Part:
    """A generator within another, as its settings name it."""

    type: str
    settings: dict[str, Any]


def make_part(spec: SampleSpec, part: Mapping[str, Any]) -> Generator:
    """A generator within another, unfitted."""
    named = as_record(Part, part, 'a part of a generator')
    return make_generator(named.type, spec, named.settings)


def part_of(generator: Generator) -> dict[str, Any]:
    """How the settings of another generator name this one."""
    return asdict(Part(generator.type_name, generator.settings))


def own_settings(names: Mapping[str, Any], given: tuple[str, ...] = ('spec',)) -> dict[str, Any]:
    """Settings as JSON has them, out of the ``locals()`` that an ``__init__`` begins with; ``given`` are none."""
    own = {name: value for name, value in names.items() if name not in (*given, 'self', '__class__')}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in own.items()}


class Generator(BufferedModule):
    """Base class of all generators.

    A subclass takes ``(spec, **settings)``, passes the settings, which JSON can hold, to this class, keeps what it
    learns in parameters and buffers, and implements :meth:`_draw`. Buffers named in ``fitted`` get their shape from the
    training data.

    Args:
        spec: spec of the generated samples.
        settings: the subclass's own settings, saved with the generator.
    """

    type_name: ClassVar[str]
    kinds: ClassVar[tuple[Kind, ...]] = get_args(Kind)
    """Of samples that it can make."""
    soft_labels: ClassVar[bool] = False
    """Whether samples carry ``label_prob``."""
    unlabelled: ClassVar[tuple[Unlabelled, ...]] = ()
    """Samples without labels that it can learn from, besides labelled ones."""
    clip: bool = True
    """Whether samples are kept in the spec's value range, where it is known."""
    ranges: ClassVar[Mapping[str, Range]] = {}
    """Of the numbers among the settings; any finite one where there is none."""

    class_prior: Tensor

    @classmethod
    def overlooks_unlabelled(cls, settings: Mapping[str, Any]) -> str | None:
        """The setting that it lacks to look at samples without labels; None where it looks at them."""
        return None

    def __init__(self, spec: SampleSpec, **settings: Any) -> None:
        super().__init__()
        self.require_kind(spec)
        self.check_settings(settings)
        if not spec.classes:
            raise ValueError(f'{type(self).__name__}: a spec with at least one class is needed')
        self.spec = spec
        self.settings = settings
        self.provenance: Provenance | None = None
        # Training frequencies, from which labels are drawn where the caller gives none.
        self.register_buffer('class_prior', torch.full((spec.num_classes,), 1.0 / spec.num_classes))

    @classmethod
    def check_settings(cls, settings: Mapping[str, Any]) -> None:
        """Check the types and ranges of settings, before anything is made of them.

        Raises:
            ValueError: naming the setting, what was found and what was expected.
        """
        check_arguments(cls, settings, cls.ranges)

    @classmethod
    def require_kind(cls, spec: SampleSpec) -> None:
        """Refuse a spec of a kind of samples that it cannot make.

        Raises:
            ValueError: naming those that it can.
        """
        if spec.kind not in cls.kinds:
            can = ' or '.join(map(repr, cls.kinds))
            raise ValueError(f'{cls.__name__} makes samples of kind {can}, found {spec.kind!r}')

    @classmethod
    def settings_in(cls, config: Any) -> dict[str, Any]:
        """The settings of this class among those of its training."""
        own = inspect.signature(cls).parameters
        return {field.name: getattr(config, field.name) for field in fields(config) if field.name in own}

    def fit(self, data: TrainingData, seed: int = 0) -> None:
        """Fit to training data in closed form. Generators that learn by gradient descent have a trainer instead.

        Args:
            data: the training part of a split.
            seed: seed of all randomness in the fit.
        """
        raise NotImplementedError(
            f'{type(self).__name__} has no fit of its own; hsiaug.trainers.fit_generator trains what has a training'
        )

    def require_trained(self, learnt: object) -> None:
        """Refuse to draw while what is ``learnt`` is empty."""
        if not learnt:
            raise ValueError(f'{type(self).__name__}: not trained yet; train it with hsiaug.trainers.fit_generator')

    def require_images(self, image: Tensor) -> None:
        """Refuse images that are not of the spec's shape."""
        if (expected := self.spec.image_shape) != tuple(image.shape[1:]):
            raise ValueError(f'{type(self).__name__}: images {("n", *expected)} are needed, found {tuple(image.shape)}')

    def adopt(self, data: TrainingData, seed: int, training: Any = None) -> None:
        """Record where the fit came from, with its configuration. Every ``fit`` and every trainer ends with it."""
        if data.source is None:
            y = data.y.cpu().reshape(-1)  # of masks, the pixels that count
            counts = torch.bincount(y[(y >= 0) & (y < self.spec.num_classes)], minlength=self.spec.num_classes).float()
        else:
            counts = torch.from_numpy(data.source.dataset.class_counts).float()
        counts[[self.spec.classes.index(name) for name in self.spec.uncounted]] = 0
        if counts.sum():
            self.class_prior.copy_(counts / counts.sum())
        seed = as_seed(seed)
        base = data.provenance or Provenance(version=__version__, seed=seed, training={})
        self.provenance = replace(
            base,
            version=__version__,
            seed=seed,
            training={'generator': self.type_name, **json_ready(self.settings), **json_ready(training or {})},
        )

    @property
    def device(self) -> torch.device:
        """Where the generator's tensors live."""
        return self.class_prior.device

    def usual_labels(self, n: int, rng: torch.Generator) -> Tensor:
        """(n,) int64 labels on the CPU, in the training frequencies."""
        rows = torch.empty(0, dtype=torch.int64)
        return torch.multinomial(self.on_cpu('class_prior'), n, replacement=True, generator=rng) if n else rows

    def _draw(self, labels: Tensor, rng: torch.Generator) -> dict[str, Tensor]:
        """Samples for (n,) ``labels``: ``image``, ``mask`` where the kind has one, ``label_prob`` where soft.

        All randomness comes from ``rng``. In a sample with a mask, the label is a class that it should hold.
        """
        raise NotImplementedError(f'{type(self).__name__} implements no _draw, which makes samples')

    @plain_torch()
    @torch.no_grad()
    def sample(self, n: int, labels: Tensor | None = None, seed: int | None = None) -> dict[str, Tensor]:
        """Draw a batch of samples in the sample contract and the dataset's unit.

        Args:
            n: number of samples.
            labels: (n,) integer classes; if None, drawn from the training frequencies. For samples with masks, a class
                that each sample should contain; the training frequencies then keep the class shares of the patches.
            seed: makes the draw reproducible; if None, fresh entropy is taken from torch's global generator.

        Returns:
            on the generator's device: ``image`` (n, C) float32 and ``label`` (n,) int64, and ``label_prob`` (n, K)
            float32 from generators with soft labels; for kind ``'segmentation'``, ``image`` (n, C, H, W) and ``mask``
            (n, H, W) int64; for kind ``'change'``, ``image`` (n, 2, C, H, W) and ``mask`` (n, 1, H, W) int64.

        Raises:
            ValueError: if n is not a number of samples, labels and n disagree, or a label is out of range.
            SpecMismatchError: if the samples do not have the shape given by the spec.
            TypeError: if a user's own ``_draw`` returns no tensors by name.
        """
        n = check_value(type(self).__name__, 'n', n, int, NOT_NEGATIVE)
        rng = stream(seed)
        labels = self.usual_labels(n, rng) if labels is None else torch.as_tensor(labels)
        if labels.dtype == torch.bool or (labels.is_floating_point() and not torch.equal(labels, labels.round())):
            raise ValueError(f'{type(self).__name__}: labels must be whole numbers, found {labels.dtype}')
        labels = labels.to(torch.int64).cpu()
        if labels.shape != (n,):
            raise ValueError(f'{type(self).__name__}: labels must be ({n},) for n={n}, found {tuple(labels.shape)}')
        if n and not 0 <= int(labels.min()) <= int(labels.max()) < self.spec.num_classes:
            raise ValueError(
                f'{type(self).__name__}: labels must lie in [0, {self.spec.num_classes}), '
                f'found [{int(labels.min())}, {int(labels.max())}]'
            )
        if n == 0:
            return {key: value[:0] for key, value in self.sample(1, seed=0).items()}
        with as_trained(self):
            batch = self._draw(labels, rng)
        batch = self._in_layout(batch, labels)
        image = batch['image'].to(torch.float32)
        batch['image'] = self.spec.clamped(image) if self.clip else image
        return batch

    def _in_layout(self, batch: Any, labels: Tensor) -> dict[str, Tensor]:
        """What was drawn for (n,) labels, with them, unless it is no batch of n samples of the spec."""
        who = type(self).__name__
        if not isinstance(batch, dict):
            raise TypeError(f'{who}: _draw must return tensors by name, found {type(batch).__name__}')
        if self.spec.target_key == 'label':
            batch.setdefault('label', sent(labels, self.device))
        for key, (_, shape) in self.spec.layout('label_prob' in batch).items():
            value = batch.get(key)
            found: Any = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            if found[:1] != (len(labels),):
                raise TypeError(
                    f'{who}: {len(labels)} samples of {key!r} must be drawn, found {found} among {[*batch]}'
                )
            if found[1:] != shape:
                raise SpecMismatchError(
                    f'{who}: it makes {key}s of {found[1:]}, its spec says {shape}; it was trained on other samples, '
                    'or its config was changed'
                )
        return batch

    # --- saved form -------------------------------------------------------------------------------------------------

    def card(self) -> str:
        """A short model card in Markdown."""
        return card_text(self._config())

    def _config(self) -> SavedConfig:
        return SavedConfig(self.type_name, self.spec, self.settings, self.provenance)

    def save_pretrained(self, folder: str | os.PathLike[str]) -> Path:
        """Write ``config.json``, ``model.safetensors`` and a model card.

        A new folder appears complete or not at all. If saving over another generator is interrupted,
        :meth:`from_pretrained` refuses the folder; it never mixes the weights of one with the config of the other.

        Raises:
            FileExistsError: if the folder holds something other than a generator.
        """
        return write_folder(Path(folder).expanduser(), self._config(), self)

    def push_to_hub(self, repo_id: str, **kwargs: Any) -> str:
        """Upload to the Hugging Face hub; ``kwargs`` go to ``HfApi.upload_folder``."""
        from huggingface_hub import HfApi

        with tempfile.TemporaryDirectory() as folder:
            path = self.save_pretrained(Path(folder) / 'generator')
            HfApi().create_repo(repo_id, exist_ok=True)
            return str(HfApi().upload_folder(repo_id=repo_id, folder_path=path, **kwargs))

    @classmethod
    @plain_torch()
    def from_pretrained(cls, folder_or_repo: str | os.PathLike[str], device: str | torch.device = 'cpu') -> Generator:
        """Load a generator from a folder or, as ``hf://owner/name``, from the Hugging Face hub.

        Called on :class:`Generator`, it returns the type of generator that the folder holds. Loading is strict, never
        unpickles or imports anything named in the folder, and needs no more memory than the weights.

        Raises:
            CheckpointError: if there is no such folder, or it is incomplete, damaged or not a generator.
        """
        folder = find_folder(folder_or_repo)
        config = read_config(folder)
        try:
            wanted = generator_class(config.type)
        except ValueError as error:
            raise CheckpointError(f'{folder / CONFIG_FILE}: {error}') from error
        if not issubclass(wanted, cls):
            raise CheckpointError(f'{folder} holds a {config.type!r} ({wanted.__name__}), not a {cls.__name__}')
        make = partial(make_generator, config.type, config.spec, config.settings, CheckpointError)
        with torch.random.fork_rng(devices=[]):  # a training that has been seeded goes on as it would
            generator = read_weights(folder, config, make)
        generator.provenance = config.provenance
        return generator.eval().to(device)
