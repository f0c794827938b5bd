"""Checks that real and synthetic samples match in spec, class numbers and scale, and of what a generator has seen."""

from __future__ import annotations

import warnings
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from ...samples import (
    LeakageError,
    Provenance,
    Sample,
    SampleSpec,
    SpecMismatchError,
    in_short,
    require_compatible,
    require_unseen,
)
from ..contract.batches import Arrays, as_tensor, fetch, spread_rows
from ..contract.samples import in_contract
from ..contract.wrapped import (
    EXAMINED,
    class_names_of,
    gathered,
    of_rows,
    places_of,
    provenances_of,
    require_map_style,
    spec_of,
    splits_of,
)
from ..own.reading import read
from ..own.survey import digests_of_dates

if TYPE_CHECKING:
    from ..pools.pool import Pool

Use = Literal['val', 'test']
LARGEST_GAP, LARGEST_GAP_OF_FEW = 30.0, 1000.0
"""Medians of two sides that differ by more are in other units; where fewer samples than :data:`EXAMINED` are known,
only the second is sure: a patch of water is thirty times as dark as one of snow."""
_ALIKE = 10.0
_NORMALISED, _PHYSICAL = 0.2, 0.001  # shares of negative values
_VALUES = 4096  # of an image, at most


# --- what both sides say of themselves ------------------------------------------------------------------------------


def require_mixable(real: Dataset[Sample], pool: Pool) -> SampleSpec | None:
    """Check a source against a real dataset, as far as the two say what they hold, and return the common spec.

    What is inside wrappers counts, too (:mod:`hsiaug.datasets.contract.wrapped`).

    Raises:
        SpecMismatchError: if the two specs do not fit together, or class names differ, in their order too.
        LeakageError: if the source's generator has seen test pixels of the real dataset's split.
    """
    spec = spec_of(real)
    if spec and pool.spec:
        require_compatible(spec, pool.spec)
    _require_same_names(
        spec.classes if spec else class_names_of(real), pool.spec.classes if pool.spec else pool.class_names
    )
    for split in splits_of(real):
        for provenance in pool.provenances:
            require_unseen(provenance, split.scene, split.test)
    return spec or pool.spec


def _require_same_names(real: tuple[str, ...] | None, synthetic: tuple[str, ...] | None) -> None:
    """Compare the names of classes in label order; case and separators do not matter."""
    if real is None or synthetic is None or [_plain(n) for n in real] == [_plain(n) for n in synthetic]:
        return
    plain = {_plain(name) for name in synthetic}
    absent = [name for name in real if _plain(name) not in plain]
    if not absent and len(real) == len(synthetic):
        why = 'the same names in another order, so that a label means another class'
    elif len(absent) == len(real):
        why = 'other names'
    else:
        why = (
            f'the source has no {absent[:8]}; a split that left rare classes out (on_rare="drop") numbers the others '
            'anew'
        )
    raise SpecMismatchError(
        f'classes of real and synthetic samples do not match: {why}\n  real: {list(real)}\n  synthetic: '
        f'{list(synthetic)}\nBring both to the same classes in the same order; where the attribute `classes` of the '
        'real dataset is not what its labels mean, give it a `spec` (hsiaug.samples.SampleSpec).'
    )


def _plain(name: str) -> str:
    return ''.join(letter for letter in name.casefold() if letter.isalnum()) or name


# --- class numbers --------------------------------------------------------------------------------------------------


