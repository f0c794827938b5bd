"""Sources behind gates: samples that do not pass are redrawn or left out."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset, Subset

from .. import __version__
from ..datasets.contract.batches import ReadAtOnce, fetch, row_numbers
from ..datasets.contract.wrapped import epoch_followers, labels_of
from ..samples import Provenance, Sample, SampleSource, SampleSpec, Traits, joined_provenance, require_compatible
from ..settings import BETWEEN, NOT_NEGATIVE, check_value
from ..streams import drawn_seed, stream, stream_seed
from ..systems import Generator, TrainingData
from .agreement import AgreementGate
from .gate import Gate, GateReport, Gates
from .novelty import NoveltyGate
from .physical import RangeGate, SmoothnessGate, SubspaceGate

AnyGates = Gates | Gate | Sequence[Gate]
_AT_A_TIME = 8  # draws at a time per accepted sample
_LEAST = 1 / 8  # share of a class's samples that must pass for gate_generator to draw it, in as many tries:
_TRIES = 200


class GateError(ValueError):
    """Hardly any sample passes the gates."""


class Gated(nn.Module):
    """A source of synthetic samples that pass gates; rejected samples are redrawn with the same label.

    Samples depend only on (n, labels, seed). Noisy pixels of masks are ignored, see
    :meth:`~hsiaug.quality.agreement.AgreementGate.clean`.

    Args:
        generator: a generator, or anything with ``sample`` and a spec.
        gates: gates fitted to the training part that the generator was trained on.
        tries: largest number of draws per accepted sample; if none passes, an error names the gate that rejects them.
        leave_out: names of classes that are never drawn, such as those of which hardly any sample passes, see
            :meth:`passing`. When mixing, their share goes to the other classes.

    Attributes:
        provenance: joint provenance of the generator and the gates.
        report: samples drawn in this process so far, and why they were rejected. Not all accepted samples are used,
            since several are drawn at a time of classes that are often rejected.

    Raises:
        ValueError: if ``tries`` is below 1, generator and gates have seen different scenes, or ``leave_out`` names
            unknown classes or all classes.
        SpecMismatchError: if the generator's samples are not those the gates were fitted to.
    """

    def __init__(
        self, generator: SampleSource, gates: AnyGates, tries: int = 50, leave_out: Collection[str] = ()
    ) -> None:
        super().__init__()
        check_value('Gated', 'tries', tries, int)
        self.gates = gates if isinstance(gates, Gates) else Gates(gates)
        self.generator, self.tries = generator, tries
        leave_out = {leave_out} if isinstance(leave_out, str) else set(leave_out)
        self.spec = require_fitted(self.gates, generator.spec)
        self.left_out = tuple(name for name in self.spec.classes if name in leave_out)
        if len(self.left_out) < len(leave_out) or (leave_out and len(self.left_out) == self.spec.num_classes):
            raise ValueError(
                f'Gated: leave_out names some of the classes {list(self.spec.classes)}, found '
                f'{sorted(leave_out, key=str)}'
            )
        self.provenance = joint_provenance(generator.provenance, self.gates)
        self.soft_labels = Traits.of(generator).soft_labels
        self.report = GateReport([gate.name for gate in self.gates])

    @property
    def settings(self) -> dict[str, Any]:
        """JSON-ready: what distinguishes these samples from others of the same generator."""
        return {
            'generator': Traits.of(self.generator).settings,
            'gates': self.gates.settings(),
            'tries': self.tries,
            'leave_out': list(self.left_out),
        }

    @property
    def class_prior(self) -> Tensor | None:
        """(K,) training frequencies of the generator without the classes left out; None if unknown."""
        prior = Traits.of(self.generator).class_prior
        if prior is None or not self.left_out:
            return prior
        kept = prior * torch.tensor([name not in self.left_out for name in self.spec.classes], device=prior.device)
        return kept / kept.sum()

    @property
    def device(self) -> torch.device:
        """Device on which samples are drawn. Gates judge on the CPU."""
        return Traits.of(self.generator).device

    def sample(self, n: int, labels: Tensor | None = None, seed: int | None = None) -> dict[str, Tensor]:
        """Draw a batch of samples that pass all gates; arguments as for a generator.

        Raises:
            GateError: if fewer than ``n`` pass after all tries, naming the gate that rejects most.
            ValueError: for labels of classes that are left out, or not one for each sample.
        """
        n, seed = check_value('Gated', 'n', n, int, NOT_NEGATIVE), drawn_seed() if seed is None else seed
        if labels is not None and (labels := torch.as_tensor(labels)).shape != (n,):
            raise ValueError(f'Gated: labels must be ({n},) for n={n}, found {tuple(labels.shape)}')
        if n == 0:
            return self.generator.sample(0)
        if self.left_out:
            labels = self._allowed(n, labels, seed)
        missing, report = torch.arange(n), GateReport([gate.name for gate in self.gates])
        batch: dict[str, Tensor] = {}
        tried = 0
        while tried < self.tries:
            # Draw more at a time of what is hard to get: a round costs far more than the samples that it may waste.
            each = min(max(tried, 1), _AT_A_TIME, self.tries - tried)
            places = missing.repeat_interleave(each)
            drawn = self.generator.sample(
                len(places), None if labels is None else labels[places], stream_seed(seed, tried)
            )
            if not batch:
                batch = {key: torch.empty_like(value) for key, value in drawn.items()}
                if labels is None and 'label' in drawn:  # redrawn with the same class: gates change no frequency
                    labels = drawn['label']
            decision = self.gates.judge(drawn)
            report.add(decision)
            self.report.add(decision)
            passed = decision.keep.view(-1, each)
            found, first = passed.any(dim=1), passed.to(torch.uint8).argmax(dim=1)  # argmax: the first of equals
            rows = (torch.arange(len(missing)) * each + first)[found]
            for key, value in drawn.items():
                batch[key][missing[found].to(value.device)] = value[rows.to(value.device)]
            missing, tried = missing[~found], tried + each
            if len(missing) == 0:
                return self.gates.clean(batch)
        raise GateError(self._complaint(n, labels, missing, report))

    def _allowed(self, n: int, labels: Tensor | None, seed: int) -> Tensor:
        if labels is None:
            prior = self.class_prior
            if prior is None:
                prior = torch.tensor([float(name not in self.left_out) for name in self.spec.classes])
            rng = stream(stream_seed(seed, self.tries))
            return torch.multinomial(prior.cpu(), n, replacement=True, generator=rng)
        asked = {self.spec.classes[k] for k in labels.unique().tolist()} & set(self.left_out)
        if asked:
            raise ValueError(f'Gated: labels ask for {sorted(asked)}, which are left out (leave_out)')
        return labels

    def passing(self, per_class: int = 32, seed: int = 0) -> dict[str, float]:
        """Share of each class's samples that pass, by class name; it may be close to 0 for some classes.

        For image-mask pairs, the class is the one that was requested for a patch. Classes left out are included. The
        samples are drawn only for this, and not counted in the report.

        Args:
            per_class: samples to draw of each class.
            seed: of the draw.
        """
        check_value('Gated', 'per_class', per_class, int)
        labels = torch.arange(self.spec.num_classes).repeat_interleave(per_class)
        keep = self.gates.keep(self.generator.sample(len(labels), labels, seed))
        shares = keep.double().view(self.spec.num_classes, per_class).mean(dim=1)
        return dict(zip(self.spec.classes, shares.tolist(), strict=True))

    def _complaint(self, n: int, labels: Tensor | None, missing: Tensor, report: GateReport) -> str:
        worst = max(report.rejected, key=lambda name: report.rejected[name])
        of = advice = ''
        if labels is not None:
            advice = '. Or leave out, by leave_out=[...], the classes whose samples hardly ever pass; see passing()'
            names = [self.spec.classes[k] for k in labels[missing].unique().tolist()]
            of = f' of {", ".join(names)}'
        return (
            f'Gated: {len(missing)} of {n} samples{of} did not pass in {self.tries} tries; gate {worst!r} rejected '
            f'{report.rejected[worst]} of {report.samples} drawn (all gates: {report.rejected}). Train the generator '
            f'longer, raise tries, or lower the false_alarm of {worst!r}, which lets more pass{advice}'
        )


class GatedDataset(ReadAtOnce):
    """The samples of a map-style dataset of synthetic samples, such as a bank, that pass gates.

    Args:
        dataset: in the sample contract, with a ``spec``. It is judged once, so it must not change with the epoch.
        gates: gates fitted to real training samples.

    Attributes:
        rows: (n,) int64 rows of the dataset that pass.
        report: rejected samples and reasons, JSON-ready.

    Raises:
        ValueError: if the dataset has no spec or changes with the epoch, or the gates have seen another scene.
        SpecMismatchError: if the samples are not those the gates were fitted to.
        GateError: if no sample passes.
    """

    def __init__(self, dataset: Dataset[Sample], gates: AnyGates) -> None:
        self.gates = gates if isinstance(gates, Gates) else Gates(gates)
        spec = getattr(dataset, 'spec', None)
        if not isinstance(spec, SampleSpec):
            raise ValueError(f'GatedDataset: {type(dataset).__name__} has no spec; give it a SampleSpec as spec')
        if epoch_followers(dataset):
            raise ValueError(
                f'GatedDataset: {type(dataset).__name__} draws other samples in each epoch, of which only one would be '
                'judged; gate the generator, Gated(generator, gates), or write a bank and gate that'
            )
        self.dataset, self.spec = dataset, require_fitted(self.gates, spec)
        self.provenance = joint_provenance(Traits.of(dataset).provenance, self.gates)
        keep, self.report = self.gates.review(dataset)
        self.rows = np.flatnonzero(keep.numpy())
        if not len(self.rows):
            raise GateError(f'GatedDataset: none of {len(keep)} samples passes the gates: {self.report["rejected"]}')

    def __len__(self) -> int:
        """Number of samples that pass."""
        return len(self.rows)

    def batch(self, indices: Sequence[int] | Tensor) -> dict[str, Any]:
        """Samples of several indices, stacked, noisy pixels of their masks ignored."""
        return self.gates.clean(fetch(self.dataset, self.rows[row_numbers(indices, len(self), 'GatedDataset')]))

    def labels(self) -> Tensor | None:
        """(n,) labels of the accepted samples if the dataset knows them, else None."""
        return labels_of(Subset(self.dataset, self.rows.tolist()))


def require_fitted(gates: Gates, spec: SampleSpec) -> SampleSpec:
    """The spec of a source, if all gates are fitted to its kind of samples."""
    for gate in gates:
        if gate.spec is None or gate.independent == 0:
            raise ValueError(f'gate {gate.name!r} is not fitted; call fit with the training part of a split')
        require_compatible(gate.spec, spec)
    return spec


def joint_provenance(source: Provenance | None, gates: Gates) -> Provenance | None:
    """Provenance of accepted samples: all that the source or a gate has seen counts as seen."""
    known = {'generator': source} | {f'gate {gate.name!r}': gate.provenance for gate in gates}
    parts = {who: one for who, one in known.items() if one is not None}
    if not parts:
        return None
    splits = {one.split for one in parts.values()}
    # If they differ, an error about a leak should say whose split it was.
    split = splits.pop() if len(splits) == 1 else ', '.join(f'{one.split} of {who}' for who, one in parts.items())
    base = source or Provenance(__version__, 0, {})
    training = {**base.training, 'gates': gates.settings()}
    return joined_provenance({'generator': base, **parts}, training=training, split=split)


# --- all gates --------------------------------------------------------------------------------------------------------

ALL_GATES: tuple[type[Gate], ...] = (RangeGate, SmoothnessGate, SubspaceGate, AgreementGate, NoveltyGate)


def fit_gates(
    data: TrainingData,
    regions: Tensor | None = None,
    false_alarm: float = 0.05,
    seed: int = 0,
    kinds: tuple[type[Gate], ...] = ALL_GATES,
) -> tuple[Gates | None, dict[str, str]]:
    """Fit all gates that can handle the samples.

    Args:
        data: training part of a split.
        regions: regions of its samples, see :func:`~hsiaug.quality.regions.label_regions`.
        false_alarm: false alarm rate of each gate.
        seed: seed of all randomness.
        kinds: gates to fit.

    Returns:
        the gates, None if none can be fitted; and the reasons why others cannot be fitted, by name.
    """
    check_value('fit_gates', 'false_alarm', false_alarm, float, BETWEEN)
    fitted: list[Gate] = []
    missing = {}
    for kind in kinds:
        try:
            fitted.append(kind(false_alarm).fit(data, regions, seed))
        except ValueError as error:  # too few bands or regions, or a kind of samples that it cannot judge
            missing[kind.name] = str(error)
    return Gates(fitted) if fitted else None, missing


def gate_generator(gates: Gates, generator: Generator, seed: int = 0) -> Gated:
    """A generator whose samples pass gates, without the classes whose samples hardly ever pass.

    Args:
        gates: fitted to the training part that the generator was trained on.
        generator: with class frequencies.
        seed: of the samples that classes are judged by.

    Raises:
        GateError: if more than half of what there is to draw would be left out.
    """
    shares = Gated(generator, gates, _TRIES).passing(seed=seed)
    out = [name for name, share in shares.items() if share < _LEAST]
    prior = dict(zip(generator.spec.classes, generator.class_prior.tolist(), strict=True))
    if sum(share for name, share in prior.items() if name not in out) < 0.5:
        raise GateError(
            f'of classes {out} fewer than {_LEAST:.0%} of the samples pass the gates; they are more than half of what '
            'there is to draw'
        )
    return Gated(generator, gates, _TRIES, out)


def all_gates(generator: Generator, data: TrainingData, regions: Tensor, threshold: float) -> Gated:
    """Puts all gates that suit in front of a generator, as trials of a ratio search ask for it.

    Args:
        generator: trained on ``data``.
        data: training part of a fold.
        regions: of its samples.
        threshold: false alarm rate of each gate.

    Raises:
        GateError: if hardly anything passes.
        ValueError: if no gate can be fitted.
    """
    gates, missing = fit_gates(data, regions, threshold)
    if gates is None:
        raise ValueError(f'no gate can be fitted: {missing}; search without gates')
    return gate_generator(gates, generator)
