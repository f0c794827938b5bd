"""All gates that suit some samples, and a generator whose samples pass them."""

from __future__ import annotations

from torch import Tensor

from ..settings import Range, check_value
from ..systems import Generator, TrainingData
from .agreement import AgreementGate
from .gate import Gate, Gates
from .gated import Gated, GateError
from .novelty import NoveltyGate
from .physical import RangeGate, SmoothnessGate, SubspaceGate

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
