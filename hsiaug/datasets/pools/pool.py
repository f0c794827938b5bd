"""Pools of synthetic samples, drawn live from a generator or stored in a dataset, and how they are drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from ...samples import Kind, Sample, SampleSource, SampleSpec, Traits
from ...streams import DRAWS, LABELS, as_seed, stream_seed
from ..contract.batches import kind_of
from ..contract.wrapped import provenances_of
from ..shared import Kept
from .labels import LabelPolicy, synthetic_counts
from .orders import InOrder, Rows
from .synthetic import SyntheticDataset, default_chunk, draw_samples, gather_chunks

Source = SampleSource | Dataset[Sample]
"""A generator (drawn live), or any map-style dataset in the sample contract, such as a bank."""

_ENDLESS = 1 << 20  # samples over which a policy is exact if the number of draws is unknown


@dataclass(frozen=True, eq=False)
class Draw:
    """How to draw samples from a source.

    Args:
        seed: seed of all draws.
        labels: classes of the samples (:data:`~hsiaug.datasets.LabelPolicy`); None means the real frequencies
            for a generator, and no selection for a dataset. For masks, the class mixture of whole patches.
        prior: (K,) class prior for ``labels='prior'``.
        real_counts: (K,) real samples per class (for masks: pixels), for policies that need them; if None, a
            generator's training frequencies.
        total: number of synthetic samples per epoch, if known; only ``labels='prior'`` depends on it.
        replacement: use a dataset's samples again if an epoch asks for more than it holds.
    """

    seed: int = 0
    labels: LabelPolicy | None = None
    prior: np.ndarray | None = None
    real_counts: np.ndarray | None = None
    total: int | None = None
    replacement: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, 'seed', as_seed(self.seed))


class Pool:
    """Synthetic samples of any source.

    :meth:`at` returns numbered samples of an epoch: sample (seed, epoch, number) is the same however numbers are
    batched. :meth:`random` returns independent draws, :meth:`epoch` the samples of one epoch.

    Attributes:
        source: source of the samples.
        draw: how they are drawn; policies use its ``real_counts``.
        spec: spec of the samples; None if the source has none.
        name: name of one of several sources, else None.
        class_names: class names of a dataset without a spec, if it has any.
        provenances: provenances of the samples.
    """

    source: Source
    name: str | None = None
    class_names: tuple[str, ...] | None = None

    def __init__(self, draw: Draw, spec: object) -> None:
        self.draw, self.spec = draw, spec if isinstance(spec, SampleSpec) else None
        frequencies = Traits.of(self.source).frequencies
        self.real_counts = frequencies if draw.real_counts is None else draw.real_counts
        self.provenances = provenances_of(self.source)

    def __repr__(self) -> str:
        held = f'{self.kind} samples, drawn live' if self.held < 0 else f'{self.held} {self.kind} samples'
        return f'<{type(self.source).__name__}: {held}>'

    @property
    def held(self) -> int:
        """Number of samples in a dataset; -1 for a generator, which never ends."""
        return -1

    @property
    def enough(self) -> int:
        """Number of samples with which the label policy can be met, each used at most once; -1 for a generator."""
        return -1

    @property
    def kind(self) -> Kind:
        """Kind of the samples, by the spec or, without one, by the layout of a sample.

        Raises:
            TypeError: if a sample without a spec has no layout of the sample contract.
        """
        if self.spec is not None:
            return self.spec.kind
        sample = {key: value[0] for key, value in self._one.items()}
        if (kind := kind_of(sample)) is not None:
            return kind
        found = {key: tuple(value.shape) for key, value in sample.items()}
        raise TypeError(
            f'the source has no spec, and its samples {found} are in no layout of the sample contract; expected for '
            'example image (C, H, W) with mask (H, W), or image (C, H, W) with label ()'
        )

    @property
    def num_soft_classes(self) -> int | None:
        """K if samples have ``label_prob``, else None."""
        soft = self._one.get('label_prob')
        return None if soft is None else soft.shape[1]

    def example(self) -> dict[str, Tensor]:
        """A batch of one sample, which the caller may change."""
        return {key: value.clone() for key, value in self._one.items()}

    @cached_property
    def _one(self) -> dict[str, Tensor]:
        """The same batch of one sample, not to be changed."""
        return self._finite(self._first(1))

    def look(self, n: int) -> dict[str, Tensor]:
        """A few samples if they are cheap (the first of a dataset, or live spectra), else one.

        Raises:
            ValueError: if one holds NaN or infinite values.
        """
        return self._finite(self._first(n)) if self.held >= 0 or self.kind == 'spectrum' else self._one

    def _finite(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        image = batch.get('image')
        if image is not None and (bad := int((~image.isfinite().flatten(1).all(dim=1)).sum())):
            raise ValueError(
                f'{bad} of {len(image)} samples of the source {type(self.source).__name__} hold NaN or infinite '
                'values, which would end a training in NaN; mend the source, or leave such samples out'
            )
        return batch

    def mixture(self) -> np.ndarray:
        """(K,) class shares demanded by the policy."""
        if self.spec is None:
            raise ValueError(
                f'labels={self.draw.labels!r} needs a source with a spec, which names the classes; found '
                f'{type(self.source).__name__} without one'
            )
        policy, total = self.draw.labels or 'real', self.draw.total or _ENDLESS
        left_out = Traits.of(self.source).left_out
        counts = synthetic_counts(policy, total, self.spec.classes, self.real_counts, self.draw.prior, left_out)
        return counts / total

    def at(self, numbers: np.ndarray | Sequence[int], epoch: int = 0) -> dict[str, Tensor]:
        """Samples with these numbers (from 0) of an epoch, stacked, on the device of the source.

        Raises:
            ValueError: if an epoch asks for more than a dataset holds, without ``replacement``.
        """
        wanted = np.asarray(numbers, dtype=np.int64)
        if wanted.size == 0:
            return {key: value[:0] for key, value in self._one.items()}
        return self._at(wanted, epoch)

    def to(self, device: torch.device) -> None:
        """Move a generator. Datasets stay where they are."""

    def require_enough(self, n: int) -> None:
        """Check that an epoch may ask for ``n`` samples; a generator never ends.

        Raises:
            ValueError: if a dataset holds fewer and ``replacement`` is off.
        """

    def follow(self, epoch: int) -> None:
        """Pass the epoch on to sources that change with it."""

    def epoch(self, count: int, epoch: int) -> tuple[Dataset[Sample], Rows]:
        """A dataset, and its rows, the first ``count`` of which make up one epoch, with classes by the policy.

        Raises:
            ValueError: if it holds fewer and ``replacement`` is off.
        """
        raise NotImplementedError

    def random(self, n: int, seed: int) -> dict[str, Tensor]:
        """``n`` independent draws, which depend on the source, ``n`` and ``seed`` only."""
        raise NotImplementedError

    def _at(self, wanted: np.ndarray, epoch: int) -> dict[str, Tensor]:
        raise NotImplementedError

    def _first(self, n: int) -> dict[str, Tensor]:
        raise NotImplementedError

    def _rng(self, *place: int) -> np.random.Generator:
        return np.random.default_rng(stream_seed(self.draw.seed, *place))


class LivePool(Pool):
    """Samples drawn live from a generator.

    Raises:
        ValueError: if a label policy lacks an argument, or the generator takes no labels.
    """

    source: SampleSource

    def __init__(self, generator: SampleSource, draw: Draw) -> None:
        self.source = generator
        super().__init__(draw, generator.spec if hasattr(generator, 'spec') else None)
        self.chunk = default_chunk(self.spec) if self.spec else 1024
        self._chunks: Kept[tuple[int, int], dict[str, Tensor]] = Kept(2)  # consecutive batches share them
        # A generator of masks with class frequencies also takes labels: classes that patches should contain.
        self._labelled = Traits.of(generator).class_prior is not None or (
            self.spec is not None and self.spec.target_key == 'label'
        )
        if self._labelled:
            self.mixture()  # a policy without a required argument fails now, not in a training loop
        elif draw.labels is not None:
            raise ValueError(
                f'labels={draw.labels!r}: the class mixture of masks that are drawn live is their own; sample a bank '
                'and mix that, and patches will be chosen to the mixture'
            )

    def to(self, device: torch.device) -> None:
        """Move the generator."""
        if isinstance(self.source, nn.Module) and getattr(self.source, 'device', Traits.device) != device:
            self.source.to(device)
            self._chunks.clear()

    def epoch(self, count: int, epoch: int) -> tuple[Dataset[Sample], Rows]:
        """The generator's samples of an epoch, all of them."""
        draw = self.draw
        dataset = SyntheticDataset(self.source, count, draw.seed, draw.labels or 'real', draw.real_counts, draw.prior)
        dataset.set_epoch(epoch)
        return dataset, InOrder()

    def random(self, n: int, seed: int) -> dict[str, Tensor]:
        """``n`` independent draws."""
        rng, labels = self._rng(seed, DRAWS), None
        if self._labelled:
            mixture = self.mixture()
            labels = torch.from_numpy(rng.choice(len(mixture), size=n, p=mixture))
        return self._sample(n, labels, int(rng.integers(2**62)))

    def _at(self, wanted: np.ndarray, epoch: int) -> dict[str, Tensor]:
        return gather_chunks(wanted, self.chunk, self._chunks, epoch, self._draw_chunk)

    def _draw_chunk(self, epoch: int, number: int) -> dict[str, Tensor]:
        labels = None
        if self._labelled:
            rng, mixture = self._rng(epoch, number, LABELS), self.mixture()
            # Systematic sampling: each class is within one of its share of the chunk, and exact in the mean.
            points = (np.arange(self.chunk) + rng.random()) / self.chunk
            classes = np.searchsorted(np.cumsum(mixture), points, side='right')
            labels = torch.from_numpy(rng.permutation(classes.clip(max=len(mixture) - 1)))
        return self._sample(self.chunk, labels, stream_seed(self.draw.seed, epoch, number, DRAWS))

    def _first(self, n: int) -> dict[str, Tensor]:
        return self._sample(n, None, 0)

    def _sample(self, n: int, labels: Tensor | None, seed: int) -> dict[str, Tensor]:
        return draw_samples(self.source, n, labels, seed)
