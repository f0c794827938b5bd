"""Pools of synthetic samples stored in a dataset, such as a bank."""

from __future__ import annotations

from functools import cached_property, partial
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from ...functional.prior import tilt_to_mixture
from ...samples import Sample, SampleSpec, class_counts
from ...streams import DRAWS, stream_seed
from ..contract.batches import as_tensor, fetch, spread_rows
from ..contract.wrapped import EXAMINED, class_names_of, epoch_followers, labels_of, require_map_style, spec_of
from ..real.held import class_fractions
from ..shared import Kept
from .orders import Rounds, Rows
from .pool import Draw, Pool


class StoredPool(Pool):
    """Samples of a dataset; none is repeated before all have been used.

    Raises:
        TypeError: if samples cannot be accessed by number.
        ValueError: if it is empty, or a label policy lacks an argument.
    """

    source: Dataset[Sample]

    def __init__(self, dataset: Dataset[Sample], draw: Draw) -> None:
        require_map_style(dataset, 'source of synthetic samples')
        self.source = dataset
        if self.held == 0:
            raise ValueError('the synthetic dataset is empty; sample a bank or lengthen the dataset first')
        super().__init__(draw, spec_of(dataset))
        self.class_names = class_names_of(dataset)
        self._followers = epoch_followers(dataset)
        self._streams: Kept[int, Rounds] = Kept(1)  # of the epoch
        if draw.labels is not None:
            self.mixture()  # a policy without a required argument fails now, not in a training loop

    @property
    def held(self) -> int:
        """Number of samples."""
        return len(cast(Any, self.source))

    @property
    def enough(self) -> int:
        """Number of samples with which the label policy can be met, each used at most once."""
        weights = self.weights
        return self.held if weights is None else int(1 / weights.max() + 1e-9)

    def follow(self, epoch: int) -> None:
        """Pass the epoch on to inner datasets that change with it."""
        for follower in self._followers:
            follower.set_epoch(epoch)

    def epoch(self, count: int, epoch: int) -> tuple[Dataset[Sample], Rows]:
        """The dataset, and rows in random order."""
        self.require_enough(count)
        return self.source, self._rounds(epoch, count)

    def random(self, n: int, seed: int) -> dict[str, Tensor]:
        """``n`` independent draws."""
        rng, edges = self._rng(seed, DRAWS), self._edges
        if edges is None:
            return self._rows(rng.integers(self.held, size=n))
        return self._rows(np.searchsorted(edges, rng.random(n) * edges[-1], side='right').clip(max=self.held - 1))

    def require_enough(self, n: int) -> None:
        """Check that an epoch may ask for ``n`` samples.

        Raises:
            ValueError: if there are fewer and ``replacement`` is off.
        """
        if not self.draw.replacement and n > self.enough:
            labels = '' if self.draw.labels is None else f' with labels={self.draw.labels!r}'
            raise ValueError(
                f'{n} synthetic samples are needed, but {self._who} holds {self.enough}{labels}; make it longer, lower '
                'the ratio, call set_epoch where each epoch begins, or allow replacement=True (on_exhausted="repeat")'
            )

    def _at(self, wanted: np.ndarray, epoch: int) -> dict[str, Tensor]:
        self.require_enough(int(wanted.max()) + 1)
        return self._rows(self._streams.get_or_make(epoch, lambda: self._rounds(epoch, self.enough))[wanted])

    def _rounds(self, epoch: int, size: int) -> Rounds:
        """Rows of whole rounds through the dataset or, with a policy, of ``size`` samples each."""
        seed = stream_seed(self.draw.seed, epoch, DRAWS)
        if self.weights is None:
            return Rounds(self.held, seed)
        return Rounds(size, seed, partial(self._pick, size))

    def _pick(self, n: int, rng: np.random.Generator) -> np.ndarray:
        weights = cast(np.ndarray, self.weights)
        order = rng.permutation(self.held)
        labels = self._labels()
        if labels is not None:  # stratified: each class gets its share to within one
            order = order[np.argsort(labels[order], kind='stable')]
        edges = np.cumsum(weights[order])
        points = (np.arange(n) + rng.random()) / n * edges[-1]
        return rng.permutation(order[np.searchsorted(edges, points, side='right').clip(max=self.held - 1)])

    @cached_property
    def weights(self) -> np.ndarray | None:
        """(N,) probability of each sample of a dataset under the policy; None if all are equal."""
        if self.draw.labels is None:
            return None
        mixture, labels = self.mixture(), self._labels()
        if labels is None:
            return tilt_to_mixture(self._fractions(), mixture)
        self._require_true(labels)
        held = class_counts(labels, len(mixture))
        if absent := [cast(SampleSpec, self.spec).classes[k] for k in np.flatnonzero((held == 0) & (mixture > 0))]:
            raise ValueError(f'labels={self.draw.labels!r} asks for {absent}, but the source holds no sample of it')
        known, each = (labels >= 0) & (labels < len(mixture)), mixture / np.maximum(held, 1)
        return np.where(known, each[np.where(known, labels, 0)], 0.0)  # ignored samples have no class

    @cached_property
    def _edges(self) -> np.ndarray | None:
        """(N,) cumulative weights, computed once so that a draw is cheap even in a long dataset."""
        return None if self.weights is None else np.cumsum(self.weights)

    def _labels(self) -> np.ndarray | None:
        """(N,) labels of a dataset; None for masks."""
        if 'label' not in self._one:
            return None
        labels = labels_of(self.source)
        if labels is None:
            labels = torch.stack([as_tensor(cast(Any, self.source)[i]['label']) for i in range(self.held)])
        return labels.numpy()

    def _require_true(self, labels: np.ndarray) -> None:
        """Refuse labels (N,) that a dataset knows by heart and that are not those of its samples."""
        rows = spread_rows(self.held, EXAMINED)
        for row, label in zip(rows.tolist(), self._rows(rows)['label'].tolist(), strict=True):
            if label != labels[row]:
                raise ValueError(
                    f'{self._who} has {label} as label of sample {row}, but {labels[row]} in its attribute `labels`; '
                    'change either, or leave the attribute out'
                )

    def _fractions(self) -> np.ndarray:
        """(N, K) share of each class in each mask."""
        known = getattr(self.source, 'class_fractions', None)
        if known is not None and (fractions := known()) is not None:
            return np.asarray(fractions, dtype=np.float64)
        masks = (as_tensor(cast(Any, self.source)[i]['mask']).to(torch.int64) for i in range(self.held))
        return torch.cat([class_fractions(mask[None], cast(SampleSpec, self.spec)) for mask in masks]).double().numpy()

    def _rows(self, rows: np.ndarray) -> dict[str, Tensor]:
        return {key: value for key, value in fetch(self.source, rows).items() if isinstance(value, Tensor)}

    def _first(self, n: int) -> dict[str, Tensor]:
        return self._rows(np.arange(min(n, self.held)))

    @property
    def _who(self) -> str:
        return 'the synthetic dataset' if self.name is None else f'the source {self.name!r}'
