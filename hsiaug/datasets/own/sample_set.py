"""Datasets in place of a scene: studies, ratio searches and evaluations split them, train and test on them."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import torch
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from torch import Tensor
from torch.utils.data import ConcatDataset, Subset

from ...functional.dealing import deal_regions
from ...records import json_ready, short_digest
from ...samples import Kind, LeakageError, SampleSpec, require_compatible
from ...seen import Places
from ...settings import NOT_NEGATIVE, SHARE, check_settings, check_value
from ..contract.wrapped import places_of
from ..real.held import HeldSamples
from .adapted import AdaptedDataset, adapt
from .reading import IN_MEMORY, read

PARTS = ('train', 'val', 'test')


class HeldPart(HeldSamples):
    """Some samples of a :class:`SampleSet`, of any kind, held in memory with digests and windows of what was read."""

    def __init__(
        self, image: Tensor, target: Tensor, spec: SampleSpec, digests: np.ndarray, places: Places | None
    ) -> None:
        super().__init__(image, target, spec)
        self._digests, self._places = digests, places

    def digests(self) -> np.ndarray:
        """(n, d) uint64 of the images, see :mod:`hsiaug.seen`."""
        return self._digests

    def places(self) -> Places | None:
        """Windows that the samples are cut from; None where that is not known."""
        return self._places


class SampleSet:
    """Real samples of datasets, divided into given or drawn parts, with groups that stay together.

    A group, such as a city, tile or flight line, is never divided between drawn parts. Samples with the same image are
    always in the same group.

    Args:
        train: labelled samples, as accepted by :func:`~hsiaug.datasets.adapt`.
        val: labelled samples for validation; if None, drawn from ``train``.
        test: labelled samples for testing; if None, drawn from ``train``.
        unlabelled: unlabelled samples of the training area.
        group: name of a key of every sample, or of an attribute of the datasets with one value per sample;
            ``'samples'`` makes each sample its own group. If None, the attribute ``groups`` if there is one, else the
            images that samples are cut from.
        name: short name.
        fields: ``size``, ``classes``, ``wavelengths`` and other arguments of :func:`~hsiaug.datasets.adapt`.

    Attributes:
        spec: spec of the samples.
        parts: the given labelled datasets, by part.

    Raises:
        TypeError: if something is not a map-style dataset.
        ValueError: for a dataset that cannot be used.
        SpecMismatchError: if the datasets do not match.
    """

    tile_rows = None

    def __init__(
        self,
        train: Any,
        val: Any = None,
        test: Any = None,
        unlabelled: Any = None,
        *,
        group: str | None = None,
        name: str = 'samples',
        **fields: Any,
    ) -> None:
        given = {part: one for part, one in zip(PARTS, (train, val, test), strict=True) if one is not None}
        self.parts: dict[str, AdaptedDataset] = {
            part: adapt(dataset, name=f'{part} ({type(dataset).__name__})', **fields) for part, dataset in given.items()
        }
        self.spec, self.group, self.name, self.unlabelled = self.parts['train'].spec, group, name, unlabelled
        for part, dataset in self.parts.items():
            require_compatible(self.spec, dataset.spec, ('train', part), f'samples of train and {part}')

    def __call__(self) -> SampleSet:
        """Itself: a study opens what it measures on by a call."""
        return self

    @property
    def dates(self) -> int:
        """Number of dates of a sample."""
        return self.spec.dates

    def rows(self, part: str) -> np.ndarray:
        """Numbers of the samples of a part that was given, but for those whose one label does not count; else none."""
        start = 0
        for name, dataset in self.parts.items():
            if name == part:
                rows = np.arange(start, start + len(dataset))
                return rows if self.spec.target_key == 'mask' else rows[dataset.survey(IN_MEMORY).pixels.any(axis=1)]
            start += len(dataset)
        return np.arange(0)

    def place(self, row: int) -> str:
        """Which sample a number is, in words."""
        for part, dataset in self.parts.items():
            if row < len(dataset):
                return f'sample {row} of {part}'
            row -= len(dataset)
        raise IndexError(row)

    # --- all samples ------------------------------------------------------------------------------------------------

    @cached_property
    def digests(self) -> np.ndarray:
        """(N, d) uint64 of all images, see :mod:`hsiaug.seen`."""
        return np.concatenate([part.survey(IN_MEMORY).digests for part in self.parts.values()])

    @cached_property
    def strata(self) -> np.ndarray:
        """(N,) the rarest class that each sample holds: draws and folds have their share of each."""
        pixels = np.concatenate([part.survey(IN_MEMORY).pixels for part in self.parts.values()])
        order = np.argsort(pixels.sum(axis=0), kind='stable')
        return order[(pixels[:, order] > 0).argmax(axis=1)]

    @cached_property
    def groups(self) -> np.ndarray:
        """(N,) number of the group of each sample."""
        names: list[str] = []
        for part, dataset in self.parts.items():
            of_image = None if self.group == 'samples' else self._named_groups(dataset)
            rows = dataset.survey(IN_MEMORY).rows
            if self.group == 'samples':
                rows = np.arange(len(rows))
            names += [f'{part} {row}' if of_image is None else of_image[row] for row in rows.tolist()]
        number = np.unique(names, return_inverse=True)[1]
        known = self.digests != 0
        image = np.unique(self.digests[known], return_inverse=True)[1]
        of_image = np.broadcast_to(number[:, None], known.shape)[known]
        size = int(number.max()) + 1
        edges = coo_matrix((np.ones(len(image)), (of_image, size + image)), shape=[size + len(image)] * 2)
        return np.asarray(connected_components(edges, directed=False)[1][:size][number])

    def _named_groups(self, dataset: AdaptedDataset) -> list[str] | None:
        """Group of each image of a dataset; None where each is one of its own.

        Raises:
            ValueError: if nothing is called so.
        """
        inner = dataset.dataset
        held = getattr(inner, self.group or 'groups', None)
        if isinstance(held, Sequence | np.ndarray | Tensor) and len(held) == len(inner):
            return [str(value) for value in (held.tolist() if isinstance(held, np.ndarray | Tensor) else held)]
        if self.group is None:
            return None
        found = []
        for row in range(len(inner)):
            sample = read(inner, row, dataset.name)
            if self.group not in sample:
                raise ValueError(
                    f'{dataset.name}: group {self.group!r} is neither a key of sample {row}, which has '
                    f'{sorted(map(str, sample))}, nor an attribute with a value for each of {len(inner)} samples'
                )
            value = sample[self.group]
            found.append(str(value.tolist() if isinstance(value, np.generic | np.ndarray | Tensor) else value))
        return found

    def deal(self, rows: np.ndarray, groups: np.ndarray, folds: int, rng: np.random.Generator) -> np.ndarray:
        """(n,) fold of each of some samples: whole groups, folds alike in size and in each of :attr:`strata`."""
        label = np.concatenate([self.strata[rows], np.full(len(rows), -1)])  # size counts as a class that all are of
        return deal_regions(label, np.concatenate([groups, groups]), folds, rng)[: len(rows)]

    @cached_property
    def content(self) -> dict[str, Any]:
        """Everything that a result depends on, JSON-ready."""
        targets = hashlib.sha256()
        for part in self.parts.values():
            found = part.survey(IN_MEMORY)
            targets.update((found.pixels if found.targets is None else found.targets.numpy()).tobytes())
        return {
            **{f'{part} samples': len(dataset) for part, dataset in self.parts.items()},
            'images': short_digest(self.digests.tolist()),
            'targets': targets.hexdigest()[:16],
            'groups': short_digest(self.groups.tolist()),
            'spec': json_ready(asdict(self.spec)),
        }

    @cached_property
    def fingerprint(self) -> str:
        """16 hex digits of :attr:`content`."""
        return short_digest(self.content)

    # --- parts ------------------------------------------------------------------------------------------------------

    def part(self, split: SampleSplit, part: str) -> HeldPart | AdaptedDataset:
        """The samples of one part of a split; up to 1 GiB of data they are held in memory, otherwise read on demand.

        Raises:
            ValueError: for a split of other samples, or a part without samples.
        """
        if split.scene != self.fingerprint:
            raise ValueError(f'{self.name}: the split was made for other samples ({split.scene}); split these')
        rows: np.ndarray = getattr(split, check_value(self.name, 'part', part, Literal['train', 'val', 'test']))
        if not len(rows):
            raise ValueError(f'{self.name}: the {part} part is empty; give {part}, or a {part}_share above 0')
        found = [dataset.survey(IN_MEMORY) for dataset in self.parts.values()]
        together: Any = ConcatDataset(list(self.parts.values()))
        chosen = Subset(together, rows.tolist())
        if any(one.images is None for one in found):
            return adapt(chosen, spec=self.spec, name=part)
        pieces, start = [], 0
        for one in found:
            here = torch.from_numpy(rows[(rows >= start) & (rows < start + len(one.rows))] - start)
            pieces.append((one.images[here], one.targets[here]))  # type: ignore[index]
            start += len(one.rows)
        image, target = (torch.cat(side) for side in zip(*pieces, strict=True))
        return HeldPart(image, target, self.spec, self.digests[rows], places_of(chosen))


@dataclass(frozen=True, eq=False)
class SampleSplit:
    """A split of a :class:`SampleSet`. Rows count the samples of all its parts, one after another, and are ascending.

    Args:
        scene: fingerprint of the samples.
        strategy: how they were split, as recorded in results.
        seed: seed of the split.
        kind: kind of the samples.
        train: (n,) rows for training.
        val: (m,) rows for validation.
        test: (t,) rows for testing.
    """

    scene: str
    strategy: dict[str, Any]
    seed: int
    kind: Kind
    train: np.ndarray
    val: np.ndarray
    test: np.ndarray
    dropped: tuple[str, ...] = ()

    @cached_property
    def fingerprint(self) -> str:
        """16 hex digits of the samples and which is where."""
        return short_digest([self.scene, *(getattr(self, part).tolist() for part in PARTS)])


@dataclass(frozen=True)
class SampleSplitter:
    """Splits a :class:`SampleSet`: missing parts are drawn from its training samples, in whole groups.

    Args:
        val_share: share of the training samples for validation, if there is no validation part; 0 for none.
        test_share: share of the training samples for testing, if there is no test part; 0 for none.

    Raises:
        ValueError: if a share is out of range, or no training samples would be left.
    """

    val_share: float = 0.2
    test_share: float = 0.2

    def __post_init__(self) -> None:
        check_settings(self, val_share=SHARE, test_share=SHARE)
        if self.val_share + self.test_share >= 1:
            raise ValueError(
                f'SampleSplitter: val_share and test_share must add up to less than 1, found {self.val_share} and '
                f'{self.test_share}'
            )

    def __call__(self, samples: SampleSet, seed: int = 0) -> SampleSplit:
        """The parts; of those that are drawn each seed has its own.

        Raises:
            LeakageError: if training and test part, as they were given, share images.
            ValueError: if there are too few groups.
        """
        rng = np.random.default_rng(check_value(type(self).__name__, 'seed', seed, int, NOT_NEGATIVE))
        rows = {part: samples.rows(part) for part in PARTS}
        shares = {'test': self.test_share, 'val': self.val_share}
        drawn = {part: share for part, share in shares.items() if part not in samples.parts and share > 0}
        left, groups = 1.0, len(np.unique(samples.groups[rows['train']])) if drawn else 0
        if drawn and groups < len(drawn) + 1:
            raise ValueError(
                f'{samples.parts["train"].name}: {len(rows["train"])} samples lie in {groups} group(s), by '
                f'{samples.group or "the images that they are cut from"}; train and '
                f"{' and '.join(drawn)} need one each: give {' and '.join(drawn)}, or group='samples'"
            )
        for part, share in drawn.items():
            mine = rows['train']
            folds = min(max(2, round(left / share)), len(np.unique(samples.groups[mine])))
            inside = samples.deal(mine, samples.groups[mine], folds, rng) == 0
            rows[part], rows['train'], left = mine[inside], mine[~inside], left - share
        train, val, test = (samples.digests[rows[part]] for part in PARTS)
        if np.isin(val, train[train != 0]).any():
            warnings.warn(
                f'{samples.parts["val"].name} holds samples that train holds too: what is chosen by them is chosen too '
                'favourably',
                stacklevel=2,
            )
        learnt = np.concatenate([train, val])
        if (shared := np.asarray(np.isin(test, learnt[learnt != 0]).any(axis=1))).any():
            name = samples.parts['test'].name if 'test' in samples.parts else 'the test part drawn from train'
            raise LeakageError(
                f'{name} holds {int(shared.sum())} of {len(shared)} samples that train or val '
                f'hold too, the first of them {np.flatnonzero(shared)[:5].tolist()}; leave them out on one side'
            )
        strategy = {'name': 'samples', 'own': [part for part in PARTS[1:] if part in samples.parts], **drawn}
        return SampleSplit(
            samples.fingerprint, strategy, seed, samples.spec.kind, rows['train'], rows['val'], rows['test']
        )
