"""The default ratio of a source, from its measured gain on scenes that its settings were not chosen on.

A search on folds of one training area hardly ever finds a gain, and costs dozens of trainings. The gain on other
scenes is evidence too: ``evidence.json`` next to this file lists it, with the origin of each entry.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from .ratio import Constant, Mode, Schedule, SyntheticFirst
from .records import as_record, read_json
from .samples import Kind
from .settings import POSITIVE, Range, check_value


@dataclass(frozen=True)
class Evidence:
    """The measured gain from mixing in a source at a ratio.

    Args:
        generator: registered name.
        kind: kind of its samples.
        settings: settings of the generator that differ from the defaults.
        labels_per_class: labelled samples per class, validation included; None if all labels of a scene were used, or
            if images were counted.
        ratio: synthetic samples per real one.
        synthetic_first: share of the training steps on synthetic samples only, before real ones only; 0 mixes
            throughout.
        labels: label policy of the synthetic samples, see :data:`~hsiaug.datasets.LabelPolicy`.
        metric: ``'oa'``, ``'miou'`` or, for changes, ``'f1'``.
        gain: mean paired difference to real only over scenes, in points.
        interval: its 95 % interval over seeds, valid for these scenes.
        seeds: number of paired seeds per scene.
        scenes: mean difference and its 95 % interval for each scene.
        origin: file of results in the repository.
        images: labelled images per scene, if these were counted.
        network: the trained network, if several were measured.
    """

    generator: str
    kind: Kind
    settings: Mapping[str, Any]
    labels_per_class: float | None
    ratio: float
    synthetic_first: float
    labels: str
    metric: str
    gain: float
    interval: tuple[float, float]
    seeds: int
    scenes: Mapping[str, tuple[float, float, float]]
    origin: str
    images: int | None = None
    network: str = ''

    @property
    def harmed(self) -> tuple[str, ...]:
        """Scenes with a significant loss."""
        return tuple(name for name, (_, _, high) in self.scenes.items() if high < 0)

    def __str__(self) -> str:
        """The evidence in a sentence."""
        budget = 'all labels' if self.labels_per_class is None else f'{self.labels_per_class:g} labels per class'
        budget = budget if self.images is None else f'{self.images} labelled images'
        way = f'synthetic samples for the first {self.synthetic_first:.0%} of the steps' if self.synthetic_first else ''
        harmed = f'; significant loss on {", ".join(self.harmed)}' if self.harmed else ''
        metric = {'oa': 'OA', 'miou': 'mIoU', 'f1': 'F1'}.get(self.metric, self.metric)
        return (
            f'{self.generator} at ratio {self.ratio:g}{", " + way if way else ""}: {self.gain:+.1f} points of '
            f'{metric} [{self.interval[0]:+.1f}, {self.interval[1]:+.1f}] with {budget} ({len(self.scenes)} '
            f'scenes, {self.seeds} seeds{f", {self.network}" if self.network else ""}){harmed}; see {self.origin}'
        )


@dataclass(frozen=True)
class Recommendation:
    """A recommended ratio, with the reason.

    Args:
        ratio: synthetic samples per real one; 0 if no gain is known.
        synthetic_first: see :class:`Evidence`.
        labels: label policy of the synthetic samples.
        evidence: the decisive evidence.
        note: the reason, in words.
    """

    ratio: float
    synthetic_first: float
    labels: str
    evidence: Evidence
    note: str

    @property
    def mode(self) -> Mode:
        """The mode of mixing to use with :meth:`schedule`."""
        return 'replace' if self.synthetic_first else 'append'

    def schedule(self, epochs: int) -> Schedule:
        """The ratio in each epoch of a training: synthetic samples first, or the same ratio throughout.

        Raises:
            ValueError: if there are too few epochs for both parts.
        """
        check_value('Recommendation.schedule', 'epochs', epochs, int, Range(2 if self.synthetic_first else 1))
        if not self.synthetic_first:
            return Constant(self.ratio)
        return SyntheticFirst(min(max(round(self.synthetic_first * epochs), 1), epochs - 1))

    def __str__(self) -> str:
        """The ratio and why."""
        return f'ratio {self.ratio:g}: {self.note}'


@cache
def known_evidence() -> tuple[Evidence, ...]:
    """All that is known, as ``evidence.json`` has it."""
    file = Path(__file__).with_name('evidence.json')
    entries = read_json(file, 'the evidence of hsiaug')['evidence']
    return tuple(as_record(Evidence, entry, f'{file}, entry {number}') for number, entry in enumerate(entries))


def recommended_ratio(
    source: Any, labels_per_class: float | None = None, kind: Kind | None = None, mixed: bool = False
) -> Recommendation:
    """The recommended ratio for a source, from its measured gains on other scenes.

    Among the evidence with the most similar number of labels, it takes the ratio and way of mixing with the most
    reliable gain: the one whose interval has the highest lower end, on the network where that is lowest, since a gain
    with a weak network is no gain once the network is tuned. The ratio is 0 if this way lost with some network (mean
    below zero) or gained with none (no interval above zero).

    Args:
        source: a generator, anything with the ``provenance`` of one, such as a bank, or a registered name.
        labels_per_class: number of labelled samples per class, validation included; None for a fully labelled scene.
        kind: kind of the samples; by default, that of the source.
        mixed: ignore evidence for synthetic samples first, if only mixing throughout is possible.

    Raises:
        ValueError: if nothing is known about the source: pass a ratio, or search for one on folds.
    """
    name, own_kind, settings = _described(source)
    if labels_per_class is not None:
        labels_per_class = check_value('recommended_ratio', 'labels_per_class', labels_per_class, float, POSITIVE)
    kind = kind or own_kind
    if kind in ('segmentation', 'change'):
        labels_per_class = None  # of these, images were counted
    about = [e for e in known_evidence() if e.generator == name and kind in (None, e.kind)]
    about = [e for e in about if not (mixed and e.synthetic_first)]
    if not about:
        known = sorted({f'{e.generator} ({e.kind})' for e in known_evidence()})
        raise ValueError(
            f'recommended_ratio: nothing was measured for {name!r}{f" of kind {kind!r}" if kind else ""}, only for '
            f'{known}; give a ratio, or search for one on folds with hsiaug.quality.RatioSearch'
        )
    distance = min(_distance(e.labels_per_class, labels_per_class) for e in about)
    nearest = [e for e in about if _distance(e.labels_per_class, labels_per_class) == distance]
    ways: dict[tuple[float, float, str], list[Evidence]] = defaultdict(list)
    for e in nearest:
        ways[e.ratio, e.synthetic_first, e.labels].append(e)
    least = [min(alike, key=_sureness) for alike in ways.values()]  # of each way, over networks
    best = max(least, key=_sureness)
    alike = ways[best.ratio, best.synthetic_first, best.labels]
    helps = best.gain >= 0 and max(e.interval[0] for e in alike) > 0
    note = str(best) if helps else f'no gain was found, so nothing is mixed in: {best}'
    for same in alike:
        if same.network != best.network:
            note += f'; {same.gain:+.1f} [{same.interval[0]:+.1f}, {same.interval[1]:+.1f}] with {same.network}'
    if settings is not None and (other := {k: v for k, v in best.settings.items() if settings.get(k, v) != v}):
        note += f'; measured with {other}'
    return Recommendation(best.ratio if helps else 0.0, best.synthetic_first if helps else 0.0, best.labels, best, note)


def _sureness(evidence: Evidence) -> tuple[float, float]:
    return evidence.interval[0], evidence.gain


def _described(source: Any) -> tuple[str, Kind | None, Mapping[str, Any] | None]:
    """Registered name, kind and settings of a source, as far as it tells."""
    if isinstance(source, str):
        return source, None, None
    provenance, spec = getattr(source, 'provenance', None), getattr(source, 'spec', None)
    training = {} if provenance is None else provenance.training
    name = training.get('generator', getattr(source, 'type_name', None))
    if not isinstance(name, str):
        raise ValueError(
            f'recommended_ratio: {type(source).__name__} does not say which generator it is from; give a ratio'
        )
    return name, None if spec is None else spec.kind, training


def _distance(measured: float | None, wanted: float | None) -> float:
    """How far two label budgets are apart, as a factor's logarithm; a scene with all labels is taken to have 300."""
    return abs(math.log(measured or 300) - math.log(wanted or 300))
