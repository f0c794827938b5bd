"""What every generator is: a module with a spec, a provenance and two verbs, sample and save."""

from __future__ import annotations

import inspect
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeVar, get_args

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from .. import __version__
from ..datasets.patches import CoarseWindows
from ..functional.plain import plain_torch
from ..records import as_record, json_ready
from ..samples import Kind, Provenance, SampleSpec, SpecMismatchError, as_seed
from ..settings import NOT_NEGATIVE, Range, check_arguments, check_value, checked_arguments
from . import saved

if TYPE_CHECKING:
    from ..engine.data import Read

Unlabelled = Literal['alike', 'pairs']
"""``'alike'``: images or spectra as the labelled ones are, without their labels. ``'pairs'``: pairs of dates without a
change mask, where labelled samples are single dates."""
G = TypeVar('G', bound='type[Generator]')
REGISTRY: dict[str, type[Generator]] = {}


@dataclass(frozen=True, eq=False)
class TrainingData:
    """The training part of a split, as generators get it; it never holds a test pixel.

    Args:
        spec: spec of the samples.
        x: (N, C) float32 labelled training spectra, (N, C, H, W) images, or (N, 2, C, H, W) pairs of dates, in the
            dataset's unit.
        y: (N,) int64 labels, (N, H, W) masks, or (N, 1, H, W) change masks.
        unlabelled: (M, C) or (M, C, H, W) float32 samples of the training area without labels; M may be 0.
        val_x: (V, ...) validation samples, for early stopping.
        val_y: (V, ...) their labels or masks.
        provenance: of the data; the generator keeps it with its own training configuration.
        coarse: the images ``x`` from a coarser sensor, where the scene has them.
        val_coarse: likewise the images ``val_x``.
        positions: (N + M, 2) int64 row and column of the spectra in ``x`` and then in ``unlabelled``, where they lie in
            an image; tiles lie apart.
        source: the labelled samples, where they are too many for memory: ``x`` and ``y`` are empty then. Only trainings
            that say so can read them, see :func:`~hsiaug.systems.training.trains`.
        unlabelled_source: the samples without labels, likewise.
    """

    spec: SampleSpec
    x: Tensor
    y: Tensor
    unlabelled: Tensor
    val_x: Tensor
    val_y: Tensor
    provenance: Provenance | None = None
    coarse: CoarseWindows | None = None
    val_coarse: CoarseWindows | None = None
    positions: Tensor | None = None
    source: Read | None = None
    unlabelled_source: Read | None = None

    @property
    def split_name(self) -> str | None:
        """Fingerprint of the split, None where it is not known."""
        return None if self.provenance is None else self.provenance.split


def register(name: str) -> Callable[[G], G]:
    """Class decorator: make a generator known by the name that config files and saved folders use."""

    def decorate(cls: G) -> G:
        if name in REGISTRY:
            raise ValueError(f'a generator named {name!r} is registered already: {REGISTRY[name].__name__}')
        REGISTRY[name] = cls
        cls.type_name = name
        return cls

    return decorate


def generator_class(name: str) -> type[Generator]:
    """Look a generator class up by its registered name.

    Raises:
        ValueError: for an unknown name, with the choices.
    """
    from . import load  # the registry fills as modules are imported, heavy ones last

    if not isinstance(name, str):
        raise ValueError(f'the name of a generator was expected, found {name!r}')
    load(until=name)
    if name not in REGISTRY:
        raise ValueError(f'unknown generator {name!r}; choose from {sorted(REGISTRY)}')
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


