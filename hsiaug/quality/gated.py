"""Gates in front of a source: samples that do not pass are drawn again, or left out; and all gates that suit some."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from .. import __version__
from ..datasets.batches import ReadAtOnce, fetch
from ..datasets.wrapped import epoch_followers
from ..samples import Provenance, Sample, SampleSource, SampleSpec, Traits, joined_seen, require_compatible
from ..settings import BETWEEN, NOT_NEGATIVE, Range, check_value
from ..streams import drawn_seed, stream, stream_seed
from ..systems import Generator, TrainingData
from .agreement import AgreementGate
from .gate import Gate, GateReport, Gates
from .novelty import NoveltyGate
from .physical import RangeGate, SmoothnessGate, SubspaceGate

_AT_A_TIME = 8  # samples drawn together for one that passes


class GateError(ValueError):
    """Gates that let hardly anything pass."""


class Gated(nn.Module):
    """A source of synthetic samples that pass gates: what does not is drawn again, with the same label.

    Which samples come depends on (n, labels, seed) and nothing else. Where masks hold noisy pixels, those are ignored,
    see :meth:`~hsiaug.quality.agreement.AgreementGate.clean`.

    Args:
        generator: a generator, or anything with ``sample`` and a spec.
        gates: fitted to the training part that the generator was trained on.
        tries: how many are drawn at most for one that passes; after the last an error says which gate rejects them.
        leave_out: names of classes that are never drawn, such as those for which :meth:`passing` finds that hardly
            anything passes. Whatever mixes these samples gives their share to the other classes.

    Attributes:
        provenance: of both: what the generator or any gate has seen.
        report: what was drawn so far and why it was rejected, in this process; not all that passed is used, since
            several are drawn at a time of what is hard to get.

    Raises:
        ValueError: if ``tries`` is below 1, generator and gates have seen different scenes, or ``leave_out`` names
            unknown classes or all.
        SpecMismatchError: if the generator does not make what the gates were fitted to.
    """

    def __init__(
        self, generator: SampleSource, gates: Gates | Sequence[Gate], tries: int = 50, leave_out: Collection[str] = ()
    ) -> None:
        super().__init__()
        check_value('Gated', 'tries', tries, int)
        self.gates = gates if isinstance(gates, Gates) else Gates(gates)
        self.generator, self.tries = generator, tries
        self.spec = require_fitted(self.gates, generator.spec)
        self.left_out = tuple(name for name in self.spec.classes if name in leave_out)
        if len(self.left_out) < len(set(leave_out)) or (leave_out and len(self.left_out) == self.spec.num_classes):
            raise ValueError(
                f'Gated: leave_out names some of the classes {list(self.spec.classes)}, found {sorted(leave_out)}'
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
        """(K,) training frequencies of the generator without classes left out, None where it does not know them."""
        prior = Traits.of(self.generator).class_prior
        if prior is None or not self.left_out:
            return prior
        kept = prior * torch.tensor([name not in self.left_out for name in self.spec.classes], device=prior.device)
        return kept / kept.sum()

    @property
    def device(self) -> torch.device:
        """Where samples are drawn. Gates judge on the CPU."""
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
            # More at a time of what is hard to get: a round costs far more than the samples that it may waste.
            each = min(max(tried, 1), _AT_A_TIME, self.tries - tried)
            places = missing.repeat_interleave(each)
            drawn = self.generator.sample(
                len(places), None if labels is None else labels[places], stream_seed(seed, tried)
            )
            if not batch:
                batch = {key: torch.empty_like(value) for key, value in drawn.items()}
                if labels is None and 'label' in drawn:  # drawn again with the class they had: gates thin no class out
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
            raise ValueError(f'Gated: labels ask for {sorted(asked)}, which leave_out names')
        return labels

    def passing(self, per_class: int = 32, seed: int = 0) -> dict[str, float]:
        """Share of each class's samples that pass, by class name: gates may let next to nothing of one class through.

        Of image-mask pairs a class is one that a patch was asked to hold. Classes left out count too. The samples are
        drawn for this alone, and not counted in the report.

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
    """What passes the gates of a map-style dataset of synthetic samples, such as a bank.

    Args:
        dataset: in the sample contract, with a ``spec``. It is judged once, and so may not draw anew in each epoch.
        gates: fitted to real training samples.

    Attributes:
        rows: (n,) int64 rows of the dataset that pass.
        report: what was rejected and why, JSON-ready.

    Raises:
        ValueError: if the dataset has no spec or draws anew in each epoch, or it and the gates have seen different
            scenes.
        SpecMismatchError: if the dataset does not hold what the gates were fitted to.
        GateError: if no sample passes.
    """

    def __init__(self, dataset: Dataset[Sample], gates: Gates | Sequence[Gate]) -> None:
        self.gates = gates if isinstance(gates, Gates) else Gates(gates)
        spec = getattr(dataset, 'spec', None)
        if not isinstance(spec, SampleSpec):
            raise ValueError(f'GatedDataset: {type(dataset).__name__} has no spec that says what it holds')
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
        rows = self.rows[np.asarray(indices, dtype=np.int64)]
        return self.gates.clean(fetch(self.dataset, rows))

    def labels(self) -> Tensor | None:
        """(n,) labels of what passes where the dataset knows them, else None."""
        known: Callable[[], Tensor] | Tensor | None = getattr(self.dataset, 'labels', None)
        known = known() if callable(known) else known
        return known[torch.from_numpy(self.rows)] if isinstance(known, Tensor) else None


