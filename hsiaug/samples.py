"""The sample contract, which every part of hsiaug follows.

A *sample* is a dictionary of tensors, as in torchgeo. A :class:`SampleSpec` describes what it holds, a
:class:`Provenance` records where a synthetic sample comes from and which pixels its generator has seen, and
:class:`SampleSource` is the protocol of anything that samples can be drawn from.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, fields
from functools import reduce
from itertools import combinations
from typing import Any, Literal, Protocol, TypeVar, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from .records import as_record
from .seen import Footprint, SeenSamples, same_scene
from .settings import ANY, POSITIVE, check_settings

Kind = Literal['spectrum', 'scene', 'segmentation', 'change']
Target = Literal['label', 'mask']
Sample = dict[str, Any]
Transform = Callable[[Sample], Sample]
Layout = dict[str, tuple[torch.dtype, tuple[int, ...]]]
"""Dtype and shape, per sample, of each tensor."""
Labels = TypeVar('Labels', Tensor, np.ndarray)
_CPU = torch.device('cpu')

WAVELENGTH_TOLERANCE_NM = 0.5
"""Two band centres closer than this are the same band; nominal (approximate) grids are allowed ten times as much."""


class SpecMismatchError(ValueError):
    """Two sources of samples that cannot be mixed."""


class LeakageError(ValueError):
    """A generator that has seen pixels of the evaluation it is about to be used for."""


@dataclass(frozen=True)
class SampleSpec:
    """Description of the samples of a dataset or generator.

    Args:
        kind: ``'spectrum'``, ``'scene'``, ``'segmentation'`` or ``'change'``.
        bands: number of spectral bands C.
        classes: class names; their position is the integer label.
        wavelengths: band centres in nm, or None if unknown.
        wavelengths_approximate: whether the centres are nominal (from a sensor's data sheet), not the file's own.
        size: ``(H, W)`` of an image, None for spectra.
        ignore_index: label of pixels that are ignored in losses and metrics.
        value_range: lowest and highest value allowed by the unit, if known; synthetic samples keep to it.
        unit: physical unit of the values, such as ``'reflectance'``.

    Raises:
        ValueError: if fields contradict each other.
    """

    kind: Kind
    bands: int
    classes: tuple[str, ...]
    wavelengths: tuple[float, ...] | None = None
    wavelengths_approximate: bool = False
    size: tuple[int, int] | None = None
    ignore_index: int | None = None
    value_range: tuple[float, float] | None = None
    unit: str | None = None

    def __post_init__(self) -> None:
        # Lists and arrays become tuples: specs are compared, and saved as JSON.
        check_settings(self, ignore_index=ANY, value_range=ANY, wavelengths=POSITIVE)
        if repeated := sorted({name for name in self.classes if self.classes.count(name) > 1}):
            raise ValueError(f'SampleSpec: several classes have the name {repeated}; name each differently')
        if self.wavelengths is not None and len(self.wavelengths) != self.bands:
            raise ValueError(
                f'SampleSpec: {self.bands} bands but {len(self.wavelengths)} wavelengths; give one per band'
            )
        if self.value_range is not None and not self.value_range[0] <= self.value_range[1]:
            raise ValueError(
                f'SampleSpec: value_range must be the lowest and the highest value, found {self.value_range}'
            )
        if (self.size is None) != (self.kind == 'spectrum'):
            raise ValueError(
                f'SampleSpec: kind {self.kind!r} with size {self.size}; spectra have none, images need one'
            )

    @property
    def num_classes(self) -> int:
        """Number of classes K."""
        return len(self.classes)

    @property
    def uncounted(self) -> tuple[str, ...]:
        """The class that does not count, where the ignore index is one of a class."""
        index = -1 if self.ignore_index is None else self.ignore_index
        return self.classes[index : index + 1] if index >= 0 else ()

    @property
    def target_key(self) -> Target:
        """Key of the target: ``'mask'`` where each pixel has a class, ``'label'`` where each sample has one."""
        return target_of(self.kind)

    @property
    def dates(self) -> int:
        """Number of dates in an image."""
        return 2 if self.kind == 'change' else 1

    @property
    def image_shape(self) -> tuple[int, ...]:
        """Of ``image`` in a sample, see the sample contract."""
        return (*((2,) if self.kind == 'change' else ()), self.bands, *(self.size or ()))

    @property
    def target_shape(self) -> tuple[int, ...]:
        """Of ``label`` or ``mask`` in a sample."""
        if self.target_key == 'label':
            return ()
        return (*((1,) if self.kind == 'change' else ()), *(self.size or ()))

    def layout(self, soft_labels: bool = False) -> Layout:
        """Dtype and shape of each tensor of a sample; soft labels are ``label_prob`` (K,)."""
        soft: Layout = {'label_prob': (torch.float32, (self.num_classes,))} if soft_labels else {}
        return {'image': (torch.float32, self.image_shape), self.target_key: (torch.int64, self.target_shape)} | soft

    @property
    def sample_bytes(self) -> int:
        """That a sample takes in memory."""
        return sum(dtype.itemsize * math.prod(shape) for dtype, shape in self.layout().values())

    def counted(self, labels: Labels) -> Labels:
        """Where labels, of any shape, are a class that counts; bool."""
        return (labels >= 0) & (labels < self.num_classes) & (labels != self.ignore_index)

    def foreign(self, labels: Labels) -> Labels:
        """Where labels are neither a class nor the ignore index; bool."""
        return ((labels < 0) | (labels >= self.num_classes)) & (labels != self.ignore_index)

    def clamped(self, image: Tensor) -> Tensor:
        """Values that the unit allows, where its range is known."""
        return image if self.value_range is None else image.clamp(*self.value_range)

    @property
    def allowed_labels(self) -> str:
        """The labels that there may be, in words."""
        ignored = '' if self.ignore_index is None else f' or {self.ignore_index} where a pixel does not count'
        return f'0 to {self.num_classes - 1}{ignored} ({in_short(self.classes)})'

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready dictionary."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> SampleSpec:
        """The inverse of :meth:`to_dict`, equal to the original even after a passage through JSON."""
        return as_record(cls, data, 'SampleSpec')


def as_classes(names: Sequence[str], where: str) -> tuple[str, ...]:
    """Class names as a tuple; one text by itself would be a class for each letter, and only a list has an order."""
    if isinstance(names, str | Set | Mapping) or not isinstance(names, Iterable):
        hint = f'[{names!r}]' if isinstance(names, str) else 'the names in the order of their labels'
        raise ValueError(f'{where}: classes must be a list of names, found {names!r}; give {hint}')
    return tuple(names)


def target_of(kind: Kind) -> Target:
    """Key of what belongs to the image of a sample of a kind: one label, or a mask."""
    return 'mask' if kind in ('segmentation', 'change') else 'label'


def require_compatible(
    real: SampleSpec,
    synthetic: SampleSpec,
    sides: tuple[str, str] = ('real', 'synthetic'),
    what: str = 'real and synthetic samples',
) -> None:
    """Check that samples of two specs can stand in one batch; messages call them ``sides``, and both ``what``.

    Raises:
        SpecMismatchError: naming each field in which the two sides differ.
    """
    problems = [
        f'{name}: {sides[0]} {getattr(real, name)!r}, {sides[1]} {getattr(synthetic, name)!r}'
        for name in ('kind', 'bands', 'size', 'classes', 'ignore_index', 'unit')
        if getattr(real, name) != getattr(synthetic, name)
        # An unknown unit says nothing, so it contradicts nothing.
        and not (name == 'unit' and None in (real.unit, synthetic.unit))
    ]
    if real.wavelengths and synthetic.wavelengths and real.bands == synthetic.bands:
        nominal = real.wavelengths_approximate or synthetic.wavelengths_approximate
        tolerance = WAVELENGTH_TOLERANCE_NM * (10 if nominal else 1)
        gap = max(abs(a - b) for a, b in zip(real.wavelengths, synthetic.wavelengths, strict=True))
        if gap > tolerance:
            problems.append(f'wavelengths: band centres differ by up to {gap:.1f} nm, at most {tolerance:g} nm fit')
    if problems:
        raise SpecMismatchError(
            f'{what} do not match:\n  '
            + '\n  '.join(problems)
            + '\nTrain the generator on this dataset, or convert both to the same bands, classes and unit.'
        )


@dataclass(frozen=True)
class Provenance:
    """Origin of a generator.

    Args:
        version: version of hsiaug at training time.
        seed: seed of the training.
        training: training configuration, JSON-ready.
        split: fingerprint of the split it was trained on.
        seen: pixels that the generator, its normalisation or its selection has seen.
        elsewhere: pixels seen in further scenes, if several were pooled.
        samples: samples seen in datasets.
    """

    version: str
    seed: int
    training: Mapping[str, Any]
    split: str | None = None
    seen: Footprint | None = None
    elsewhere: tuple[Footprint, ...] = ()
    samples: SeenSamples | None = None

    @property
    def footprints(self) -> tuple[Footprint, ...]:
        """Pixels of all scenes that it has seen."""
        return (*(() if self.seen is None else (self.seen,)), *self.elsewhere)

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready dictionary."""
        return json.loads(json.dumps(dataclasses.asdict(self)))

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Provenance:
        """The inverse of :meth:`to_dict`."""
        return as_record(cls, data, 'provenance')


def joined_provenance(known: Mapping[str, Provenance], **fields: Any) -> Provenance:
    """The first of several provenances, by whose they are, with all that any of them has seen, and with other fields.

    They must be of one scene: no single footprint could say what was seen of several.
    """
    seen = {who: one.seen for who, one in known.items() if one.seen is not None}
    if not all(same_scene(one.scene, other.scene) for one, other in combinations(seen.values(), 2)):
        scenes = ', '.join(f'{who} {footprint.scene}' for who, footprint in seen.items())
        raise ValueError(
            f'they were trained on different scenes: {scenes}; train, or fit, them on one scene, since what all have '
            'seen is kept in one provenance'
        )
    samples = [one.samples for one in known.values() if one.samples is not None]
    elsewhere = dict.fromkeys(footprint for one in known.values() for footprint in one.elsewhere)
    return dataclasses.replace(
        next(iter(known.values())),
        seen=reduce(Footprint.joined, seen.values()) if seen else None,
        elsewhere=tuple(elsewhere),
        samples=reduce(SeenSamples.joined, samples) if samples else None,
        **fields,
    )


def require_unseen(provenance: Provenance | None, scene: str, evaluation: np.ndarray) -> None:
    """Raise an error if a generator has seen evaluation pixels, flat indices of the scene with a given fingerprint.

    Sources without provenance, made elsewhere, cannot be checked and pass.

    Raises:
        LeakageError: giving the number of overlapping pixels, and the first of them.
    """
    split, footprints = (None, ()) if provenance is None else (provenance.split, provenance.footprints)
    for seen in footprints:
        overlap = seen.within(evaluation) if same_scene(seen.scene, scene) else np.empty(0)
        if overlap.size:
            raise LeakageError(
                f'the generator (split {split}) has seen {overlap.size} of {len(evaluation)} evaluation '
                f'pixels, first flat indices {overlap[:5].tolist()}; train it on the training part of the evaluated '
                'split'
            )


@runtime_checkable
class SampleSource(Protocol):
    """Anything that synthetic samples can be drawn from."""

    spec: SampleSpec
    provenance: Provenance | None

    def sample(self, n: int, labels: Tensor | None = None, seed: int | None = None) -> dict[str, Tensor]:
        """Draw a batch of ``n`` samples in the sample contract.

        Args:
            n: number of samples.
            labels: (n,) int64 class of each sample; drawn from the training frequencies if None.
            seed: makes the draw reproducible.
        """
        ...


@dataclass(frozen=True, eq=False)
class Traits:
    """What a source of samples may say of itself, besides what every :class:`SampleSource` says.

    Args:
        provenance: where its samples come from, None where it does not say.
        class_prior: (K,) training frequencies, from which it draws labels; None where it knows none.
        left_out: classes that it never draws, the one that does not count among them.
        soft_labels: whether its samples carry ``label_prob``.
        settings: JSON-ready; what distinguishes it from others of its type.
        device: where it draws.
    """

    provenance: Provenance | None = None
    class_prior: Tensor | None = None
    left_out: tuple[str, ...] = ()
    soft_labels: bool = False
    settings: Any = None
    device: torch.device = _CPU

    @classmethod
    def of(cls, source: object) -> Traits:
        """Those of a generator, of anything else with ``sample``, or of a dataset."""
        said: dict[str, Any] = {one.name: getattr(source, one.name, one.default) for one in fields(cls)}
        if isinstance(spec := getattr(source, 'spec', None), SampleSpec):
            said['left_out'] = tuple(dict.fromkeys((*said['left_out'], *spec.uncounted)))
        return cls(**said)

    @property
    def frequencies(self) -> np.ndarray | None:
        """(K,) training frequencies, on the CPU."""
        return None if self.class_prior is None else self.class_prior.cpu().numpy()


def class_counts(labels: Tensor | np.ndarray | Sequence[int], num_classes: int) -> np.ndarray:
    """(K,) int64 number of samples per class; labels that are no class count nowhere."""
    found = np.asarray(labels, dtype=np.int64)
    return np.bincount(found[(found >= 0) & (found < num_classes)], minlength=num_classes)


def in_short(names: Sequence[str]) -> str:
    """The first six of some names."""
    return ', '.join(names[:6]) + (', ...' if len(names) > 6 else '')
