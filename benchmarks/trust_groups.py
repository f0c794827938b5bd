"""Groups of the ablation with arms behind gates, and gates for the folds of a ratio search."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from torch import Tensor
from trust_table import NO_GATE

from hsiaug.ablation import Arm
from hsiaug.ablation.cells import Group
from hsiaug.ablation.plan import Cell
from hsiaug.quality import (
    AgreementGate,
    Gate,
    Gated,
    GateError,
    Gates,
    NoveltyGate,
    RangeGate,
    SmoothnessGate,
    SubspaceGate,
    fit_gates,
    gate_generator,
    label_regions,
)
from hsiaug.systems import Generator, TrainingData

FALSE_ALARM = 0.05


class GatedArm(Arm):
    """An arm whose samples pass gates first."""


def fitted(kinds: tuple[type[Gate], ...], data: TrainingData, regions: Tensor, seed: int) -> Gates:
    """Each at the same false alarm rate; one that cannot be fitted is an error."""
    gates, missing = fit_gates(data, regions, FALSE_ALARM, seed, kinds)
    if gates is None or missing:
        raise ValueError(f'gates that cannot be fitted: {missing}')
    return gates


class FoldGates:
    """Puts gates in front of a generator; they are fitted once for each fold, whatever the generator.

    Args:
        kinds: of the gates.
        seed: of their fit.
    """

    def __init__(self, kinds: tuple[type[Gate], ...], seed: int) -> None:
        self.kinds, self.seed = kinds, seed
        self.fitted: dict[str | None, Gates] = {}

    def __call__(self, generator: Generator, data: TrainingData, regions: Tensor, threshold: float) -> Any:
        """The generator itself where the false alarm rate is 0: a gate that never rejects is none."""
        if threshold == NO_GATE:
            return generator
        assert data.provenance is not None
        fold = data.provenance.split
        if fold not in self.fitted:
            self.fitted[fold] = fitted(self.kinds, data, regions, self.seed)
        return gate_generator(self.fitted[fold], generator, seed=self.seed)


class GatedGroup(Group):
    """A group with gated arms."""

    kinds: tuple[type[Gate], ...]

    @cached_property
    def gates(self) -> Gates:
        """Fitted to the training part."""
        return fitted(self.kinds, self.data, label_regions(self.scene, self.split), self.seed)

    def generator(self, arm: Arm) -> Any:
        """The arm's generator, behind gates where it is a gated arm."""
        if not isinstance(arm, GatedArm):
            return super().generator(arm)
        if arm.name not in self.gated:
            self.gated[arm.name] = gate_generator(self.gates, super().generator(arm), seed=self.seed)
        return self.gated[arm.name]

    @cached_property
    def gated(self) -> dict[str, Gated]:
        """Generators behind gates, by arm."""
        return {}

    @cached_property
    def plain(self) -> dict[str, dict[str, Any]]:
        """The real-only cell of each downstream model."""
        return {}

    def run(self, cell: Cell, metrics: Any) -> dict[str, Any]:
        """Train and measure one cell; where gates let too little pass, nothing is mixed in."""
        try:
            row = super().run(cell, metrics)
        except GateError as error:
            assert cell.arm is not None
            named = {'cell': cell.key, 'arm': cell.arm.name, 'ratio': cell.ratio, 'refused': str(error)}
            return {**self.plain[cell.classifier.name], **named}
        if cell.arm is None:
            self.plain[cell.classifier.name] = row
        elif cell.arm.name in self.gated:
            row['left_out'] = list(self.gated[cell.arm.name].left_out)
        return row


class GatedSpectra(GatedGroup):
    """Spectra, some of them behind gates."""

    kinds = (RangeGate, SmoothnessGate, SubspaceGate, AgreementGate, NoveltyGate)


class GatedPatches(GatedGroup):
    """Patches with masks, some of them behind gates."""

    # Do masks fit, and are patches new? The physical gates reject nearly all that a short training makes.
    kinds = (AgreementGate, NoveltyGate)
