"""A study of image-mask pairs, from the scene to the report."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hsiaug.ablation import Arm, Classifier, Segmenter, Setting, Study, run_study
from hsiaug.ablation.shown import shown_samples
from hsiaug.report.ablation import draw_shown, write_report
from hsiaug.scenes import LabelledPatchSplitter, PatchSplitter, RandomSplit, SimulatedScene
from hsiaug.trainers.segmentation import SegmenterConfig

TINY = {
    'vae_iterations': 8, 'diffusion_iterations': 8, 'vae_channels': 8, 'unet_channels': [16, 32], 'batch_size': 4,
}  # fmt: skip


def simulated() -> SimulatedScene:
    return SimulatedScene(64, 64, np.linspace(450, 2400, 12), classes=3, patch=4)


def study(**changes: object) -> Study:
    fields = {
        'title': 'pairs',
        'scenes': {'simulated': simulated},
        'settings': (Setting('simulated', '16 px', PatchSplitter(size=16, stride=8, regions='halves')),),
        'arms': (
            Arm('two-stream', 'two_stream_diffusion', TINY, 'real'),
            Arm('flips', 'patch_augment', {'kind': 'flips'}, 'real', control=True),
            Arm('flips only', 'patch_augment', {'kind': 'flips'}, 'real', control=True, synthetic_only=True),
        ),
        'ratios': (0.5, 2.0),
        'seeds': (0, 1),
        'classifiers': (
            Segmenter('tiny', SegmenterConfig('segformer', 'mit_tiny', channels=16, batch_size=4), steps=(4, 6)),
        ),
        'fidelity_seeds': 1,
    }
    return Study(**{**fields, **changes})  # type: ignore[arg-type]


def test_a_study_of_pairs_runs_resumes_and_reports(tmp_path: Path) -> None:
    plan = study()
    run_study(replace(plan, seeds=(0,)), tmp_path, progress=False)
    first = (tmp_path / 'results.jsonl').read_text()
    run_study(plan, tmp_path, progress=False)
    assert (tmp_path / 'results.jsonl').read_text().startswith(first)
    rows = [json.loads(line) for line in (tmp_path / 'results.jsonl').read_text().splitlines()]
    assert len(rows) == len({row['cell'] for row in rows}) == 2 * 7
    real = rows[0]['train_real']
    for row in rows:
        assert row['train_synthetic'] == round(row['ratio'] * real)
        assert set(row['val']) == {'miou', 'f1', 'oa'}
        assert set(row['test']) == {'miou', 'f1', 'oa', 'per_class'}
        assert 0 <= row['test']['miou'] <= row['test']['f1'] <= 1
        assert row['setting']['steps'] in (4, 6)
    arms = {(row['arm'], row['ratio'], row['seed']): row['test']['miou'] for row in rows}
    assert arms['flips', 2.0, 0] != arms['flips only', 2.0, 0]
    fidelity = json.loads(next((tmp_path / 'fidelity').glob('*two-stream*')).read_text())
    assert fidelity['kind'] == 'segmentation'
    assert fidelity['reconstruction']['rmse'] > 0
    draw_shown(shown_samples(plan, tmp_path), tmp_path)
    text = write_report(tmp_path).markdown.read_text()
    assert 'mIoU %' in text
    assert 'FID to training' in text
    assert 'pairs-simulated-16_px-two-stream.png' in text


def test_spectra_and_patches_do_not_mix() -> None:
    with pytest.raises(ValueError, match='cannot be in one study'):
        study(classifiers=(Classifier(),))
    with pytest.raises(ValueError, match=r"kind \['segmentation', 'spectrum'\] cannot be in one study"):
        study(classifiers=(Segmenter(), Classifier()))
    with pytest.raises(ValueError, match='cannot be in one study'):
        study(settings=(Setting('simulated', 'x', RandomSplit()),))
    with pytest.raises(ValueError, match=r'LabelledPatchSplitter of setting .x. cannot be in one study'):
        study(settings=(Setting('simulated', 'x', LabelledPatchSplitter(size=16, patch=8)),))
