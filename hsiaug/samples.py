"""The sample contract: the one vocabulary that every part of hsiaug speaks.

A *sample* is torchgeo's dictionary of tensors. A :class:`SampleSpec` says what such a dictionary holds, a
:class:`Provenance` says where a synthetic one comes from and which pixels its generator has seen, and
:class:`SampleSource` is what anything must offer to be drawn from.
"""

from __future__ import annotations

import base64
import dataclasses
import json
import math
import operator
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import reduce
from itertools import combinations
from typing import Any, Literal, Protocol, get_args, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from .records import as_record, require_plausible
from .seen import SeenSamples

Kind = Literal['spectrum', 'scene', 'segmentation', 'change']
Target = Literal['label', 'mask']
Sample = dict[str, Any]
_CPU = torch.device('cpu')

WAVELENGTH_TOLERANCE_NM = 0.5
"""Two band centres closer than this are the same band; nominal (approximate) grids are allowed ten times as much."""


class SpecMismatchError(ValueError):
    """Two sources of samples that cannot be mixed."""


class LeakageError(ValueError):
    """A generator that has seen pixels of the evaluation it is about to be used for."""


@dataclass(frozen=True)
class SampleSpec:
    """What a dataset or a generator holds.

    Args:
        kind: ``'spectrum'``, ``'scene'``, ``'segmentation'`` or ``'change'``.
        bands: number of spectral bands C.
        classes: class names; their position is the integer label.
        wavelengths: band centres in nm, or None where they are not known.
        wavelengths_approximate: the centres are nominal (a sensor's data sheet), not the file's own.
        size: ``(H, W)`` of an image, None for spectra.
        ignore_index: label of pixels that count neither in losses nor in metrics.
        value_range: lowest and highest value that the unit allows, as far as it is known.
        unit: physical unit of the values, for example ``'reflectance'``.

    Raises:
        ValueError: if a field contradicts another.
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
        if self.kind not in get_args(Kind):
            raise ValueError(f'SampleSpec: unknown kind {self.kind!r}; choose from {get_args(Kind)}')
        if self.bands < 1:
            raise ValueError(f'SampleSpec: bands must be at least 1, found {self.bands}')
        if repeated := sorted({str(name) for name in self.classes if self.classes.count(name) > 1}):
            raise ValueError(f'SampleSpec: classes with one name: {repeated}; name each differently')
        if self.wavelengths is not None and len(self.wavelengths) != self.bands:
            raise ValueError(
                f'SampleSpec: {self.bands} bands but {len(self.wavelengths)} wavelengths; give one per band'
            )
        if wrong := [w for w in self.wavelengths or () if not (math.isfinite(w) and w > 0)]:
            raise ValueError(
                f'SampleSpec: wavelengths must be finite and above 0 nm, found {wrong[:3]}; give None where they are '
                'not known'
            )
        if self.value_range is not None and not self.value_range[0] <= self.value_range[1]:
            raise ValueError(
                f'SampleSpec: value_range must be the lowest and the highest value, found {self.value_range}'
            )
        if (self.size is None) != (self.kind == 'spectrum'):
            raise ValueError(
                f'SampleSpec: kind {self.kind!r} with size {self.size}; spectra have none, images need one'
            )
        if self.size is not None and min(self.size) < 1:
            raise ValueError(f'SampleSpec: sides of at least 1 pixel expected, found size {self.size}')

    @property
    def num_classes(self) -> int:
        """Number of classes K."""
        return len(self.classes)

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

    @property
    def sample_bytes(self) -> int:
        """That a sample takes in memory: float32 image, int64 target."""
        return 4 * math.prod(self.image_shape) + 8 * math.prod(self.target_shape)

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready dictionary."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> SampleSpec:
        """The inverse of :meth:`to_dict`, equal to the original even after a passage through JSON."""
        return as_record(cls, data, 'SampleSpec')


def target_of(kind: Kind) -> Target:
    """Key of what belongs to the image of a sample of a kind: one label, or a mask."""
    return 'mask' if kind in ('segmentation', 'change') else 'label'


def require_compatible(
    real: SampleSpec,
    synthetic: SampleSpec,
    sides: tuple[str, str] = ('real', 'synthetic'),
    what: str = 'real and synthetic samples',
) -> None:
    """Check that samples of two specs can stand in one batch; the error names each field in which they differ.

    ``sides`` are what the two are called, and ``what`` does not fit together, in the message.
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
            f'{what} do not fit together:\n  '
            + '\n  '.join(problems)
            + '\nTrain the generator on this dataset, or bring both to the same bands, classes and unit.'
        )


class SceneFingerprint(str):
    """A scene's fingerprint that remembers what older versions called the same scene.

    Generators that these saved carry the ``former`` one; as text it is the present one alone.
    """

    former: frozenset[str]

    def __new__(cls, value: str, former: Iterable[str] = ()) -> SceneFingerprint:
        """Text with a memory."""
        new = super().__new__(cls, value)
        new.former = frozenset(former) - {value}
        return new


