"""Mixing of synthetic samples into batches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset
from torchvision import tv_tensors

from ..datasets.contract.batches import fetch_samples, require_sample
from ..datasets.contract.wrapped import counts_of
from ..datasets.mixing.checks import ClassNumbers
from ..datasets.mixing.columns import Extras, absent_values, append_rows, in_dtypes_of, replace_rows, require_same_form
from ..datasets.mixing.exhausted import Exhausted, require_policy
from ..datasets.mixing.sources import LabelPolicies, Mixture, NamedSources, Ratios, Sources
from ..datasets.pools.pool import Draw
from ..datasets.shared import require_epoch, world
from ..ratio import Mode, source_counts
from ..samples import Sample, SpecMismatchError
from ..settings import check_value
from ..streams import REPLACED, stream_seed

_SEED = (1 << 63) - 1  # what of a seed fits int64


class SyntheticMix(Mixture, nn.Module):
    """Mixes synthetic samples into batches of any kind of sample. Takes and returns a dictionary.

    *replace*: synthetic samples take random positions, and the batch keeps its size; *append*: all real samples, then
    synthetic ones. Counts are exact over the epoch, by cumulative rounding. Put the module before normalisation and
    augmentation, which then run on synthetic samples too. In eval mode, batches pass unchanged.

    A synthetic sample depends only on (seed, epoch, number), not on the batch size; under DDP, rank r takes numbers r,
    r + W, ... Two modules with one source and seed therefore mix in the same samples: give each its own seed. Call
    :meth:`set_epoch` at the beginning of an epoch; otherwise a dataset without ``replacement`` runs out. ``real_seen``,
    ``synthetic_seen`` and, for named sources, ``source_seen`` count samples; position and counts are part of the state
    dict, so that a resumed training continues where it stopped. If a batch was converted, for example to bfloat16,
    synthetic samples get its dtype. The module can also be used in a ``torchvision.transforms.v2.Compose``: images and
    masks that are ``tv_tensors`` remain ``tv_tensors``.

    Args:
        source: a generator (moved to the batch's device and drawn live), a bank or its folder, or any dataset in the
            sample contract; or several of them by name.
        mode: ``'replace'`` or ``'append'``.
        ratio, seed, labels, prior, replacement, weight, different_scales: as for
            :class:`~hsiaug.datasets.MixedDataset`.
        real_counts: (K,) real samples per class, for policies that need them; by default, those of ``real``.
        real: the dataset that the batches come from, each sample once per epoch. If given, its spec, leakage of its
            test pixels, and the size of the source are checked at once.
        on_exhausted: what to do if a dataset holds fewer samples than an epoch asks for: ``'error'``, or ``'repeat'``
            to use them again. The length of an epoch is that of the loader.

    Raises:
        ValueError: if the ratio is negative or not finite, the mode unknown, the source empty or too small.
        SpecMismatchError: if ``real`` does not match the source, or at the first batch that does not: other keys,
            shapes or dtypes, labels that are neither classes nor the ignore index, values of another order of
            magnitude. On a GPU, a wrong label may be noticed some batches later.
        LeakageError: if the source's generator has seen test pixels of the split of ``real``.
    """

    def __init__(
        self,
        source: NamedSources,
        ratio: Ratios = 0.5,
        mode: Mode = 'replace',
        seed: int = 0,
        labels: LabelPolicies = None,
        real_counts: np.ndarray | None = None,
        prior: np.ndarray | None = None,
        replacement: bool = False,
        weight: float | None = None,
        real: Dataset[Sample] | None = None,
        different_scales: bool = False,
        on_exhausted: Exhausted = 'error',
    ) -> None:
        super().__init__()
        again = require_policy('SyntheticMix', on_exhausted, replacement, batches=True) == 'repeat'
        self.seed, self.weight = seed, check_value('SyntheticMix', 'weight', weight, float | None)
        # Not a submodule: an optimiser must not see the generator's parameters, nor a checkpoint hold them again.
        counts = counts_of(real) if real_counts is None and real is not None else real_counts
        draw = Draw(seed, prior=prior, real_counts=counts, replacement=again)
        self.sources = Sources('SyntheticMix', source, ratio, labels, draw, mode, different_scales)
        self.schedule, self.mode = self.sources.schedule, self.sources.mode
        self.epoch = self.step = self._seen = self.real_seen = 0
        self._drawn, self._passed = ([0] * len(self.sources.pools) for _ in range(2))  # of each source: epoch, in all
        self._spec, self._expected = self.sources.spec, 0
        self._numbers: ClassNumbers | None = None  # known with the first batch: a live generator is not drawn before
        if real is not None:
            self._spec, held = self.sources.require_mixable(real), len(cast(Any, real))
            if self.sources.tagged and held:
                self.sources.require_free(fetch_samples(real, np.zeros(1, dtype=np.int64))[0])
            self.expect(held)

    @property
    def synthetic_seen(self) -> int:
        """Number of synthetic samples mixed in so far."""
        return sum(self._passed)

    @property
    def source_seen(self) -> dict[str, int]:
        """Number of samples of each named source mixed in so far."""
        return dict(zip(self.sources.names, self._passed, strict=False))

    def set_epoch(self, epoch: int) -> None:
        """Begin an epoch, with new synthetic samples and positions and the ratio of the epoch."""
        self.epoch = require_epoch('SyntheticMix', epoch)
        self.step, self._seen, self._drawn = 0, 0, [0] * len(self._drawn)
        self._require_enough(self.epoch)

    def expect(self, real_samples: int, epochs: int = 1) -> None:
        """State the number of real samples in an epoch, so that too small a source raises an error now.

        Args:
            real_samples: number of real samples in an epoch, over all ranks.
            epochs: number of epochs to check, from the current one, if a schedule changes the ratio.

        Raises:
            ValueError: if the source holds fewer samples than an epoch asks for.
        """
        self._expected = real_samples
        ahead = range(self.epoch, self.epoch + epochs)
        for epoch in {tuple(self.sources.ratios(epoch)): epoch for epoch in ahead}.values():
            self._require_enough(epoch)

    def _require_enough(self, epoch: int) -> None:
        ranks = world()[1]
        counts = self.sources.counts(-(-self._expected // ranks), epoch) if self._expected else ()
        for pool, count in zip(self.sources.pools, counts, strict=False):
            if count:
                pool.require_enough(ranks * count)

    @torch.no_grad()
    def forward(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """Mix synthetic samples into a batch; the key ``synthetic`` (bool) marks them.

        Args:
            batch: real samples in the sample contract; it is not changed.

        Raises:
            TypeError: if it is not a batch in the sample contract.
            SpecMismatchError: naming each key, shape or dtype in which the two sides differ, or labels or values that
                do not match.
        """
        require_sample(batch, 'SyntheticMix', stacked=True)
        if not self.training:
            return dict(batch)
        size, device = len(batch['image']), batch['image'].device
        ratios = self.sources.ratios(self.epoch)
        after, before = (source_counts(seen, ratios, self.mode) for seen in (self._seen + size, self._seen))
        counts = [one - other for one, other in zip(after, before, strict=True)]
        if not any(ratios):
            self.sources.require_free(list(batch))
            mixed = Extras(weight=self.weight, tagged=self.sources.tagged).complete(batch, 0)
        else:
            self.sources.to(device)
            mixed = self._mix(batch, size, counts)
        self.step, self._seen = self.step + 1, self._seen + size
        for number, count in enumerate(counts):
            self._drawn[number] += count
            self._passed[number] += count
        self.real_seen += size - (sum(counts) if self.mode == 'replace' else 0)
        return _typed_like(batch, mixed)

    def _mix(self, batch: Mapping[str, Any], size: int, counts: Sequence[int]) -> dict[str, Any]:
        rank, ranks = world()
        sources, absent = self.sources, absent_values(batch)
        spec = sources.pools[0].spec
        if spec is not None and spec.target_key not in batch:  # said before the keys are compared
            raise SpecMismatchError(
                f'SyntheticMix: the source holds samples of kind {spec.kind!r} with {spec.target_key!r}, the batch has '
                f'{sorted(batch)}; use a source of the same kind as the batch'
            )
        sources.require_free(list(batch))
        extras = Extras(sources.num_soft_classes, self.weight, absent, sources.tagged)
        if self._numbers is None:
            _require_batch(batch['image'], sources.pools[0].example()['image'])
            self._numbers = sources.class_numbers(self._spec)
        targets = {key: batch[key] for key in ('label', 'mask', 'label_prob', 'weight') if key in batch}
        if wrong := {key: len(value) for key, value in targets.items() if len(value) != size}:
            raise SpecMismatchError(f'SyntheticMix: a batch of {size} images has {wrong}; give one to each image')
        self._numbers.require(batch, 'real')
        real = extras.complete(batch, 0)
        parts = []
        for number, (pool, count, drawn) in enumerate(zip(sources.pools, counts, self._drawn, strict=True), 1):
            if count or len(sources.pools) == 1:
                found = pool.at((drawn + np.arange(count)) * ranks + rank, self.epoch)
                part = extras.complete(found, number)
                self._numbers.require(part, sources.titles[number - 1])
                sources.scales[number - 1].see(batch['image'], part['image'])
                parts.append(in_dtypes_of(real, part, 'SyntheticMix'))
        if not parts:
            return real
        if self.mode == 'append':
            return append_rows([real, *parts])
        rng = np.random.default_rng(stream_seed(self.seed, self.epoch, self.step, rank, REPLACED))
        if len(parts) > 1:
            for part in parts:
                require_same_form(real, part)  # before they are compared with each other
            parts = [append_rows(parts)]
        return replace_rows(real, parts[0], torch.from_numpy(rng.permutation(size)[: sum(counts)]))

    def settings(self, epoch: int) -> dict[str, Any]:
        """What the samples of an epoch depend on, in plain values."""
        return self.sources.settings(epoch)

    @property
    def _identity(self) -> dict[str, int]:
        """What a state belongs to, as numbers: 1 + 2K, so that its length is odd, as none was before they were part."""
        known = {'mode (1: append)': int(self.mode == 'append')}
        for title, pool in zip(self.sources.titles, self.sources.pools, strict=True):
            known |= {f'seed of {title} samples': pool.draw.seed & _SEED, f'number of {title} samples': pool.held}
        return known

    def get_extra_state(self) -> Tensor:
        """(5 + 4K,) int64 of K sources.

        Epoch, step, samples seen, drawn of each source; of all epochs real ones, each source's; 1 for append mode, and
        of each source its seed and how many samples it holds (-1: a generator).
        """
        state = [self.epoch, self.step, self._seen, *self._drawn, self.real_seen, *self._passed]
        return torch.tensor([*state, *self._identity.values()], device='cpu')

    def set_extra_state(self, state: Tensor) -> None:
        """The inverse of :meth:`get_extra_state`.

        Raises:
            ValueError: if it is that of a mixture of other sources, or of another seed.
        """
        number = len(self._drawn)
        if len(state) not in (4 + 2 * number, 5 + 4 * number):
            raise ValueError(
                f'SyntheticMix: a state of {number} sources has {5 + 4 * number} numbers, found {len(state)}; make it '
                'with the sources that it was saved with'
            )
        (epoch, step, seen, *rest), now = state.tolist(), self._identity
        saved = dict(zip(now, rest[2 * number + 1 :], strict=False))
        if differs := [
            f'{key} {saved[key]} when it was saved, {now[key]} here' for key in saved if saved[key] != now[key]
        ]:
            raise ValueError(
                f'SyntheticMix: the state belongs to another mixture, with other samples: {", ".join(differs)}; use '
                'the settings it was saved with, or start a new epoch with set_epoch(epoch)'
            )
        self.epoch, self.step, self._seen = epoch, step, seen
        self._drawn, self.real_seen, self._passed = rest[:number], rest[number], rest[number + 1 : 2 * number + 1]

    def extra_repr(self) -> str:
        """Ratio, mode and source, without its data."""
        return f'ratio={self.schedule}, mode={self.mode!r}, source={self.sources}'


def _require_batch(real: Tensor, synthetic: Tensor) -> None:
    """One sample looks like a batch of its bands."""
    if real.ndim == synthetic.ndim - 1:
        raise SpecMismatchError(
            f'SyntheticMix: an image of shape {tuple(real.shape)} is one sample, a batch (B, '
            f'{", ".join(map(str, synthetic.shape[1:]))}) is expected; give batches of the loader, or mix single '
            'samples with hsiaug.MixedDataset'
        )


def _typed_like(batch: Mapping[str, Any], mixed: dict[str, Any]) -> dict[str, Any]:
    """Torchvision's images and masks as such again, which its transforms would otherwise not take a mask for.

    Raises:
        SpecMismatchError: for boxes and key points, which no synthetic sample has.
    """
    for key, value in batch.items():
        if isinstance(value, tv_tensors.TVTensor) and key in mixed:
            if not isinstance(value, tv_tensors.Image | tv_tensors.Mask | tv_tensors.Video):
                raise SpecMismatchError(
                    f'SyntheticMix: the batch has {type(value).__name__} as {key!r}, which synthetic samples do not '
                    'have; mix images with one label or mask each'
                )
            mixed[key] = tv_tensors.wrap(mixed[key].as_subclass(Tensor), like=value)
    return mixed