@dataclass
class ClassNumbers:
    """The numbers that labels may have, checked in every batch.

    Args:
        num_classes: K; labels are 0 to K - 1. None where it is not known: nothing is checked then.
        ignore_index: label that does not count, where there is one.
        names: of the classes, for messages.
        target: ``'label'`` or ``'mask'``, whichever a batch has, if None.
    """

    num_classes: int | None = None
    ignore_index: int | None = None
    names: tuple[str, ...] | None = None
    target: str | None = None

    def __post_init__(self) -> None:
        self._late: deque[tuple[Any, Tensor, Tensor, str]] = deque()  # checks that a GPU has still to answer
        self._checked = False

    def _key(self, sample: Mapping[str, Any]) -> str | None:
        """The key of labels in a sample, or a batch; None where there is none, or two of which one is not known."""
        found = [key for key in ('mask', 'label') if key in sample and self.target in (None, key)]
        return found[0] if len(found) == 1 else None

    def require(self, batch: Mapping[str, Any], side: str) -> None:
        """Check a batch, or a sample.

        On a GPU the first batch is waited for; what is wrong with a later one is raised a few batches afterwards, when
        its answer has come back.

        Raises:
            SpecMismatchError: if a label is neither a class nor the ignore index.
        """
        if self.num_classes is not None and (key := self._key(batch)) is not None:
            for values in batch[key] if isinstance(batch[key], Arrays) else [batch[key]]:
                self.require_values(as_tensor(values), f'{side} {key}s')

    def seen_in(self, sample: Mapping[str, Any]) -> set[int]:
        """The labels of a sample."""
        key = self._key(sample)
        values = torch.empty(0) if key is None else as_tensor(sample[key])
        return set() if values.is_floating_point() else set(values.unique().tolist())

    def require_values(self, values: Tensor, what: str) -> None:
        """Check labels of any shape and dtype."""
        if self.num_classes is None or values.numel() == 0:
            return
        if values.device.type == 'cpu':
            if not self._fits(values):
                self._refuse(values, what)
        elif values.device.type == 'cuda':
            self._require_later(values.detach(), what)
        elif values.device.type != 'meta' and bool(self._wrong(values).any()):
            self._refuse(values, what)

    def _fits(self, values: Tensor) -> bool:
        """In one pass where all labels are classes: read as unsigned, negative integers are the largest."""
        if values.dtype in (torch.bool, torch.float16, torch.bfloat16):
            return not bool(self._wrong(values).any())
        array = values.detach().numpy()
        if array.dtype.kind == 'f':
            low = array.min() < 0
        else:
            array, low = array.view(f'u{array.itemsize}'), False
        if not low and array.max() < self.num_classes:
            return True
        if self.ignore_index is None or low:
            return not bool(self._wrong(values).any())
        return not bool(((array >= self.num_classes) & (values.detach().numpy() != self.ignore_index)).any())

    def _wrong(self, values: Tensor) -> Tensor:
        wrong = (values < 0) | (values >= self.num_classes)  # type: ignore[operator]
        return wrong if self.ignore_index is None else wrong & (values != self.ignore_index)

    def _require_later(self, values: Tensor, what: str) -> None:
        """Without waiting for the GPU, which would cost more than the mixing."""
        wrong = self._wrong(values).any()
        if not self._checked:
            self._checked = True
            if bool(wrong):
                self._refuse(values, what)
            return
        answer = torch.empty((), dtype=torch.bool, device='cpu', pin_memory=True)
        answer.copy_(wrong, non_blocking=True)
        done = torch.cuda.Event()
        done.record(torch.cuda.current_stream(values.device))
        self._late.append((done, answer, values, what))
        while self._late and (self._late[0][0].query() or len(self._late) > 4):
            done, answer, values, what = self._late.popleft()
            done.synchronize()
            if bool(answer):
                self._refuse(values, what)

    def _refuse(self, values: Tensor, what: str) -> None:
        wrong = values[self._wrong(values)].unique().tolist()
        classes = f' ({in_short(self.names)})' if self.names else ''
        ignored = '' if self.ignore_index is None else f', or {self.ignore_index} where a pixel does not count'
        hints = {
            'the last is K: subtract 1 where classes are numbered from 1': self.num_classes in wrong,
            'use mask // 255 where 255 means the second class': wrong == [255] and self.num_classes == 2,
            f'give pixels that do not count the ignore index {self.ignore_index}': self.ignore_index is not None,
            'give the real dataset a `spec` whose ignore_index they are, where such labels do not count': (
                self.ignore_index is None
            ),
            "a split with on_rare='drop' numbers its classes anew": True,
        }
        raise SpecMismatchError(
            f'{what} hold {wrong[:8]}, expected 0 to {self.num_classes - 1}{classes}{ignored}. '  # type: ignore[operator]
            'Number the classes of both sides alike: ' + '; '.join(hint for hint, fits in hints.items() if fits)
        )

    def __getstate__(self) -> dict[str, Any]:
        """Without what a GPU still has to answer."""
        return {**self.__dict__, '_late': deque()}


