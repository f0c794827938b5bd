"""A study of labelled patches, from the scene to the report."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hsiaug.ablation import Arm, SceneClassifier, Segmenter, Setting, Study, run_study
from hsiaug.ablation.arms import quick, scene_arms
from hsiaug.report.ablation import write_report
from hsiaug.scenes import LabelledPatchSplitter, PatchSplitter, SimulatedScene
from hsiaug.trainers import SceneClassifierConfig

SPLITTER = LabelledPatchSplitter(
    size=16, patch=8, patch_stride=2, block=16, per_class=6, min_patches=6, min_labelled=0.1
)


def simulated() -> SimulatedScene:
    return SimulatedScene(64, 64, np.linspace(450, 2400, 12), classes=3, patch=6)


def study(**changes: object) -> Study:
    fields = {
        'title': 'patches',
        'scenes': {'simulated': simulated},
        'settings': (Setting('simulated', '6 per class', SPLITTER),),
        'arms': (
            Arm('patch GAN', 'patch_gan', {'iterations': 3}, 'real'),
            Arm('flips', 'patch_augment', {'kind': 'flips'}, 'real', control=True),
        ),
        'ratios': (0.5, 2.0),
        'seeds': (0, 1),
        'classifiers': (SceneClassifier('2-D CNN', SceneClassifierConfig('cnn2d', batch_size=8), steps=(4, 20)),),
    }
    return Study(**{**fields, **changes})  # type: ignore[arg-type]


def test_a_study_of_patches_runs_resumes_and_reports(tmp_path: Path) -> None:
    plan = study()
    run_study(replace(plan, seeds=(0,)), tmp_path, progress=False)
    first = (tmp_path / 'results.jsonl').read_text()
    kept = list((tmp_path / 'generators').iterdir())
    assert len(kept) == 1  # the GAN, not the control
    run_study(plan, tmp_path, progress=False)
    assert (tmp_path / 'results.jsonl').read_text().startswith(first)
    rows = [json.loads(line) for line in (tmp_path / 'results.jsonl').read_text().splitlines()]
    assert len(rows) == len({row['cell'] for row in rows}) == 2 * 5
    for row in rows:
        assert row['train_real'] == 6 * len(row['classes'])
        assert row['train_synthetic'] == round(row['ratio'] * row['train_real'])
        assert set(row['val']) == {'oa', 'aa', 'kappa'}
        assert set(row['test']) == {'oa', 'aa', 'kappa', 'per_class'}
        assert 0 <= row['test']['oa'] <= 1
        assert row['setting']['steps'] in (4, 20)
        assert row['test_count'] > 50
    assert len({row['split'] for row in rows}) == 2
    record = json.loads(next((tmp_path / 'fidelity').glob('*patch_GAN*')).read_text())
    assert record['msad'] > 0
    text = write_report(tmp_path).markdown.read_text()
    assert 'OA %' in text
    assert 'mSAD' in text


def test_budgets_have_generators_of_their_own(tmp_path: Path) -> None:
    fewer = replace(SPLITTER, per_class=3, min_patches=3)
    plan = study(
        settings=(Setting('simulated', '6', SPLITTER), Setting('simulated', '3', fewer)), seeds=(0,), ratios=(1.0,)
    )
    run_study(plan, tmp_path, progress=False)
    assert len(list((tmp_path / 'generators').iterdir())) == 2


def test_arms_and_kinds() -> None:
    arms = scene_arms({'iterations': 7})
    assert {(arm.settings.get('loss', 'bce'), arm.settings.get('dims', 2)) for arm in arms if not arm.control} == {
        ('bce', 2), ('wgan-gp', 2), ('bce', 3), ('wgan-gp', 3),
    }  # fmt: skip
    assert {arm.settings['iterations'] for arm in arms if not arm.control} == {7}
    short = quick(study(arms=arms))
    assert {arm.settings['iterations'] for arm in short.arms if not arm.control} == {300}
    with pytest.raises(ValueError, match='cannot be in one study'):
        study(settings=(Setting('simulated', 'x', PatchSplitter(size=16)),))
    with pytest.raises(ValueError, match='cannot be in one study'):
        study(classifiers=(SceneClassifier(), Segmenter()))
