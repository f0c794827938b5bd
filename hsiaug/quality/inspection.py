"""Comparison of a bank with real data: gates, memorised samples, fidelity, coverage."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Subset

from ..datasets import SampleSet, SyntheticBank, require_unseen_samples, scene_dataset
from ..datasets.contract.batches import fetch, spread_rows
from ..datasets.mixing.checks import Scales
from ..datasets.own.parts import AnyScene, AnySplit
from ..metrics.patches import Pair
from ..metrics.values import Measured, with_intervals
from ..progress import progress_bar
from ..samples import SampleSpec, SpecMismatchError, require_compatible
from ..scenes import LabelledPatchSplit, PatchSplit
from ..settings import check_value
from ..systems import TrainingData
from ..systems.data import training_data
from ..tasks import Task, task_of
from .coverage import Coverage
from .gate import Decision, Gates
from .gated import fit_gates
from .novelty import NoveltyGate
from .regions import label_regions

PARTS = 5
"""Parts that the jackknife leaves out in turn."""
LOOKED_AT = {False: 500, True: 5000}
"""Images (False) and spectra (True) of a bank examined by default; fewer large images, to fit in ``_BYTES``."""
_BYTES = 512 << 20
_MOST = 2000  # real samples whose coverage is measured
Batch = dict[str, Any]


@dataclass(frozen=True)
class Compared:
    """Real and synthetic samples."""

    bank: SyntheticBank
    scene: AnyScene  # the real scene, or samples of datasets
    split: AnySplit
    data: TrainingData  # training and validation part
    test: Batch  # batch of the held-out part
    held_out: int  # total number of samples in this part
    fake: Batch  # batch of the bank
    rows: np.ndarray  # (n,) its rows in the bank
    seen: str  # statement on the samples that its generator has seen

    @property
    def spec(self) -> SampleSpec:
        """Spec of the real samples."""
        return self.data.spec

    @property
    def task(self) -> Task:
        """The task of their kind."""
        return task_of(self.spec)

    @property
    def train(self) -> dict[str, Tensor]:
        """Batch of the training part."""
        return {'image': self.data.x, self.spec.target_key: self.data.y}

    def sides(self) -> dict[str, Batch]:
        """Batches by name."""
        return {'real, training': self.train, 'real, test': self.test, 'synthetic': self.fake}

    def pairs(self) -> list[Pair]:
        """Images and targets of the three batches."""
        return [(side['image'], side[self.spec.target_key]) for side in self.sides().values()]

    def place(self, row: int) -> str:
        """Position of a training sample in the scene, or its number in a dataset."""
        if isinstance(self.scene, SampleSet):
            return self.scene.place(int(self.split.train[row]))
        if isinstance(self.split, PatchSplit):
            labelled = isinstance(self.split, LabelledPatchSplit)
            corners = self.split.patches('train')[0] if labelled else self.split.train  # type: ignore[attr-defined]
            corner = corners[row]
            return f'corner at row {corner[0]}, column {corner[1]}'
        pixel = divmod(int(self.split.train[row]), self.scene.shape[1])
        return f'pixel at row {pixel[0]}, column {pixel[1]}'


def read_compared(bank: SyntheticBank, scene: AnyScene, split: AnySplit, count: int | None = None) -> Compared:
    """Read what is compared: at most ``count`` samples of the bank and of the held-out part, see :data:`LOOKED_AT`."""
    if count is not None:
        check_value('evaluation of a bank', 'count', count, int)
    unseen: Any = scene_dataset(scene, split, 'test')
    said = require_unseen_samples(bank, unseen)
    require_compatible(unseen.spec, bank.spec)
    most = count or max(2, min(LOOKED_AT[bank.spec.size is None], _BYTES // (4 * math.prod(bank.spec.image_shape))))
    rows = spread_rows(len(bank), most)
    data, test = training_data(scene, split), fetch(unseen, spread_rows(len(unseen), most))
    fake, scales = bank.batch(rows.tolist()), Scales()
    scales.add('real', test['image'])
    scales.add('synthetic', fake['image'])
    try:
        scales.judge('or the comparison means nothing')
    except SpecMismatchError as error:
        warnings.warn(str(error), stacklevel=3)
    return Compared(bank, scene, split, data, test, len(unseen), fake, rows, said)


@dataclass(frozen=True)
class Memorised:
    """Memorised samples, found by the novelty gate."""

    gate: NoveltyGate
    counts: Mapping[str, Any]  # of the bank, see NoveltyGate.memorised
    distance: Tensor  # (n,) distances of synthetic samples to the nearest training sample
    nearest: Tensor  # (n,) rows of these training samples


@dataclass(frozen=True)
class Review:
    """Fitted gates and their decisions."""

    gates: Gates  # fitted to the training part
    on_fake: Decision  # on the synthetic samples
    on_real: Decision  # on held-out real samples
    missing: dict[str, str] = field(default_factory=dict)  # gates that could not be fitted, and why
    memorised: Memorised | None = None  # None if the novelty gate could not be fitted

    @property
    def rejected(self) -> tuple[float, float]:
        """Shares of synthetic and of held-out real samples rejected by at least one gate."""
        fake, real = (float((~found.keep).double().mean()) for found in (self.on_fake, self.on_real))
        return fake, real


def review(compared: Compared, seed: int = 0) -> Review | dict[str, str]:
    """Fit all suitable gates and judge the bank and the held-out part; or the reason why none can be fitted."""
    gates, missing = fit_gates(compared.data, label_regions(compared.scene, compared.split), seed=seed)
    if gates is None:
        return missing
    memorised = None
    if (gate := next((gate for gate in gates if isinstance(gate, NoveltyGate)), None)) is not None:
        counts = gate.memorised(Subset(compared.bank, compared.rows.tolist()))
        memorised = Memorised(gate, counts, *gate.nearest(compared.fake))
    return Review(gates, gates.judge(compared.fake), gates.judge(compared.test), missing, memorised)


@dataclass(frozen=True)
class BankFidelity:
    """Measures with their intervals."""

    values: Mapping[str, Measured]  # by name
    # what was limited per class, and the numbers of training, held-out and synthetic samples left
    thinned: Mapping[str, tuple[int, int, int]]
    per_class: int  # largest number per class
    frechet: bool  # whether there are Fréchet distances among the measures


def measure_fidelity(compared: Compared, per_class: int, seed: int = 0) -> BankFidelity:
    """Measure fidelity against held-out real samples."""
    values: dict[str, Measured] = {}
    thinned, frechet = {}, False
    for prefix, measure, (train, test, fake), what in compared.task.comparisons(
        compared.pairs(), compared.spec, per_class, seed
    ):
        found = with_intervals(measure, test, fake, PARTS, seed)
        values |= {prefix + name: value for name, value in found.items()}
        frechet |= not what
        if what:
            thinned[what] = len(train[0]), len(test[0]), len(fake[0])
    return BankFidelity(values, thinned, per_class, frechet)


@dataclass(frozen=True)
class Covered:
    """Coverage by synthetic and by training samples, see :meth:`~hsiaug.quality.coverage.Coverage.report`."""

    synthetic: Mapping[str, Any]  # report on the former
    training: Mapping[str, Any]  # on the latter
    held_out: int  # real samples that are covered or not
    count: int  # samples on each side
    k: int  # neighbour that sets the reach


def measure_coverage(compared: Compared) -> Covered:
    """Held-out real modes that the bank covers, compared with an equal number of training samples."""
    train, test, fake = compared.sides().values()
    held_out = {key: value[:: max(1, -(-len(value) // _MOST))] for key, value in test.items()}
    key = compared.spec.target_key
    coverage = Coverage().fit(replace(compared.data, x=held_out['image'], y=held_out[key]))
    count = min(len(train['image']), len(fake['image']))
    rng = torch.Generator().manual_seed(0)
    sides = []
    for side in (fake, train):  # equal numbers of both, since more samples cover more
        some = torch.randperm(len(side['image']), generator=rng)[:count]
        sides.append(coverage.report({name: side[name][some] for name in ('image', key)}))
    return Covered(sides[0], sides[1], len(held_out['image']), count, coverage.k)


@dataclass(frozen=True)
class Inspection:
    """Findings about a bank."""

    compared: Compared  # real and synthetic samples
    # decisions of gates, or why none could be fitted; None if gates were left out
    gates: Review | dict[str, str] | None
    fidelity: BankFidelity | str  # measures, or why they are missing
    coverage: Covered | str  # coverage of real modes, or why it is unknown


def inspect_bank(
    bank: SyntheticBank,
    scene: AnyScene,
    split: AnySplit,
    count: int | None = None,
    per_class: int = 200,
    gates: bool = True,
    seed: int = 0,
    progress: bool = False,
) -> Inspection:
    """Compare a bank with real data.

    Args:
        bank: the bank.
        scene: the real scene, or samples of datasets.
        split: its split; gates and encoders learn from the training part, and the bank is compared with the test part.
        count: largest number of samples to examine; see :data:`LOOKED_AT`.
        per_class: largest number of spectra per class and side for fidelity.
        gates: whether to fit gates, which takes longest, to find rejected and memorised samples.
        seed: seed of gates, encoders and all other randomness.
        progress: show a progress bar.

    Raises:
        LeakageError: if the bank's generator has seen test pixels of the split, or test samples.
        SpecMismatchError: if real and synthetic samples do not match.
    """
    compared = read_compared(bank, scene, split, count)
    with progress_bar(progress, total=2 + gates, unit='step', desc='evaluation') as advance:
        reviewed = review(compared, seed) if gates else None
        advance(int(gates))
        fidelity = _or_why(lambda: measure_fidelity(compared, per_class, seed))
        advance(1)
        coverage = _or_why(lambda: measure_coverage(compared))
        advance(1)
    return Inspection(compared, reviewed, fidelity, coverage)


def _or_why(measure: Callable[[], Any]) -> Any:
    try:
        return measure()
    except ValueError as error:  # if a class or nearly all samples are missing, the other measures still hold
        return str(error)