class Generator(nn.Module):
    """Base of all generators.

    A subclass takes ``(spec, **settings)``, passes the JSON-ready settings on to this class, keeps what it learns in
    parameters and buffers, and implements :meth:`_draw`. Buffers named in ``fitted`` get their shape from the
    training data.

    Args:
        spec: spec of the samples that it makes.
        settings: the subclass's own settings, as they are saved.
    """

    type_name: ClassVar[str]
    kinds: ClassVar[tuple[Kind, ...]] = get_args(Kind)
    """Of samples that it can make."""
    fitted: ClassVar[tuple[str, ...]] = ()
    """Names of buffers whose shapes are known only after fitting."""
    soft_labels: ClassVar[bool] = False
    """Whether samples carry ``label_prob``."""
    unlabelled: ClassVar[tuple[Unlabelled, ...]] = ()
    """Samples without labels that it can learn from, besides labelled ones."""
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
        for name in self.fitted:
            self.register_buffer(name, torch.empty(0))

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
        """Learn from training data in closed form. Generators that need gradient steps have a trainer instead.

        Args:
            data: the training part of a split.
            seed: seed of anything random in the fit.
        """
        raise NotImplementedError(f'{type(self).__name__} is trained by hsiaug.trainers.fit_generator')

    def require_trained(self, learnt: object) -> None:
        """Refuse to draw while what is ``learnt`` is empty."""
        if not learnt:
            raise ValueError(f'{type(self).__name__}: not trained yet; train it with hsiaug.trainers.fit_generator')

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
            training={'generator': self.type_name, **self.settings, **json_ready(training or {})},
        )

    @property
    def device(self) -> torch.device:
        """Where the generator's tensors live."""
        return self.class_prior.device

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        """Move the generator, but keep its numbers as they are, for ``half()``, ``bfloat16()`` and ``to(dtype)`` too.

        Rounded weights make other samples, and a model in half precision that holds a generator wants no other samples.
        """

        def moved(tensor: Tensor) -> Tensor:
            new = fn(tensor)
            return new if new.dtype == tensor.dtype else tensor.to(new.device)

        return super()._apply(moved, recurse)  # type: ignore[no-untyped-call]

    def _draw(self, labels: Tensor, rng: torch.Generator) -> dict[str, Tensor]:
        """Samples for (n,) ``labels``: ``image``, ``mask`` where the kind has one, ``label_prob`` where soft.

        All randomness comes from ``rng``. In a sample with a mask, the label is a class that it should hold.
        """
        raise NotImplementedError

    @plain_torch()
    @torch.no_grad()
    def sample(self, n: int, labels: Tensor | None = None, seed: int | None = None) -> dict[str, Tensor]:
        """Draw a batch in the sample contract and the dataset's unit.

        Args:
            n: number of samples.
            labels: (n,) classes, whole numbers; drawn from the training frequencies if None. Of samples with masks they
                are classes that each should hold; drawn from the training frequencies, patches follow theirs.
            seed: makes the draw reproducible; None takes fresh entropy from torch's global generator.

        Returns:
            on the generator's device: ``image`` (n, C) float32 and ``label`` (n,) int64, and ``label_prob`` (n, K)
            float32 from generators with soft labels; of kind ``'segmentation'``, ``image`` (n, C, H, W) and ``mask``
            (n, H, W) int64; of kind ``'change'``, ``image`` (n, 2, C, H, W) and ``mask`` (n, 1, H, W) int64.

        Raises:
            ValueError: if n is no number of samples, labels and n disagree or a label is out of range.
            SpecMismatchError: if it makes samples of another shape than its spec says.
        """
        n = check_value(type(self).__name__, 'n', n, int, NOT_NEGATIVE)
        if seed is None:
            seed = int(torch.randint(2**62, ()).item())
        # Noise is drawn on the CPU whatever the device, so that a seed means the same sample everywhere.
        rng = torch.Generator().manual_seed(as_seed(seed))
        if labels is None:
            labels = (
                torch.multinomial(self.class_prior.cpu(), n, replacement=True, generator=rng) if n else torch.empty(0)
            )
        labels = torch.as_tensor(labels)
        if n and (labels.is_floating_point() or labels.dtype == torch.bool):
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
        batch = self._draw(labels, rng)
        if 'mask' not in batch:
            batch.setdefault('label', labels.to(self.device))
        batch['image'] = batch['image'].to(torch.float32)
        if batch['image'].shape != (n, *self.spec.image_shape):
            raise SpecMismatchError(
                f'{type(self).__name__}: it makes images of {tuple(batch["image"].shape[1:])}, its spec says '
                f'{self.spec.image_shape}; it was trained on other samples, or its config was changed'
            )
        return batch

    # --- saved form -------------------------------------------------------------------------------------------------

    def card(self) -> str:
        """A short model card in Markdown."""
        lines = [f'# {self.type_name}', '', f'A hyperspectral sample generator of hsiaug {__version__}.', '']
        lines += [f'- kind: {self.spec.kind}, {self.spec.bands} bands, unit {self.spec.unit or "unknown"}']
        lines += [f'- classes: {", ".join(self.spec.classes)}']
        if self.provenance is not None:
            lines += [f'- trained on split `{self.provenance.split}`, seed {self.provenance.seed}']
            lines += [f'- setting: `{json.dumps(dict(self.provenance.training), sort_keys=True)}`']
        return '\n'.join(lines) + '\n'

    def save_pretrained(self, folder: str | os.PathLike[str]) -> Path:
        """Write ``config.json``, ``model.safetensors`` and a model card.

        A new folder appears whole or not at all. Over another generator, a kill in between leaves a folder that
        :meth:`from_pretrained` refuses, never the weights of one with the config of the other.

        Raises:
            FileExistsError: if the folder holds something else.
        """
        target = Path(folder).expanduser()
        saved.require_own_folder(target)
        target.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=f'.{target.name}-', dir=target.parent))
        try:
            # clone: members of an ensemble may share one training set, and safetensors stores no shared memory
            state = {k: v.detach().cpu().clone().contiguous() for k, v in self.state_dict().items()}
            save_file(state, staging / saved.WEIGHTS_FILE)
            config = saved.SavedConfig(
                self.type_name, self.spec, self.settings, self.provenance, saved.digest(staging / saved.WEIGHTS_FILE)
            )
            (staging / saved.CONFIG_FILE).write_text(saved.config_text(config))
            (staging / saved.CARD_FILE).write_text(self.card())
            if target.exists():
                saved.replace_files(staging, target)
            else:
                os.replace(staging, target)
                target.chmod(0o755)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
        return target

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
        """Load a generator from a folder or, named as ``hf://owner/name``, from the Hugging Face hub.

        Called on :class:`Generator` it returns whatever type the folder holds. Loading is strict, never unpickles or
        imports what the folder names, and takes no more memory than the weights in it.

        Raises:
            CheckpointError: if there is no such folder, or it is incomplete, damaged or holds something else.
        """
        folder = saved.find_folder(folder_or_repo)
        config, file = saved.read_config(folder), folder / saved.WEIGHTS_FILE
        try:
            wanted = generator_class(config.type)
        except ValueError as error:
            raise saved.CheckpointError(f'{folder / saved.CONFIG_FILE}: {error}') from error
        if not issubclass(wanted, cls):
            raise saved.CheckpointError(f'{folder} holds a {config.type!r} ({wanted.__name__}), not a {cls.__name__}')
        make = partial(make_generator, config.type, config.spec, config.settings, saved.CheckpointError)
        saved.require_fit(make, config, file)
        saved.require_weights(file, config.weights)
        # Saved in half precision, a generator still computes in the precision that it was written for.
        state = {k: v.float() if v.is_floating_point() and v.itemsize < 4 else v for k, v in load_file(file).items()}
        generator = make()
        saved.load_state(generator, state, file)
        generator.provenance = config.provenance
        return generator.eval().to(device)

    def allocate(self, state: Mapping[str, Tensor]) -> None:
        """Give the data-dependent buffers, those of its parts among them, the shapes that a saved state has."""
        for place, module in self.named_modules():
            for name in getattr(module, 'fitted', ()):
                if (key := f'{place}.{name}' if place else name) in state:
                    setattr(module, name, torch.empty_like(state[key]))
