"""Studies of image-mask pairs and of labelled patches, from the scene to the report."""

import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hsiaug.ablation import Arm, Classifier, SceneClassifier, Segmenter, Setting, Study, run_study
from hsiaug.ablation.arms import quick, scene_arms
from hsiaug.ablation.shown import shown_samples
from hsiaug.report.ablation import draw_shown, write_report
from hsiaug.scenes import LabelledPatchSplitter, PatchSplitter, RandomSplit, SimulatedScene
from hsiaug.trainers import SceneClassifierConfig
from hsiaug.trainers.segmentation import SegmenterConfig

TINY = {
    'vae_iterations': 8, 'diffusion_iterations': 8, 'vae_channels': 8, 'unet_channels': [16, 32], 'batch_size': 4,
}  # fmt: skip
PAIRS = PatchSplitter(size=16, stride=8, regions='halves')
LABELLED = LabelledPatchSplitter(
    size=16, patch=8, patch_stride=2, block=16, per_class=6, min_patches=6, min_labelled=0.1
)
FLIPS = Arm('flips', 'patch_augment', {'kind': 'flips'}, 'real', control=True)
FIELDS: dict[str, dict[str, Any]] = {
    'pairs': {
        'settings': (Setting('simulated', '16 px', PAIRS),),
        'arms': (
            Arm('two-stream', 'two_stream_diffusion', TINY, 'real'), FLIPS,
            replace(FLIPS, name='flips only', synthetic_only=True),
        ),
        'classifiers': (
            Segmenter('tiny', SegmenterConfig('segformer', 'mit_tiny', channels=16, batch_size=4), steps=(4, 6)),
        ),
    },
    'patches': {
        'settings': (Setting('simulated', '6 per class', LABELLED),),
        'arms': (Arm('patch GAN', 'patch_gan', {'iterations': 3}, 'real'), FLIPS),
        'classifiers': (SceneClassifier('2-D CNN', SceneClassifierConfig('cnn2d', batch_size=8), steps=(4, 20)),),
    },
}  # fmt: skip
METRICS = {'pairs': {'miou', 'f1', 'oa'}, 'patches': {'oa', 'aa', 'kappa'}}


def simulated(patch: int) -> SimulatedScene:
    return SimulatedScene(64, 64, np.linspace(450, 2400, 12), classes=3, patch=patch)


def study(kind: str, **changes: Any) -> Study:
    scenes = {'simulated': partial(simulated, 4 if kind == 'pairs' else 6)}
    shared = {'title': kind, 'scenes': scenes, 'ratios': (0.5, 2.0), 'seeds': (0, 1)}
    return Study(**{**shared, **FIELDS[kind], **changes})


@pytest.mark.parametrize('kind', FIELDS)
def test_a_study_runs_resumes_and_reports(kind: str, tmp_path: Path) -> None:
    plan = study(kind)
    run_study(replace(plan, seeds=(0,)), tmp_path, progress=False)
    first = (tmp_path / 'results.jsonl').read_text()
    assert len(list((tmp_path / 'generators').iterdir())) == 1  # the learned one, not the controls
    run_study(plan, tmp_path, progress=False)
    assert (tmp_path / 'results.jsonl').read_text().startswith(first)
    rows = [json.loads(line) for line in (tmp_path / 'results.jsonl').read_text().splitlines()]
    assert len(rows) == len({row['cell'] for row in rows}) == len(plan.all_cells())
    for row in rows:
        assert row['train_synthetic'] == round(row['ratio'] * row['train_real'])
        assert set(row['val']) == METRICS[kind]
        assert set(row['test']) == {*METRICS[kind], 'per_class'}
        assert 0 <= row['test']['oa'] <= 1
        assert row['setting']['steps'] in plan.classifiers[0].steps  # type: ignore[attr-defined]
    assert len({row['split'] for row in rows}) == 2
    (learned,) = (file for file in (tmp_path / 'fidelity').iterdir() if 'flips' not in file.name)
    fidelity = json.loads(learned.read_text())
    draw_shown(shown_samples(plan, tmp_path), tmp_path)
    text = write_report(tmp_path).markdown.read_text()
    if kind == 'pairs':
        arms = {(row['arm'], row['ratio'], row['seed']): row['test']['miou'] for row in rows}
        assert arms['flips', 2.0, 0] != arms['flips only', 2.0, 0]
        assert fidelity['kind'] == 'segmentation'
        assert fidelity['reconstruction']['rmse'] > 0
        said = ('mIoU %', 'FID to training', 'pairs-simulated-16_px-two-stream.png')
    else:
        assert all(row['train_real'] == 6 * len(row['classes']) and row['test_count'] > 50 for row in rows)
        assert fidelity['msad'] > 0
        said = ('OA %', 'mSAD')
    assert all(one in text for one in said)


def test_budgets_have_generators_of_their_own(tmp_path: Path) -> None:
    fewer = replace(LABELLED, per_class=3, min_patches=3)
    settings = (Setting('simulated', '6', LABELLED), Setting('simulated', '3', fewer))
    run_study(study('patches', settings=settings, seeds=(0,), ratios=(1.0,)), tmp_path, progress=False)
    assert len(list((tmp_path / 'generators').iterdir())) == 2


def test_arms_of_labelled_patches() -> None:
    arms = scene_arms({'iterations': 7})
    assert {(arm.settings.get('loss', 'bce'), arm.settings.get('dims', 2)) for arm in arms if not arm.control} == {
        ('bce', 2), ('wgan-gp', 2), ('bce', 3), ('wgan-gp', 3),
    }  # fmt: skip
    assert {arm.settings['iterations'] for arm in arms if not arm.control} == {7}
    short = quick(study('patches', arms=arms))
    assert {arm.settings['iterations'] for arm in short.arms if not arm.control} == {300}


@pytest.mark.parametrize(
    ('kind', 'changes', 'message'),
    [
        ('pairs', {'classifiers': (Classifier(),)}, ''),
        ('pairs', {'classifiers': (Segmenter(), Classifier())}, r"kind \['segmentation', 'spectrum'\] "),
        ('pairs', {'settings': (Setting('simulated', 'x', RandomSplit()),)}, ''),
        ('pairs', {'settings': (Setting('simulated', 'x', LABELLED),)}, 'LabelledPatchSplitter of setting .x. '),
        ('patches', {'settings': (Setting('simulated', 'x', PAIRS),)}, ''),
        ('patches', {'classifiers': (SceneClassifier(), Segmenter())}, ''),
    ],
)
def test_kinds_do_not_mix(kind: str, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f'{message}cannot be in one study'):
        study(kind, **changes)
