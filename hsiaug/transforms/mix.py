"""Synthetic samples mixed into batches."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.utils.data import Dataset

from ..datasets.batches import (
    append_rows,
    batch_size,
    complete,
    in_dtypes_of,
    replace_rows,
    require_sample,
    text_keys,
)
from ..datasets.checks import ClassNumbers, Scales, require_mixable
from ..datasets.labels import LabelPolicy
from ..datasets.pool import Draw, Source, SyntheticPool
from ..datasets.sources import as_pool
from ..datasets.synthetic import stream_seed
from ..datasets.wrapped import counts_of
from ..ratio import Mode, Schedule, as_schedule, require_mode, synthetic_count
from ..samples import Sample, SpecMismatchError

_PLACES = -6  # a stream of its own


class SyntheticMix(nn.Module):
    """Mixes synthetic samples into batches, dictionary to dictionary, for all four kinds of sample.

    *replace*: the batch keeps its size, and synthetic samples take random places; *append*: all real samples, then
    synthetic ones. Counts are exact over the epoch by cumulative rounding. Put it before normalisation and
    augmentation, which then run on synthetic samples too. In eval mode batches pass untouched.

    Synthetic sample (seed, epoch, number) is the same however batches are cut; under DDP rank r takes numbers r, r + W,
    ... Call :meth:`set_epoch` where an epoch begins, or a dataset without ``replacement`` runs out. ``real_seen`` and
    ``synthetic_seen`` count what has passed; position and counts are part of the state dict, so that a resumed training
    continues where it was. A batch that a loop has converted, to bfloat16 say, gets synthetic samples in its dtype.

    Args:
        source: a generator (moved to the batch's device and drawn live), a bank, or any dataset in the sample contract.
        ratio: synthetic samples per real sample, >= 0, or a schedule over epochs.
        mode: ``'replace'`` or ``'append'``.
        seed: of every draw.
        labels: classes of the synthetic samples; None is the real frequencies for a generator, and everything as it
            comes for a dataset.
        real_counts: (K,) real samples per class, for policies that need them.
        prior: (K,) class prior for ``labels='prior'``.
        replacement: use a dataset's samples again within an epoch.
        weight: loss weight of synthetic samples, carried as ``weight``, 1 for real ones; None for no such key.
        real: the dataset that the batches come from, each sample once an epoch. What it is, whether the generator has
            seen its test pixels and whether the source holds enough samples is then checked at once.
        different_scales: the values of the two sides are meant to differ by orders of magnitude, which is an error
            otherwise.

    Raises:
        ValueError: if the ratio is negative or not finite, the mode unknown, the source empty or too small.
        SpecMismatchError: if ``real`` does not fit the source, or at the first batch that does not: other keys, shapes
            or dtypes, labels that are neither classes nor the ignore index, values of another order of magnitude. On a
            GPU a wrong label may be noticed some batches later.
        LeakageError: if the source's generator has seen test pixels of the split of ``real``.
    """

    def __init__(
        self,
        source: Source,
        ratio: float | Schedule = 0.5,
        mode: Mode = 'replace',
        seed: int = 0,
        labels: LabelPolicy | None = None,
        real_counts: np.ndarray | None = None,
        prior: np.ndarray | None = None,
        replacement: bool = False,
        weight: float | None = None,
        real: Dataset[Sample] | None = None,
        different_scales: bool = False,
    ) -> None:
        super().__init__()
        self.schedule, self.mode, self.seed, self.weight = (
            as_schedule(ratio),
            require_mode(mode, 'SyntheticMix'),
            seed,
            weight,
        )
        # Not a submodule: an optimiser must not see the generator's parameters, nor a checkpoint hold them again.
        counts = counts_of(real) if real_counts is None and real is not None else real_counts
        self.pool = as_pool(source, Draw(seed, labels, prior, counts, replacement=replacement))
        self.epoch = self.step = self._seen = self._drawn = 0
        self.real_seen = self.synthetic_seen = 0
        self._spec, self._expected = self.pool.spec, 0
        self._numbers: ClassNumbers | None = None  # known with the first batch: a live generator is not drawn before
        self._scales = Scales(different_scales)
        if real is not None:
            self._spec = require_mixable(real, self.pool)
            self.expect(len(cast(Any, real)))

    @property
    def ratio(self) -> float:
        """Synthetic samples per real sample in the current epoch."""
        return self.schedule(self.epoch)

    def set_epoch(self, epoch: int) -> None:
        """Begin an epoch: its own samples, places and ratio."""
        self.epoch, self.step, self._seen, self._drawn = epoch, 0, 0, 0
        self._require_enough(epoch)

    def expect(self, real_samples: int, epochs: int = 1) -> None:
        """Say how many real samples an epoch has in all, on all ranks, so that a source too small is an error now.

        Args:
            real_samples: of an epoch.
            epochs: to look ahead from the current one, where a schedule changes the ratio.

        Raises:
            ValueError: if the source holds fewer samples than an epoch asks for.
        """
        self._expected = real_samples
        for ratio in {self.schedule(epoch): epoch for epoch in range(self.epoch, self.epoch + epochs)}.values():
            self._require_enough(ratio)

    def _require_enough(self, epoch: int) -> None:
        ratio, world = self.schedule(epoch), _rank_and_world()[1]
        if self._expected and ratio:
            self.pool.require_enough(world * synthetic_count(-(-self._expected // world), ratio, self.mode))

    @torch.no_grad()
    def forward(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """A batch with synthetic samples in it and ``synthetic`` (bool) to tell them.

        Args:
            batch: real samples in the sample contract; left as it is.

        Raises:
            TypeError: if it is no batch in the sample contract.
            SpecMismatchError: naming each key, shape or dtype in which the two sides differ, or labels or values that
                do not fit.
        """
        require_sample(batch, 'SyntheticMix')
        if not self.training:
            return dict(batch)
        size, device = batch_size(batch), batch['image'].device
        count = synthetic_count(self._seen + size, self.ratio, self.mode) - synthetic_count(
            self._seen, self.ratio, self.mode
        )
        if self.ratio == 0:
            mixed = complete(batch, False, None, self.weight)
        else:
            self.pool.to(device)
            mixed = self._mix(batch, size, count)
        self.step, self._seen, self._drawn = self.step + 1, self._seen + size, self._drawn + count
        self.synthetic_seen += count
        self.real_seen += size - (count if self.mode == 'replace' else 0)
        return mixed

    def _mix(self, batch: Mapping[str, Any], size: int, count: int) -> dict[str, Any]:
        rank, world = _rank_and_world()
        numbers = (self._drawn + np.arange(count)) * world + rank
        classes, texts = self.pool.num_soft_classes, text_keys(batch)
        _require_kind(batch, self.pool)
        if self._numbers is None:
            self._numbers = ClassNumbers.of(self._spec, self.pool)
        self._numbers.require(batch, 'real')
        real = complete(batch, False, classes, self.weight, texts)
        synthetic = complete(self.pool.at(numbers, self.epoch), True, classes, self.weight, texts)
        self._numbers.require(synthetic, 'synthetic')
        self._scales.see(batch['image'], synthetic['image'])
        synthetic = in_dtypes_of(real, synthetic)
        if self.mode == 'append':
            return append_rows(real, synthetic)
        rng = np.random.default_rng(stream_seed(self.seed, self.epoch, self.step, rank, _PLACES))
        return replace_rows(real, synthetic, torch.from_numpy(rng.permutation(size)[:count]))

    def get_extra_state(self) -> Tensor:
        """(6,) int64: epoch, step, samples seen and drawn in the epoch, real and synthetic samples seen in all."""
        state = [self.epoch, self.step, self._seen, self._drawn, self.real_seen, self.synthetic_seen]
        return torch.tensor(state, device='cpu')

    def set_extra_state(self, state: Tensor) -> None:
        """The inverse of :meth:`get_extra_state`."""
        self.epoch, self.step, self._seen, self._drawn, self.real_seen, self.synthetic_seen = state.tolist()

    def extra_repr(self) -> str:
        """Ratio, mode and source, without its data."""
        return f'ratio={self.schedule}, mode={self.mode!r}, source={self.pool}'


def _require_kind(real: Mapping[str, Any], pool: SyntheticPool) -> None:
    """A batch of another kind has other keys; say which kind the source is before the keys are compared."""
    if pool.spec is not None and pool.spec.target not in real:
        raise SpecMismatchError(
            f'SyntheticMix: the source holds samples of kind {pool.spec.kind!r} with {pool.spec.target!r}, the batch '
            f'has {sorted(real)}; mix a source of the kind that the batch is'
        )


def _rank_and_world() -> tuple[int, int]:
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return 0, 1
