"""Real and synthetic samples in one dataset, at a ratio."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, cast

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import one_hot
from torch.utils.data import Dataset
from torchgeo.datasets import NonGeoDataset

from ..samples import Sample, SampleSource, SampleSpec, require_compatible, require_ratio, require_unseen
from .labels import LabelPolicy
from .synthetic import SyntheticDataset, stream_seed

Mode = Literal['append', 'replace']
_POSITIONS, _DRAWS = -1, -2  # streams beside those of the synthetic samples' chunks, which count from 0


class MixedDataset(NonGeoDataset):
    """A real dataset with ``ratio`` synthetic samples per real sample.

    *append*: all real samples, then round(ratio·N) synthetic ones; shuffle in the loader. *replace*: N samples, of
    which ⌊N·ratio/(1+ratio)⌋ are synthetic, at places that change with the epoch. Ratio 0 is the real dataset, sample
    for sample. Every sample carries ``synthetic`` (bool); where synthetic samples have soft labels, real ones carry a
    one-hot ``label_prob`` beside them.

    Args:
        real: any dataset in the sample contract.
        synthetic: a generator (drawn live), a :class:`SyntheticDataset`, or any dataset in the sample contract.
        ratio: synthetic samples per real sample, >= 0.
        seed: seed of every draw.
        mode: ``'append'`` or ``'replace'``.
        labels: classes of the samples of a generator that is drawn live.
        prior: (K,) class prior for ``labels='prior'``.
        replacement: draw a synthetic dataset's samples again where it holds fewer than the ratio asks for.

    Raises:
        ValueError: if the ratio is negative or not finite, or the synthetic dataset holds too few samples.
        SpecMismatchError: if both specs are known and do not fit.
        LeakageError: if the generator has seen test pixels of the real dataset's split.
    """

    def __init__(
        self,
        real: Dataset[Sample],
        synthetic: SampleSource | Dataset[Sample],
        ratio: float = 0.5,
        seed: int = 0,
        mode: Mode = 'append',
        labels: LabelPolicy = 'real',
        prior: np.ndarray | None = None,
        replacement: bool = False,
    ) -> None:
        if mode not in ('append', 'replace'):
            raise ValueError(f"MixedDataset: unknown mode {mode!r}; choose from 'append', 'replace'")
        self.ratio, self.seed, self.mode, self.replacement = require_ratio(ratio), seed, mode, replacement
        self.real, self.num_real = real, len(cast(Any, real))
        self.num_synthetic = (
            round(self.ratio * self.num_real)
            if mode == 'append'
            else int(np.floor(self.num_real * (self.ratio / (1 + self.ratio)) + 1e-9))
        )
        if isinstance(synthetic, Dataset):
            self.synthetic = synthetic
        else:
            counts = getattr(real, 'class_counts', None)
            self.synthetic = SyntheticDataset(synthetic, self.num_synthetic, seed, labels, counts, prior)
        self._check()
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()
        self._order: tuple[int, np.ndarray] | None = None

    def _check(self) -> None:
        available = len(cast(Any, self.synthetic))
        if self.num_synthetic > available and not (self.replacement and available):
            raise ValueError(
                f'MixedDataset: ratio {self.ratio:g} with {self.num_real} real samples needs {self.num_synthetic} '
                f'synthetic ones, but the synthetic dataset holds {available}; make it longer, lower the ratio'
                + (', or allow replacement=True' if available else '')
            )
        real_spec, synthetic_spec = (getattr(d, 'spec', None) for d in (self.real, self.synthetic))
        if isinstance(real_spec, SampleSpec) and isinstance(synthetic_spec, SampleSpec):
            require_compatible(real_spec, synthetic_spec)
        split = getattr(self.real, 'split', None)
        if split is not None:
            require_unseen(getattr(self.synthetic, 'provenance', None), split.scene, split.test)
        self.spec = real_spec or synthetic_spec
        soft = getattr(self.synthetic, 'soft_labels', None)
        if soft is None:
            soft = available > 0 and 'label_prob' in self.synthetic[0]
        self.soft_labels = bool(soft) and self.num_synthetic > 0

    def __len__(self) -> int:
        """Number of samples of an epoch."""
        return self.num_real + (self.num_synthetic if self.mode == 'append' else 0)

    @property
    def epoch(self) -> int:
        """The current epoch."""
        return int(self._epoch)

    def set_epoch(self, epoch: int) -> None:
        """Draw other synthetic samples from now on, in all workers. Without it every epoch repeats epoch 0."""
        self._epoch.fill_(epoch)
        if hasattr(self.synthetic, 'set_epoch'):
            self.synthetic.set_epoch(epoch)

    def _epoch_order(self) -> np.ndarray:
        """(len,) where each sample comes from: i >= 0 is real sample i, -1 - j is synthetic sample j."""
        epoch = self.epoch
        if self._order is not None and self._order[0] == epoch:
            return self._order[1]
        available = len(cast(Any, self.synthetic))
        if self.num_synthetic == available:
            draws = np.arange(available)
        else:
            rng = np.random.default_rng(stream_seed(self.seed, epoch, _DRAWS))
            rounds = -(-self.num_synthetic // max(available, 1))
            draws = np.concatenate([rng.permutation(available) for _ in range(rounds)] or [np.arange(0)])
            draws = draws[: self.num_synthetic]
        order = np.arange(len(self))
        if self.mode == 'append':
            order[self.num_real :] = -1 - draws
        elif self.num_synthetic:
            rng = np.random.default_rng(stream_seed(self.seed, epoch, _POSITIONS))
            order[rng.permutation(self.num_real)[: self.num_synthetic]] = -1 - draws
        self._order = (epoch, order)
        return order

    def batch(self, indices: Sequence[int] | Tensor) -> dict[str, Tensor]:
        """Samples of several indices, stacked."""
        rows = np.asarray(indices, dtype=np.int64)
        if rows.size and not 0 <= rows.min() <= rows.max() < len(self):
            raise IndexError(f'MixedDataset: index out of range for {len(self)} samples')
        source = self._epoch_order()[rows]
        is_synthetic = source < 0
        real = self._complete(_fetch(self.real, source[~is_synthetic]), False)
        if not is_synthetic.any():
            return real
        synthetic = self._complete(_fetch(self.synthetic, -1 - source[is_synthetic]), True)
        if is_synthetic.all():
            return synthetic
        if missing := set(real) ^ set(synthetic):
            raise ValueError(
                f'MixedDataset: only one side has {sorted(missing)}; real samples have {sorted(real)}, synthetic '
                f'samples {sorted(synthetic)}; give both the same keys'
            )
        back = np.argsort(np.concatenate([np.flatnonzero(~is_synthetic), np.flatnonzero(is_synthetic)]))
        return {key: torch.cat([real[key], synthetic[key].to(real[key].dtype)])[back] for key in real}

    def _complete(self, batch: dict[str, Tensor], synthetic: bool) -> dict[str, Tensor]:
        """Add what every mixed sample carries."""
        if not batch:
            return batch
        batch = dict(batch)
        size = len(next(iter(batch.values())))
        batch['synthetic'] = torch.full((size,), synthetic, dtype=torch.bool)
        if self.soft_labels and 'label_prob' not in batch:
            batch['label_prob'] = one_hot(batch['label'], cast(SampleSpec, self.spec).num_classes).to(torch.float32)
        return batch

    def __getitem__(self, index: int) -> Sample:
        """One sample, real or synthetic, with ``synthetic`` (bool)."""
        return self.__getitems__([index + len(self) if index < 0 else index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[Sample]:
        """Samples of a whole batch."""
        batch = self.batch(indices)
        return [{key: value[row] for key, value in batch.items()} for row in range(len(indices))]


def _fetch(dataset: Dataset[Sample], rows: np.ndarray) -> dict[str, Tensor]:
    """Stacked samples of a dataset, read whole where it can."""
    if rows.size == 0:
        return {}
    if hasattr(dataset, 'batch') and getattr(dataset, 'transforms', None) is None:
        return dict(dataset.batch(rows))
    if hasattr(dataset, '__getitems__'):
        samples = dataset.__getitems__(rows.tolist())
    else:
        samples = [dataset[i] for i in rows.tolist()]
    tensors: list[Mapping[str, Any]] = [{k: torch.as_tensor(v) for k, v in s.items() if _is_array(v)} for s in samples]
    return {key: torch.stack([sample[key] for sample in tensors]) for key in tensors[0]}


def _is_array(value: object) -> bool:
    return isinstance(value, Tensor | np.ndarray | np.generic | int | float | bool)
