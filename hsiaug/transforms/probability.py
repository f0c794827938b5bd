"""The ratio as a probability, for libraries that decide for each sample separately."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Real

from ..datasets.mixing.checks import ClassNumbers
from ..datasets.mixing.sources import LabelPolicies, NamedSources, Ratios, Sources
from ..datasets.pools.pool import Draw
from ..datasets.shared import InEpochs
from ..ratio import Constant, Schedule, as_schedule, ratio_in, synthetic_fraction
from ..samples import Kind


class MixProbability(InEpochs):
    """Probability that a sample is replaced: p as it is, or what a ratio means in the current epoch.

    Raises:
        ValueError: if not exactly one of them is given, or the one is out of range.
    """

    def __init__(self, owner: str, ratio: float | Schedule | None, p: float | None) -> None:
        super().__init__()
        if (ratio is None) == (p is None):
            raise ValueError(
                f'{owner}: give either ratio (synthetic samples per real one) or p (the fraction that is synthetic), '
                f'found ratio={ratio}, p={p}'
            )
        if p is not None and (isinstance(p, bool) or not isinstance(p, Real) or not 0 <= p <= 1):
            raise ValueError(f'{owner}: p must lie in [0, 1] (the fraction that is synthetic), found {p!r}')
        self._owner, self.p = owner, None if p is None else float(p)
        self.ratio = None if ratio is None else as_schedule(ratio)

    @property
    def value(self) -> float:
        """The probability in the current epoch."""
        if self.ratio is None:
            return float(self.p or 0)
        return synthetic_fraction(ratio_in(self.ratio, self.epoch, self._owner))

    def __repr__(self) -> str:
        if self.ratio is None:
            return f'p={self.p:g}'
        return f'ratio={self.ratio.ratio:g}' if isinstance(self.ratio, Constant) else f'ratio={self.ratio}'


class GatedByRatio:
    """What a library's transform needs for its gate ``p`` to follow a ratio; stands before the library's base class."""

    probability: MixProbability
    sources: Sources
    _numbers: ClassNumbers

    def _set_probability(self, ratio: float | Schedule | None, p: float | None) -> None:
        self.probability = MixProbability(type(self).__name__, ratio, p)

    def _replace_by(
        self,
        source: NamedSources,
        ratio: Ratios | None,
        p: float | None,
        labels: LabelPolicies,
        draw: Draw,
        different_scales: bool,
    ) -> Schedule | None:
        """Take the sources that samples are replaced from; their ratio together for the gate, None with ``p``.

        Raises:
            ValueError: for several sources with ``p``, which says nothing of each.
        """
        if ratio is None and isinstance(source, Mapping) and len(source) > 1:
            raise ValueError(f'{type(self).__name__}: for several sources, give the ratio of each, found p={p}')
        ratios = 1.0 if ratio is None else ratio
        sources = Sources(type(self).__name__, source, ratios, labels, draw, different_scales=different_scales)
        self.sources, self._numbers = sources, sources.class_numbers(sources.spec)
        return None if ratio is None else sources.schedule

    def _require_kinds(self, kinds: tuple[Kind, ...], who: str) -> None:
        if wrong := [pool.kind for pool in self.sources.pools if pool.kind not in kinds]:
            raise TypeError(
                f'{type(self).__name__}: the source holds samples of kind {wrong[0]!r}, and {who} can replace {kinds} '
                'only; use hsiaug.transforms.SyntheticMix on batches'
            )

    @property
    def p(self) -> float:
        """Probability that a sample is gated in the current epoch."""
        return self.probability.value

    @p.setter
    def p(self, value: float) -> None:
        # The library's constructor writes what was just read; anything else is the user's own constant.
        if value != self.probability.value:
            self._set_probability(None, value)

    def set_epoch(self, epoch: int) -> None:
        """Follow a schedule of the ratio to an epoch, in data-loader workers too."""
        self.probability.set_epoch(epoch)