def require_fitted(gates: Gates, spec: SampleSpec) -> SampleSpec:
    """The spec of a source, if all gates are fitted to its kind of samples."""
    for gate in gates:
        if gate.spec is None or gate.independent == 0:
            raise ValueError(f'gate {gate.name!r} is not fitted; call fit with the training part of a split')
        require_compatible(gate.spec, spec)
    return spec


def joint_provenance(source: Provenance | None, gates: Gates) -> Provenance | None:
    """Provenance of what comes through gates: all that the source or a gate has seen counts as seen."""
    known = {'generator': source} | {f'gate {gate.name!r}': gate.provenance for gate in gates}
    parts = {who: one for who, one in known.items() if one is not None}
    if not parts:
        return None
    splits = {one.split for one in parts.values()}
    # Where they differ, an error about a leak should tell whose split it was.
    split = splits.pop() if len(splits) == 1 else ', '.join(f'{one.split} of {who}' for who, one in parts.items())
    base = source or Provenance(__version__, 0, {})
    return replace(base, training={**base.training, 'gates': gates.settings()}, split=split, **joined_seen(parts))


# --- all gates --------------------------------------------------------------------------------------------------------

ALL_GATES: tuple[type[Gate], ...] = (RangeGate, SmoothnessGate, SubspaceGate, AgreementGate, NoveltyGate)


def fit_gates(
    data: TrainingData,
    regions: Tensor | None = None,
    false_alarm: float = 0.05,
    seed: int = 0,
    kinds: tuple[type[Gate], ...] = ALL_GATES,
) -> tuple[Gates | None, dict[str, str]]:
    """Fit the gates that suit the samples.

    Args:
        data: training part of a split.
        regions: of its samples, see :func:`~hsiaug.quality.regions.label_regions`.
        false_alarm: of each gate.
        seed: of everything random.
        kinds: gates to fit.

    Returns:
        the gates, None if none can be fitted, and by name why others cannot.
    """
    check_value('fit_gates', 'false_alarm', false_alarm, float, BETWEEN)
    fitted: list[Gate] = []
    missing = {}
    for kind in kinds:
        if kind is AgreementGate and data.spec.kind == 'scene':
            missing[kind.name] = 'it looks at pixels, and whole images have one label'
            continue
        try:
            fitted.append(kind(false_alarm).fit(data, regions, seed))
        except ValueError as error:  # too few bands or regions
            missing[kind.name] = str(error)
    return Gates(fitted) if fitted else None, missing


def gate_generator(
    gates: Gates, generator: Generator, least: float = 1 / 8, per_class: int = 32, tries: int = 200, seed: int = 0
) -> Gated:
    """A generator whose samples pass gates, without the classes whose samples hardly ever pass.

    Args:
        gates: fitted to the training part that the generator was trained on.
        generator: with class frequencies.
        least: share of a class's samples that must pass for it to be drawn.
        per_class: samples of each class that this is judged by.
        tries: see :class:`~hsiaug.quality.gated.Gated`.
        seed: of the samples that are judged.

    Raises:
        GateError: if more than half of what there is to draw would be left out.
    """
    check_value('gate_generator', 'least', least, float, Range(0, 1))
    shares = Gated(generator, gates, tries).passing(per_class, seed)
    out = [name for name, share in shares.items() if share < least]
    prior = dict(zip(generator.spec.classes, generator.class_prior.tolist(), strict=True))
    if sum(share for name, share in prior.items() if name not in out) < 0.5:
        raise GateError(
            f'of classes {out} fewer than {least:.0%} of {per_class} samples pass the gates; they are more than half '
            'of what there is to draw'
        )
    return Gated(generator, gates, tries, out)


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
