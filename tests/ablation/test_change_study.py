"""A study of pairs of dates, from the scene to the report."""

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from hsiaug.ablation import Arm, Classifier, Detector, Segmenter, Setting, Study, run_study
from hsiaug.ablation.arms import change_arms
from hsiaug.ablation.cells import Group, predictions_file
from hsiaug.ablation.runner import fidelity_files, open_group
from hsiaug.ablation.shown import shown_predictions, shown_samples
from hsiaug.metrics.scores import change_scores
from hsiaug.report.ablation import draw_shown, text_table, write_report
from hsiaug.scenes import BitemporalScene, ChangeSplitter, PatchSplitter, RandomSplit
from hsiaug.scenes.config import SceneConfig
from hsiaug.trainers.change_detection import ChangeDetectorConfig

sys.path.insert(0, str(Path(__file__).parents[2] / 'benchmarks'))
import specdm_change

TINY = {
    'vae_iterations': 8, 'diffusion_iterations': 8, 'vae_channels': 8, 'unet_channels': [16, 32], 'batch_size': 4,
}  # fmt: skip
NETWORK = ChangeDetectorConfig('changeformer-v3', 'mit_tiny', 8, batch_size=4, class_weights='sqrt_inverse')
SCENE = SceneConfig(
    simulated={
        'height': 64,
        'width': 64,
        'wavelengths': np.linspace(450, 2400, 8),
        'classes': 3,
        'dates': 2,
        'change': 0.1,
    }
)
SPLIT = ChangeSplitter(size=16, stride=8, regions='halves', max_train=10)


def study(**changes: Any) -> Study:
    fields: dict[str, Any] = {
        'title': 'pairs of dates',
        'scenes': {'simulated': SCENE},
        'settings': (Setting('simulated', '16 px', SPLIT),),
        'arms': (
            Arm('two-stream', 'two_stream_diffusion', TINY, 'real'),
            Arm('two-stream only', 'two_stream_diffusion', TINY, 'real', control=True, synthetic_only=True),
            Arm('copy_paste', 'patch_augment', {'kind': 'copy_paste'}, 'real', control=True),
        ),
        'ratios': (0.5, 2.0),
        'seeds': (0, 1),
        'classifiers': (Detector('tiny', NETWORK, steps=(4, 6)),),
        'fidelity_seeds': 1,
    }
    return Study(**{**fields, **changes})


@pytest.fixture(scope='module')
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was killed after its first seed's cells, before their fidelity was measured, and went on."""
    folder, plan = tmp_path_factory.mktemp('run'), study()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Group, 'measure_fidelity', killed)
        with pytest.raises(KeyboardInterrupt):
            run_study(replace(plan, seeds=(0,)), folder, progress=False)
    first = (folder / 'results.jsonl').read_text()
    run_study(plan, folder, progress=False)
    assert (folder / 'results.jsonl').read_text().startswith(first)
    return folder


def killed(*_: Any) -> None:
    raise KeyboardInterrupt


def test_every_cell_has_the_scores_of_the_change_class(finished: Path) -> None:
    rows = [json.loads(line) for line in (finished / 'results.jsonl').read_text().splitlines()]
    assert len(rows) == len({row['cell'] for row in rows}) == 2 * 7
    for row in rows:
        assert row['train_real'] == 10
        assert row['train_synthetic'] == round(10 * row['ratio'])
        assert row['classes'] == ['unchanged', 'changed']
        assert set(row['val']) == {'f1', 'iou', 'precision', 'recall', 'miou', 'mf1'}
        test = row['test']
        unchanged, changed = test['per_class']
        assert changed == pytest.approx(test['iou'])
        assert test['miou'] == pytest.approx((unchanged + changed) / 2)
        assert test['f1'] == pytest.approx(2 * test['iou'] / (1 + test['iou']))
    scores = {(row['arm'], row['ratio'], row['seed']): row['test']['miou'] for row in rows}
    assert scores['two-stream', 2.0, 0] != scores['two-stream only', 2.0, 0]


def test_predictions_of_the_first_seed_are_kept(finished: Path) -> None:
    plan = study()
    setting = plan.settings[0]
    rows = {row['cell']: row for row in map(json.loads, (finished / 'results.jsonl').read_text().splitlines())}
    group: Any = open_group(plan, setting, 0, finished)
    for cell in plan.cells(setting, 0):
        kept = load_file(predictions_file(finished, cell))['mask']
        scores = change_scores(kept.long(), group.test.mask, 255)
        assert scores.f1 == pytest.approx(rows[cell.key]['test']['f1'])
        assert scores.recall == pytest.approx(rows[cell.key]['test']['recall'])
    assert not any(predictions_file(finished, cell).exists() for cell in plan.cells(setting, 1))


def test_fidelity_is_measured_once_for_arms_of_one_generator(finished: Path) -> None:
    plan = study()
    files = fidelity_files(plan, plan.settings[0], 0, finished)
    assert [arm.name for arm, _ in files] == ['two-stream', 'copy_paste']
    assert {file for _, file in files} == set((finished / 'fidelity').iterdir())
    assert fidelity_files(plan, plan.settings[0], 1, finished) == []
    learned, copied = (json.loads(file.read_text()) for _, file in files)
    assert learned['kind'] == 'change'
    assert learned['reconstruction']['rmse'] > 0
    assert copied['reconstruction'] is None
    # Copies of training pairs are much like training pairs, other than what 8 steps of learning give.
    for part in ('first', 'second', 'both'):
        assert copied[part]['against_train']['fid_image'] < learned[part]['against_train']['fid_image']
    assert copied['differences']['unchanged'] < learned['differences']['unchanged']
    assert copied['first']['real_reference'] == learned['first']['real_reference']