def same_scene(one: str, other: str) -> bool:
    """Whether two fingerprints are of one scene, by present or former names."""
    return one == other or one in getattr(other, 'former', ()) or other in getattr(one, 'former', ())


_ONES = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1).sum(axis=1)  # bits that are set in a byte


@dataclass(frozen=True)
class Footprint:
    """A set of pixels of one scene, small enough to travel with a generator.

    Args:
        scene: fingerprint of the scene.
        size: number of pixels that the scene has.
        packed: base64 of the zlib-compressed bit mask.
    """

    scene: str
    size: int
    packed: str = field(repr=False)

    @classmethod
    def of(cls, scene: str, size: int, pixels: np.ndarray) -> Footprint:
        """The footprint of flat pixel indices."""
        mask = np.zeros(size, dtype=bool)
        mask[pixels] = True
        return cls(scene, size, base64.b64encode(zlib.compress(np.packbits(mask).tobytes(), 6)).decode('ascii'))

    def joined(self, other: Footprint) -> Footprint:
        """Pixels of either, of one scene; it is called as the other calls it, which is the newer."""
        if self == other:
            return other
        return Footprint.of(other.scene, other.size, np.union1d(self.pixels(), other.pixels()))

    def pixels(self) -> np.ndarray:
        """Flat pixel indices, ascending, int64; an error for a mask that is damaged, or says far more than it holds."""
        bits = self._bits()
        require_plausible(8 * int(_ONES[bits].sum()), len(self.packed), 'a footprint of seen pixels')
        held = np.flatnonzero(bits)
        row, column = np.nonzero(np.unpackbits(bits[held, None], axis=1))
        return (8 * held[row] + column).astype(np.int64)

    def within(self, pixels: np.ndarray) -> np.ndarray:
        """Those of flat pixel indices that it holds, ascending, without an array of its own pixels."""
        pixels = np.unique(np.asarray(pixels, dtype=np.int64))
        inside = pixels[(pixels >= 0) & (pixels < self.size)]
        return inside[(self._bits()[inside // 8] >> (7 - inside % 8).astype(np.uint8)) & 1 == 1]

    def _bits(self) -> np.ndarray:
        """(ceil(size / 8),) uint8, unpacked no further than to the size that is declared."""
        expected = -(-self.size // 8)
        require_plausible(expected, len(self.packed), 'a footprint of seen pixels')
        try:
            reader = zlib.decompressobj()
            raw = reader.decompress(base64.b64decode(self.packed, validate=True), max(expected, 0) + 1)
        except (ValueError, zlib.error) as error:
            raise ValueError(f'a footprint of seen pixels is damaged: {error}') from error
        if len(raw) != expected or not reader.eof:
            raise ValueError(
                f'a footprint of seen pixels is damaged: it does not hold the {self.size} that it declares'
            )
        return np.frombuffer(raw, dtype=np.uint8)


@dataclass(frozen=True)
class Provenance:
    """Where a generator comes from.

    Args:
        version: hsiaug's version at training time.
        seed: seed of the training.
        training: JSON-ready training configuration.
        split: fingerprint of the split it was trained on.
        seen: pixels that the generator, its normalisation or its selection has seen.
        elsewhere: such pixels of further scenes, where several were pooled.
        samples: such samples of a dataset, scene or not.
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


def seen_of_all(known: Mapping[str, Provenance]) -> dict[str, Any]:
    """What several provenances, by whose they are, have seen, as fields of one provenance of all.

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
    return {
        'seen': reduce(Footprint.joined, seen.values()) if seen else None,
        'elsewhere': tuple(elsewhere),
        'samples': reduce(SeenSamples.joined, samples) if samples else None,
    }


def require_unseen(provenance: Provenance | None, scene: str, evaluation: np.ndarray) -> None:
    """Refuse a generator that has seen evaluation pixels, flat indices of a scene that is named by its fingerprint.

    A source without provenance, made elsewhere, cannot be checked and passes.

    Raises:
        LeakageError: naming how many pixels overlap, and the first of them.
    """
    for seen in provenance.footprints if provenance is not None else ():
        overlap = seen.within(evaluation) if same_scene(seen.scene, scene) else np.empty(0)
        if provenance is not None and overlap.size:
            raise LeakageError(
                f'the generator (split {provenance.split}) has seen {overlap.size} of {len(evaluation)} evaluation '
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
        left_out: classes that it never draws.
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
        return cls(**said)

    @property
    def frequencies(self) -> np.ndarray | None:
        """(K,) training frequencies, on the CPU."""
        return None if self.class_prior is None else self.class_prior.cpu().numpy()


def as_seed(seed: Any) -> int:
    """A seed as Python's integer; those of numpy and torch are seeds too."""
    try:
        if not isinstance(seed, bool | np.bool_):
            return operator.index(seed)
    except TypeError:
        pass
    raise TypeError(f'seed must be a whole number, found {seed!r}')


def class_counts(labels: Tensor | np.ndarray | Sequence[int], num_classes: int) -> np.ndarray:
    """(K,) int64 number of samples per class."""
    return np.bincount(np.asarray(labels, dtype=np.int64), minlength=num_classes)
