import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import make_scene

from hsiaug.ablation import Classifier, Setting
from hsiaug.ablation.plan import Cell
from hsiaug.ablation.results import RESULTS_FILE, read_results
from hsiaug.quality import Gated, GateError, Gates, RangeGate, RatioSearch, SubspaceGate, gate_generator, label_regions
from hsiaug.scenes import HalvesSplit
from hsiaug.systems import Generator
from hsiaug.trainers import ClassifierConfig, fit_generator, training_data

sys.path.insert(0, str(Path(__file__).parents[2] / 'benchmarks'))
import trust
from trust import FoldGates, GatedArm, GatedGroup
from trust_report import NO_GATE, gated_name, way_name

SCENE = make_scene(32, 32)
SPLITTER = HalvesSplit(per_class=12)
FAST = Classifier('nn1d', ClassifierConfig(hidden=16, layers=2, steps=30, lr=1e-2), ('standard',), (30,))
METRICS = ('oa', 'aa', 'kappa')


class Shut(GatedGroup):
    """Gates that no spectrum passes."""

    @property
    def gates(self) -> Gates:
        gates = Gates([RangeGate().fit(self.data, label_regions(self.scene, self.split))])
        gates.gates[0].held_out = gates.gates[0].held_out - 1e6
        return gates


def cell(arm: Any, ratio: float, setting: Setting) -> Cell:
    return Cell(f'{arm and arm.name}{ratio}', setting, 0, FAST, arm, ratio)


@pytest.fixture
def setting() -> Setting:
    return Setting('scene', 'few', SPLITTER)


