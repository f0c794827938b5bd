"""The base class of gates, which are fitted to real samples, score synthetic ones and decide which to keep."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

import numpy as np
import torch
from scipy.stats import t as student
from torch import Tensor

from ..datasets.contract.batches import fetch
from ..samples import Provenance, SampleSpec
from ..settings import BETWEEN, check_value
from ..systems import TrainingData
from ..systems.training_data import require_samples
from .regions import independent_samples, require_regions

Batch = Mapping[str, Tensor]
G = TypeVar('G', bound='Gate')
_PIXELS_AT_ONCE = 1 << 16


class Gate(ABC):
    """Base class of all gates.

    A gate learns from the training part of a split what real samples are like. Its threshold comes from held-out real
    samples: training samples, each scored without its own region, and validation samples. A new real sample is then
    rejected with a probability of about ``false_alarm``, see :func:`held_out_limit`.

    Args:
        false_alarm: share of new real samples that the gate may reject. It can be changed after fitting.

    Attributes:
        held_out: (M,) scores of the held-out real samples.
        independent: number of independent ones among them; overlapping windows are not independent.
        provenance: provenance of the data the gate has seen; None if unknown.

    Raises:
        ValueError: if ``false_alarm`` is not between 0 and 1.
    """

    name: ClassVar[str]

    def __init__(self, false_alarm: float = 0.05) -> None:
        self.false_alarm = false_alarm
        self.spec: SampleSpec | None = None
        self.held_out = torch.empty(0)
        self.independent = 0
        self.provenance: Provenance | None = None

    @property
    def false_alarm(self) -> float:
        """Share of new real samples that the gate may reject."""
        return self._false_alarm

    @false_alarm.setter
    def false_alarm(self, value: float) -> None:
        self._false_alarm = float(check_value(type(self).__name__, 'false_alarm', value, float, BETWEEN))

    def fit(self: G, data: TrainingData, regions: Tensor | None = None, seed: int = 0) -> G:
        """Learn what real samples are like.

        Args:
            data: the training part of a split.
            regions: int64 in the shape of ``data.y``, the region of each label; see
                :func:`~hsiaug.quality.regions.label_regions`. Without regions, no two samples may share a pixel;
                otherwise real samples are scored by models that have seen them, and thresholds are too strict.
            seed: seed of all randomness in the fit.

        Returns:
            the gate itself.

        Raises:
            TypeError: for something other than training data.
            ValueError: if the gate cannot handle the samples, or they are not finite or too few.
        """
        name = type(self).__name__
        require_training_data(name, data)
        finite = int(data.x.isfinite().flatten(1).all(dim=1).sum()) if len(data.x) else 0
        if finite == 0 or finite < len(data.x):
            raise ValueError(
                f'{name}: {finite} of {len(data.x)} training samples are finite; at least one and all of them must be: '
                'fill the others, or leave them out'
            )
        require_samples(name, data)
        regions = require_regions(regions, data.y, name)
        self.spec, self.provenance = data.spec, data.provenance
        own = self._fit(data, regions, seed)
        target = data.spec.target_key
        validated = self.score({'image': data.val_x, target: data.val_y}) if len(data.val_x) else own[:0]
        scores = torch.cat([own, validated])
        judged = own.isfinite()
        independent = independent_samples(regions[judged]) + int(validated.isfinite().sum())
        if independent < 2:
            raise ValueError(
                f'{name}: {independent} real sample can be judged by others that share no region with it, at least 2 '
                'are needed for a threshold; give smaller windows, smaller blocks or more training samples'
            )
        self.held_out, self.independent = scores[scores.isfinite()], independent
        return self

    @abstractmethod
    def _fit(self, data: TrainingData, regions: Tensor, seed: int) -> Tensor:
        """Learn, and return (N,) scores of training samples by models fitted without their regions; NaN for none."""

    @abstractmethod
    def score(self, batch: Batch) -> Tensor:
        """(n,) float32 of samples in the sample contract, on the CPU; higher is worse, NaN cannot be judged."""

    @property
    def threshold(self) -> float:
        """The highest accepted score."""
        if self.independent == 0:
            raise RuntimeError(f'{type(self).__name__} is not fitted; call fit with the training part of a split')
        return held_out_limit(self.held_out, self.independent, self.false_alarm)

    def keep(self, batch: Batch) -> Tensor:
        """(n,) bool: which samples pass. Samples that cannot be judged because of NaN values do not.

        Raises:
            RuntimeError: if the gate is not fitted.
        """
        limit = self.threshold
        return self._scores(batch) <= limit

    def _scores(self, batch: Batch) -> Tensor:
        """(n,) scores of samples of any precision; n may be 0."""
        tensors = {key: value for key, value in batch.items() if isinstance(value, Tensor)}
        kinds = {key: torch.float32 if value.is_floating_point() else torch.int64 for key, value in tensors.items()}
        given = {key: value.to(kinds[key]) for key, value in tensors.items()}
        return self.score(given) if len(given['image']) else torch.empty(0)

    def clean(self, batch: Batch) -> dict[str, Tensor]:
        """The batch, with the repairs that the gate makes in accepted samples; most gates make none."""
        return dict(batch)

    def settings(self) -> dict[str, Any]:
        """Settings that the decisions depend on, JSON-ready."""
        return {
            'gate': self.name,
            'false_alarm': self.false_alarm,
            'threshold': self.threshold,
            'held_out': len(self.held_out),
            'independent': self.independent,
        }


def require_training_data(who: str, data: Any) -> None:
    """Refuse what is no training data, such as a dataset, or is not held in memory."""
    if not isinstance(data, TrainingData):
        raise TypeError(
            f'{who}: TrainingData expected, found {type(data).__name__}; training_data(scene, split) gives it'
        )
    if data.source is not None:
        raise ValueError(f'{who}: samples must be held in memory, found some that are read; take fewer of them')


def rows_at_once(spec: SampleSpec) -> int:
    """Number of samples to process at a time."""
    height, width = spec.size or (1, 1)
    return max(1, _PIXELS_AT_ONCE // (height * width))


def batches(dataset: Any, size: int) -> Iterator[Batch]:
    """All samples of a map-style dataset."""
    for start in range(0, len(dataset), size):
        yield fetch(dataset, np.arange(start, min(start + size, len(dataset))))


def held_out_limit(scores: Tensor, independent: int, false_alarm: float) -> float:
    """Limit that a new score of the same kind exceeds with at most a given probability.

    With enough independent scores it is the ⌈(n + 1)(1 − α)⌉-th smallest, exact for exchangeable scores whatever their
    distribution (Vovk et al. 2005). With fewer than 1/α − 1 no quantile can promise that; the one-sided prediction
    limit of normal scores, mean + t·s·√(1 + 1/m) with m independent ones, then goes beyond the largest seen if need be.

    Args:
        scores: (n,) of held-out real samples, finite.
        independent: m ≤ n, at least 2.
        false_alarm: α.
    """
    values = np.sort(scores.double().numpy())
    rank = math.ceil((len(values) + 1) * (1 - false_alarm) - 1e-9)
    quantile = float(values[min(rank, len(values)) - 1])
    if independent >= 1 / false_alarm - 1 - 1e-9:
        return quantile
    # Dependent scores vary less than independent ones.
    std = values.std() * math.sqrt(independent / (independent - 1))
    factor = float(student.ppf(1 - false_alarm, independent - 1)) * math.sqrt(1 + 1 / independent)
    return max(quantile, float(values.mean()) + factor * float(std))


@dataclass(frozen=True)
class Decision:
    """Scores and rejections of gates for a batch.

    Args:
        scores: (n,) of each gate.
        rejected: (n,) bool of each gate.
    """

    scores: Mapping[str, Tensor]
    rejected: Mapping[str, Tensor]

    @property
    def keep(self) -> Tensor:
        """(n,) bool: samples that no gate rejects."""
        return ~torch.stack(list(self.rejected.values())).any(dim=0)

    def reasons(self) -> list[list[str]]:
        """The gates that reject each sample."""
        rows = zip(*(rejected.tolist() for rejected in self.rejected.values()), strict=True)
        return [[name for name, says in zip(self.rejected, row, strict=True) if says] for row in rows]


class GateReport:
    """Counts of rejected samples by gate, over any number of batches.

    Args:
        names: of the gates.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.samples, self.kept = 0, 0
        self.rejected, self.alone = dict.fromkeys(names, 0), dict.fromkeys(names, 0)

    def add(self, decision: Decision) -> None:
        """Count a batch."""
        votes = torch.stack(list(decision.rejected.values()))
        single = votes.sum(dim=0) == 1
        self.samples += votes.shape[1]
        self.kept += int(decision.keep.sum())
        for name, vote in zip(decision.rejected, votes, strict=True):
            self.rejected[name] += int(vote.sum())
            self.alone[name] += int((vote & single).sum())

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready: samples seen and kept, those that each gate rejects, and those that only it rejects."""
        return {
            'samples': self.samples,
            'kept': self.kept,
            'rejected': dict(self.rejected),
            'rejected_by_it_alone': dict(self.alone),
        }


class Gates:
    """Several gates as one: a sample passes if it passes all of them. At most, their false alarm rates add up.

    Args:
        gates: a gate, or several with different names, applied in this order.

    Raises:
        ValueError: if there is none, or two have the same name.
    """

    def __init__(self, gates: Gate | Sequence[Gate]) -> None:
        self.gates = (gates,) if isinstance(gates, Gate) else tuple(gates or ())
        if odd := [type(gate).__name__ for gate in self.gates if not isinstance(gate, Gate)]:
            raise TypeError(f'Gates: gates are expected, found {odd}; fit_gates gives them, and why others are missing')
        names = [gate.name for gate in self.gates]
        if not names or len(set(names)) < len(names):
            raise ValueError(
                f'Gates: at least one gate, and no two of one name, are needed, found {names}; where fit_gates gives '
                'none, it says why'
            )

    def __iter__(self) -> Iterator[Gate]:
        """The gates in order."""
        return iter(self.gates)

    def fit(self, data: TrainingData, regions: Tensor | None = None, seed: int = 0) -> Gates:
        """Fit each gate; arguments as for :meth:`Gate.fit`."""
        for gate in self.gates:
            gate.fit(data, regions, seed)
        return self

    def judge(self, batch: Batch) -> Decision:
        """Scores and rejections of each gate.

        Raises:
            ValueError: if the images are not those that the gates were fitted to.
        """
        limits = {gate.name: gate.threshold for gate in self.gates}
        spec, image = self.gates[0].spec, batch.get('image')
        if spec is not None and (not isinstance(image, Tensor) or image.shape[1:] != spec.image_shape):
            found = tuple(image.shape) if isinstance(image, Tensor) else type(image).__name__
            raise ValueError(f'Gates: images {("n", *spec.image_shape)} as they were fitted to expected, found {found}')
        scores = {gate.name: gate._scores(batch) for gate in self.gates}
        return Decision(scores, {name: ~(scores[name] <= limit) for name, limit in limits.items()})

    def score(self, batch: Batch) -> Tensor:
        """(n,) largest excess over a gate's threshold in standard deviations of held-out real scores; kept up to 0."""
        decision = self.judge(batch)
        excess = [
            (decision.scores[gate.name] - gate.threshold) / gate.held_out.std(correction=0).clamp_min(1e-12)
            for gate in self.gates
        ]
        return torch.stack(excess).amax(dim=0)

    def keep(self, batch: Batch) -> Tensor:
        """(n,) bool: which samples pass all gates."""
        return self.judge(batch).keep

    def clean(self, batch: Batch) -> dict[str, Tensor]:
        """The batch with the repairs of all gates."""
        cleaned = dict(batch)
        for gate in self.gates:
            cleaned = gate.clean(cleaned)
        return cleaned

    def review(self, dataset: Any, batch_size: int = 256) -> tuple[Tensor, dict[str, Any]]:
        """(N,) bool which samples of a map-style dataset, such as a bank, pass, and the JSON-ready report."""
        report, keep = GateReport([gate.name for gate in self.gates]), []
        for batch in batches(dataset, batch_size):
            decision = self.judge(batch)
            report.add(decision)
            keep.append(decision.keep)
        return torch.cat(keep) if keep else torch.zeros(0, dtype=torch.bool), report.to_dict()

    def settings(self) -> list[dict[str, Any]]:
        """Settings of each gate, JSON-ready."""
        return [gate.settings() for gate in self.gates]