def test_generators_are_kept_once_and_never_for_another_seed_or_setting(finished: Path) -> None:
    kept = sorted(path.name for path in (finished / 'generators').iterdir())
    assert len(kept) == 2  # of two seeds; two arms share each
    plan = study()
    other = Arm('two-stream', 'two_stream_diffusion', {**TINY, 'diffusion_iterations': 9}, 'real')
    group: Any = open_group(plan, plan.settings[0], 0, finished)
    before = group.generator(plan.arms[0]).sample(2, seed=0)['image']
    assert not torch.equal(before, group.generator(other).sample(2, seed=0)['image'])
    assert sorted(path.name for path in (finished / 'generators').iterdir()) != kept


def test_report_shows_triplets_and_maps(finished: Path) -> None:
    plan = study()
    draw_shown(shown_samples(plan, finished), finished)
    draw_shown(shown_predictions(plan, finished), finished)
    paths = write_report(finished)
    text = paths.markdown.read_text()
    for said in (
        '| F1 % | ΔF1 |', 'IoU %', 'mF1 %', 'precision %', 'those of the change class', 'FID date 1 to training',
        'differences, unchanged', 'pairs-simulated-16_px-two-stream.png', 'changes-simulated-16_px-tiny.png',
    ):  # fmt: skip
        assert said in text, said
    assert 'mean F1' in text_table(finished)
    drawn = {path.name for path in paths.figures}
    assert {'pairs-simulated-16_px-two-stream.png', 'changes-simulated-16_px-tiny.png'} <= drawn
    assert 'pairs-simulated-16_px-copy_paste.png' not in drawn  # a control


def test_a_study_holds_one_kind(tmp_path: Path) -> None:
    for stranger in (Classifier(), Segmenter()):
        with pytest.raises(ValueError, match='cannot be in one study'):
            study(classifiers=(Detector(), stranger))
    with pytest.raises(ValueError, match=r"Detector 'changeformer' and RandomSplit of setting 'x' cannot be in one"):
        study(settings=(Setting('simulated', 'x', RandomSplit()),), classifiers=(Detector(),))


def test_parts_without_change_are_refused(tmp_path: Path) -> None:
    """F1 of nothing is none: a study must not choose by it."""
    first, second = np.random.default_rng(0).random((2, 32, 48, 3)).astype(np.float32)
    change = np.zeros((32, 48), dtype=np.uint8)
    change[:, :8] = 1
    scene = BitemporalScene.from_dates('strip', first, second, change)
    halves = PatchSplitter(size=8, regions='halves', attempts=1)
    # The half without the strip tests where the split is one into left and right.
    seed = next(seed for seed in range(50) if (halves(scene, seed).test_windows[:, 1] >= 24).all())
    plan = study(scenes={'strip': lambda: scene}, settings=(Setting('strip', '8 px', halves),))
    with pytest.raises(
        ValueError, match=rf'strip, 8 px, seed {seed}, test part: nothing changed in any of the 12 windows'
    ):
        open_group(plan, plan.settings[0], seed, tmp_path)


def test_arms_of_the_study() -> None:
    arms = {arm.name: arm for arm in change_arms({'unet_channels': [16, 32]})}
    assert [name for name, arm in arms.items() if not arm.control] == ['two-stream', 'single stream', 'change editing']
    assert {'duplicate', 'flips', 'crops', 'noise', 'copy_paste', 'two-stream only'} < set(arms)
    single = arms['single stream'].settings
    assert (single['single_stream'], single['sad_weight'], single['mask_loss']) == (True, 0.0, 'l1')
    assert arms['two-stream'].settings == arms['two-stream only'].settings == {'unet_channels': [16, 32]}
    assert arms['change editing'].settings == {'painter': {'unet_channels': [16, 32]}}


def test_the_benchmark_trains_on_few_balanced_crops_and_tests_elsewhere(real_data: Path, tmp_path: Path) -> None:
    plan = specdm_change.study(real_data, 'quick', 3, ['barkbeetle_change'])
    assert len(plan.all_cells()) == 3 * (1 + 2 + 2 + 1 + 1 + 1)
    group: Any = open_group(plan, plan.settings[0], 0, tmp_path)
    held = (group.real.mask == 1).flatten(1).double().mean(dim=1) >= 0.01
    assert len(group.real) == 100
    assert held.sum() >= 50  # most of these forests hold change as they are
    forests = group.scene.groups
    train, test = (set(np.unique(forests.reshape(-1)[group.split.pixels(part)])) for part in ('train', 'test'))
    assert train.isdisjoint(test)
    plain = specdm_change.study(real_data, 'small', 10, ['barkbeetle_change'], change_share=0, networks=1)
    assert type(plain.settings[0].splitter) is PatchSplitter
    assert plain.settings[0].budget == '100 crops of 32 px'
    # ten seeds of the arms that claims are made of; those of the other models cost too much for a CPU
    assert len(plain.all_cells()) == 10 * (1 + 2 + 1 + 1) + 5 * (1 + 1)
    assert [network.name for network in plain.classifiers] == ['ChangeFormer, tiny']
    with pytest.raises(SystemExit, match='no scene found'):
        specdm_change.study(tmp_path, 'quick', 1, ['oscd'])