def test_a_gated_arm_draws_what_passes(setting: Setting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    group = GatedGroup((RangeGate,), SCENE, setting, 0, tmp_path)
    plain, gated = (kind('n', 'noise', {}, 'real') for kind in (trust.Arm, GatedArm))
    for gate in group.gates:
        gate.false_alarm = 0.4
    assert isinstance(group.generator(gated), Gated)
    assert not isinstance(group.generator(plain), Gated)
    drawn = group.generator(gated).sample(200, seed=1)
    assert group.gates.keep(drawn).all()
    assert not group.gates.keep(group.generator(plain).sample(200, seed=1)).all()
    assert group.gates.gates[0].provenance.split == group.split.fingerprint  # type: ignore[union-attr]
    passed: list[bool] = []
    sample = Gated.sample

    def spy(self: Gated, *args: Any, **kwargs: Any) -> Any:
        found = sample(self, *args, **kwargs)
        passed.append(bool(group.gates.keep(found).all()))
        return found

    monkeypatch.setattr(Gated, 'sample', spy)
    group.run(cell(plain, 1.0, setting), METRICS)
    assert not passed
    row = group.run(cell(gated, 1.0, setting), METRICS)
    assert passed
    assert all(passed)
    assert row['train_synthetic'] == len(group.real)
    assert row['left_out'] == []
    assert 'refused' not in row


def test_where_too_little_passes_the_cell_is_that_of_real_only(setting: Setting, tmp_path: Path) -> None:
    group = Shut((RangeGate,), SCENE, setting, 0, tmp_path)
    real = group.run(cell(None, 0.0, setting), METRICS)
    row = group.run(cell(GatedArm('n, gated', 'noise', {}, 'real'), 2.0, setting), METRICS)
    assert (row['test'], row['val'], row['train_synthetic']) == (real['test'], real['val'], 0)
    assert (row['arm'], row['ratio'], row['cell']) == ('n, gated', 2.0, 'n, gated2.0')
    assert 'fewer than 12% of the samples pass the gates' in row['refused']
    assert 'left_out' not in row
    assert 'refused' not in real


def test_gates_of_a_fold_are_fitted_once_whatever_the_generator() -> None:
    data = training_data(SCENE, SPLITTER(SCENE, 0))
    regions = label_regions(SCENE, SPLITTER(SCENE, 0))
    maker = FoldGates((RangeGate, SubspaceGate), 0)
    first, second = (fit_generator(kind, data, {}, 0) for kind in ('duplicate', 'noise'))
    assert maker(first, data, regions, NO_GATE) is first
    assert maker.fitted == {}
    one, other = maker(first, data, regions, 0.05), maker(second, data, regions, 0.05)
    assert one.gates is other.gates
    assert [gate.name for gate in one.gates] == ['range', 'subspace']
    third = training_data(SCENE, SPLITTER(SCENE, 1))
    assert maker(first, third, label_regions(SCENE, SPLITTER(SCENE, 1)), 0.05).gates is not one.gates
    far = fit_generator('noise', data, {}, 0)
    draw = far.sample
    far.sample = lambda *a, **k: {**(d := draw(*a, **k)), 'image': torch.full_like(d['image'], 1e6)}  # type: ignore[method-assign]
    with pytest.raises(GateError, match='fewer than 12% of the samples pass the gates'):
        gate_generator(one.gates, far)
    # Of one class nothing passes: it is left out, and the others are mixed in.
    near = fit_generator('duplicate', data, {}, 0)
    copy = near.sample

    def odd(*args: Any, **kwargs: Any) -> Any:
        batch = copy(*args, **kwargs)
        return {**batch, 'image': batch['image'] + 1e6 * (batch['label'] == 1)[:, None]}

    near.sample = odd  # type: ignore[method-assign]
    rest = gate_generator(one.gates, near)
    assert rest.left_out == (data.spec.classes[1],)
    assert 1 not in rest.sample(40, seed=1)['label']


def test_a_killed_study_resumes_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    part = replace(
        trust.PARTS['spectrum'],
        scenes={},
        splitters={'simulated': replace(SPLITTER, on_rare='drop')},
        generators={'noise': ({}, 'real')},
        controls={'duplicates': ('duplicate', {})},
        ways={'light': {'training': {'synthetic_weight': 0.25}}},
        ratios=(1.0, 2.0),
        downstream=FAST,
        gates=(RangeGate,),
        search=RatioSearch((1.0, 2.0), trials=3, first=1),
        size=32,
    )
    monkeypatch.setitem(trust.PARTS, 'spectrum', part)
    plan = trust.study(tmp_path, 'spectrum', 1, ['simulated'], True)
    ((_, seed),) = plan.groups()

    def run(folder: Path) -> tuple[list[Any], list[Any]]:
        found = trust.experiment('spectrum', plan, tmp_path, folder).run(folder, progress=False)
        rows, races = ([row for row in found if ('gated' in row) == race] for race in (False, True))
        return [(r['arm'], r['ratio'], r['test']) for r in rows], [
            (r['gated']['standings'], r['either']) for r in races
        ]

    whole = run(tmp_path / 'whole')
    assert [key[:2] for key in whole[0]] == [
        ('real', 0.0), ('noise', 1.0), ('noise', 2.0), (gated_name('noise'), 1.0), (gated_name('noise'), 2.0),
        (way_name('noise', 'light'), 2.0), ('duplicates', 1.0), ('duplicates', 2.0),
    ]  # fmt: skip
    assert seed == trust.FIRST_SEED
    folder, fits = tmp_path / 'killed', []
    fit = Generator.sample

    def killed(self: Any, *args: Any, **kwargs: Any) -> Any:
        fits.append(1)
        if len(fits) == 30:
            raise KeyboardInterrupt
        return fit(self, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(Generator, 'sample', killed)
        with pytest.raises(KeyboardInterrupt):
            run(folder)
    assert 0 < len(read_results(folder / RESULTS_FILE)) <= 7
    again = run(folder)
    assert again[0] == whole[0]
    assert again[1][0][0] == whole[1][0][0]
    before = (folder / RESULTS_FILE).read_bytes()
    planned = trust.experiment('spectrum', plan, tmp_path, folder)
    text = trust.write(planned, plan, planned.run(folder, progress=False), folder)
    assert before == (folder / RESULTS_FILE).read_bytes()
    assert (folder / 'table.md').read_text() == text
    assert '| simulated | noise | 1 |' in text
    assert (folder / 'figure.png').stat().st_size > 10_000