def warn_of_doubtful_labels(numbers: ClassNumbers, real: set[int], synthetic: set[int]) -> None:
    """Warn of what is no error for certain: labels that seem shifted by one, or a second class that seems ignored."""
    if numbers.num_classes is None and len(real) > 1 and real == {value + 1 for value in synthetic}:
        warnings.warn(
            f'real samples have the labels {sorted(real)[:8]}, synthetic ones {sorted(synthetic)[:8]}, as if one side '
            'counted classes from 1; give both sides a `spec` (hsiaug.samples.SampleSpec) to be sure',
            stacklevel=4,
        )
    if numbers.num_classes == 2 and numbers.ignore_index is not None and real == {0, numbers.ignore_index}:
        warnings.warn(
            f'the real masks that were read hold 0 and {numbers.ignore_index}, which does not count, and never 1; use '
            f'mask // {numbers.ignore_index} where {numbers.ignore_index} means the second class',
            stacklevel=4,
        )


# --- scale of values ------------------------------------------------------------------------------------------------


class Scales:
    """Median and interquartile range of the values of both sides, from their first samples.

    Two units differ in both by orders of magnitude: digital numbers and reflectance, per cent and fractions. Where one
    side alone has many negative values, as what is normalised has, there is a warning. Zeros and values that are not
    finite count on neither side. Nothing is compared where ``different`` scales are meant.
    """

    def __init__(self, different: bool = False, title: str = 'synthetic') -> None:
        self.settled, self.title = different, title
        self._values: dict[str, list[np.ndarray]] = {'real': [], 'synthetic': []}

    def see(self, real: Tensor | Sequence[Tensor], synthetic: Tensor | Sequence[Tensor]) -> None:
        """Look at images of both sides until enough have been seen.

        Raises:
            SpecMismatchError: naming both medians.
        """
        if not self.settled:
            self.add('real', real)
            self.add('synthetic', synthetic)
            self.judge()

    def add(self, side: str, images: Tensor | Sequence[Tensor]) -> None:
        """Take images of a side in."""
        held = self._values[side]
        for image in images[: max(EXAMINED - len(held), 0)]:
            flat = image.detach().reshape(-1)
            some = flat[:: (flat.numel() // _VALUES) | 1].to('cpu', torch.float32).numpy()
            held.append(some[np.isfinite(some) & (some != 0)])

    def judge(self, remedy: str = 'or pass different_scales=True if this is intended') -> None:
        """Compare what has been seen so far.

        Args:
            remedy: what can be done besides, for the message.

        Raises:
            SpecMismatchError: naming both medians.
        """
        if self.settled:
            return
        known = [len(values) for values in self._values.values()]
        values = {side: np.concatenate(held) if held else np.empty(0) for side, held in self._values.items()}
        if min(len(found) for found in values.values()) > 1:
            real, synthetic = (float(np.median(np.abs(found))) for found in values.values())
            ranges = [float(np.subtract(*np.percentile(found, [75, 25]))) for found in values.values()]
            sign = 1 if synthetic > real else -1
            gap = other = (synthetic / real) ** sign
            if all(ranges):
                other = (ranges[1] / ranges[0]) ** sign
            # A unit scales median and range alike; what moves one of them alone, such as an offset, is no unit.
            alike = max(gap, other) <= _ALIKE * min(gap, other)
            if alike and min(gap, other) > (LARGEST_GAP if min(known) >= EXAMINED else LARGEST_GAP_OF_FEW):
                raise SpecMismatchError(
                    f'values of real and synthetic samples differ by orders of magnitude: the median of |value| is '
                    f'{real:.4g} in real and {synthetic:.4g} in {self.title} samples; convert both to the same unit, '
                    f'{remedy}'
                )
            below = [float((found < 0).mean()) for found in values.values()]
            if min(known) >= EXAMINED and max(below) > _NORMALISED and min(below) < _PHYSICAL:
                warnings.warn(
                    f'{below[0]:.0%} of the values of real and {below[1]:.0%} of {self.title} samples are negative, as '
                    f'if only one side were normalised; normalise after mixing, or both sides alike, {remedy}',
                    stacklevel=4,
                )
        self.settled = min(known) >= EXAMINED


def some_samples(dataset: Any) -> Iterator[dict[str, Any]]:
    """Samples from all over a dataset, first and last among them, as batches of one each: images may be large.

    Raises:
        ValueError: naming a sample whose image or target is of another shape than the first's.
    """
    first = None
    for row in spread_rows(len(dataset), EXAMINED):
        sample = fetch(dataset, np.array([row]))
        shapes = {key: tuple(np.shape(sample[key]))[1:] for key in ('image', 'mask', 'label') if key in sample}
        first = first or shapes
        if shapes != first:
            raise ValueError(
                f'{type(dataset).__name__}: sample {row} holds {shapes}, sample 0 {first}; bring all to one form, '
                'for example with hsiaug.adapt(dataset, size=...)'
            )
        yield sample


# --- what a generator has seen ----------------------------------------------------------------------------------------


def require_unseen_samples(source: Any, dataset: Any, use: Use = 'test') -> str:
    """Raise an error if the generator of a source has seen samples that a model is to be evaluated on.

    Images are compared by their content, value for value, regardless of file names; pixels of scenes by their position.
    Overlapping windows are found if both sides know which image, file or area they were cut from, as do the tiles of
    :func:`~hsiaug.datasets.adapt` and :class:`~hsiaug.datasets.GeoSamples`. Copies that were flipped, turned, cropped,
    scaled or resampled before, also by a dataset's own transforms, are other images and not found: split before you
    augment.

    Args:
        source: a generator, a bank, a dataset of synthetic samples, or a provenance.
        dataset: real samples for evaluation.
        use: ``'test'``, or ``'val'`` if the generator may have been selected on the same validation samples.

    Returns:
        a sentence that says what was compared and what cannot be known.

    Raises:
        LeakageError: giving the number of shared samples, and the first of them.
        ValueError: if there are no samples to evaluate on.
    """
    if not len(dataset):
        raise ValueError(f'{type(dataset).__name__}, to evaluate on, is empty; check its folder, split or subset')
    known = (source,) if isinstance(source, Provenance) else provenances_of(source)
    if not known:
        return 'The source does not say what its generator has seen: nothing can be compared.'
    for provenance in known if use == 'test' else ():
        for split in splits_of(dataset):
            require_unseen(provenance, split.scene, split.test)
    recorded = [one.samples for one in known if one.samples is not None]
    if not recorded:
        return 'The generator has no record of samples: only pixels of scenes were compared.'
    require_map_style(dataset, 'samples to evaluate on')
    digests, places = digests_of(dataset), places_of(dataset)
    for samples in recorded:
        shared = np.flatnonzero(samples.shared(digests, places, use == 'test'))
        if len(shared):
            raise LeakageError(
                f'the generator has seen {len(shared)} of {len(digests)} {use} samples, wholly or in part, the first '
                f'of them {shared[:5].tolist()}; train it on other samples, or evaluate on samples it has not seen'
            )
    if places is None or not all(samples.placed for samples in recorded):
        return (
            f'None of {len(digests)} samples was seen as it is. Whether windows overlap cannot be known: one side does '
            'not say which images its samples are cut from. Nor are flipped, cropped or scaled copies found.'
        )
    return f'None of {len(digests)} samples was seen, nor a window that overlaps one.'


def digests_of(dataset: Any) -> np.ndarray:
    """(N, d) uint64 digests of the images of all samples, one per date; read where they are not known yet."""
    known = gathered(dataset, lambda layer: of_rows(layer, 'digests'), np.concatenate)
    if known is not None:
        return known
    name = type(dataset).__name__
    found = [
        digests_of_dates(in_contract(read(dataset, row, name), f'{name}: sample {row}', labelled=False)['image'])
        for row in range(len(dataset))
    ]
    return np.array(found, dtype=np.uint64).reshape(len(found), -1)
