"""Super-resolution studied: as augmentation of image-mask pairs, and by its own scores."""

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from scipy.ndimage import distance_transform_cdt

from hsiaug.ablation import Segmenter, Setting, Study, run_study
from hsiaug.functional.degradation import degrade, upsample
from hsiaug.metrics.super_resolution import super_resolution_scores
from hsiaug.scenes import PatchSplitter, Scene, SimulatedScene
from hsiaug.systems.msrresgan.train import SuperResolutionConfig
from hsiaug.trainers.segmentation import SegmenterConfig

sys.path.insert(0, str(Path(__file__).parents[2] / 'benchmarks'))
import super_resolution as table
from msrresgan import super_resolution_arms
from super_resolution import draw_table

TINY: dict[str, Any] = {
    'width': 4, 'blocks': 1, 'gradient_iterations': 2, 'iterations': 3, 'batch_size': 2, 'discriminator_width': 2,
}  # fmt: skip


def simulated() -> SimulatedScene:
    return SimulatedScene(64, 64, np.linspace(450, 2400, 6), classes=3, patch=4)


def test_super_resolution_augments_a_segmentation_network(tmp_path: Path) -> None:
    arms = super_resolution_arms(TINY)
    assert [arm.name for arm in arms if not arm.control] == ['zoom', 'jitter']
    plan = Study(
        title='zoom',
        scenes={'simulated': simulated},
        settings=(Setting('simulated', '16 px', PatchSplitter(size=16, stride=8, regions='halves')),),
        arms=arms,
        ratios=(1.0,),
        seeds=(0,),
        classifiers=(Segmenter('tiny', SegmenterConfig('segformer', 'mit_tiny', channels=16, batch_size=4, steps=3)),),
        fidelity_seeds=0,
    )
    run_study(plan, tmp_path, progress=False)
    rows = [json.loads(line) for line in (tmp_path / 'results.jsonl').read_text().splitlines()]
    assert {row['arm'] for row in rows} == {'real', *(arm.name for arm in arms)}
    assert all(row['train_synthetic'] == row['ratio'] * row['train_real'] for row in rows)
    scores = {row['arm']: row['test'] for row in rows}
    assert scores['zoom'] != scores['zoom, bicubic']
    assert scores['zoom'] != scores['jitter']


@pytest.fixture
def scenes(monkeypatch: pytest.MonkeyPatch) -> None:
    cube = simulated().cube
    monkeypatch.setattr(table, 'SCENES', {'simulated': lambda root: Scene('simulated', cube)})


def planned(seeds: int = 1) -> list[table.Cell]:
    return table.cells(['simulated'], [2, 4], SuperResolutionConfig(**TINY), 16, seeds)


def test_the_table_is_measured_resumed_and_drawn(tmp_path: Path, scenes: None) -> None:
    cells = planned(2)
    assert len(cells) == len({cell.key for cell in cells}) == 2 * 2 * len(table.NETWORKS)
    rows = table.experiment(cells[:10], tmp_path, tmp_path).run(tmp_path, progress=False)
    before = (tmp_path / 'results.jsonl').read_bytes()
    assert table.experiment(cells[:10], tmp_path, tmp_path).run(tmp_path, progress=False) == rows
    assert (tmp_path / 'results.jsonl').read_bytes() == before  # there was nothing to do
    assert [row['cell'] for row in rows] == [cell.key for cell in cells[:10]]
    by_network = {row['network']: row for row in rows if row['factor'] == 2}
    assert by_network['bicubic']['weights'] == 0
    assert by_network['msrresgan']['weights'] > 2 * by_network['msrresnet']['weights'] > 0
    assert len({row['split'] for row in rows}) == 1
    # A row by hand: interpolation of the degraded test windows.
    scene = table.open_scene(tmp_path, 'simulated')
    test = table.PatchDataset.from_scene(scene, table.splitter('simulated', 16)(scene, 0), 'test').image
    expected = super_resolution_scores(upsample(degrade(test, 2), 2), test, 2)
    assert by_network['bicubic']['psnr'] == pytest.approx(expected.psnr, rel=1e-6)
    assert by_network['bicubic']['sam'] == pytest.approx(expected.sam, rel=1e-4)
    kept = load_file(tmp_path / 'pictures' / f'{cells[0].key}.safetensors')
    assert any(torch.equal(kept['original'][0], window) for window in test)
    assert not (tmp_path / 'training' / cells[4].key).exists()
    paths = draw_table(cells, tmp_path)
    assert [path.name for path in paths if 'errors' in path.name] == [
        'errors-simulated-factor-2.png', 'errors-simulated-factor-4.png',
    ]  # fmt: skip
    assert len(paths) == 4
    assert all(path.stat().st_size > 10_000 for path in paths)


def rows_of(psnr: dict[str, list[float]], sam: dict[str, list[float]]) -> list[dict[str, Any]]:
    same = {'scene': 's', 'factor': 2, 'bands': 3, 'train_windows': 5, 'test_windows': 2, 'weights': 1}
    more = {'train_pixels': 100, 'test_pixels': 50, 'mrae': 0.1, 'sid': 0.1, 'ssim': 0.9, 'ergas': 1.0}
    return [
        {**same, **more, 'network': network, 'seed': seed, 'psnr': value, 'sam': np.radians(sam[network][seed])}
        for network, values in psnr.items()
        for seed, value in enumerate(values)
    ]


def test_the_order_is_shown_refuted_or_left_open() -> None:
    seeds = np.arange(12)
    noise = np.sin(seeds)
    psnr = {
        'bicubic': list(30 + noise), 'srcnn': list(28 + noise + 0.1 * np.cos(seeds)), 'srgan': list(25 + noise),
        'msrresnet': list(33 + noise + 0.1 * np.cos(3 * seeds)), 'msrresgan': list(33 + noise + np.cos(7 * seeds)),
    }  # fmt: skip
    sam = {network: [4.0 - value / 10 for value in values] for network, values in psnr.items()}
    rows = rows_of(psnr, sam)
    verdicts = {(s['metric'], s['first'], s['second']): s['result'] for s in table.steps(rows)}
    for metric in ('psnr', 'sam'):  # of the second, less is better
        assert verdicts[metric, 'msrresgan', 'msrresnet'] == 'open'
        assert verdicts[metric, 'msrresnet', 'srcnn'] == 'shown'
        assert verdicts[metric, 'srcnn', 'bicubic'] == 'refuted'
    gain = next(s for s in table.against_bicubic(rows) if (s['metric'], s['first']) == ('psnr', 'srgan'))
    assert gain['difference'].mean == pytest.approx(-5)
    angle = next(s for s in table.against_bicubic(rows) if (s['metric'], s['first']) == ('sam', 'srgan'))
    assert angle['difference'].mean == pytest.approx(-0.5)  # half a degree worse
    few = [row for row in rows if row['seed'] < 3]
    assert {s['result'] for s in table.steps(few)} == {'open'}
    lonely = [row for row in rows if row['network'] in ('bicubic', 'msrresnet')]
    assert table.steps(lonely) == []
    text = table.markdown(rows)
    assert '| srgan | 12 | 1 | 0.1 | 100 | 25' in text
    assert '| s | 2 | PSNR | srcnn − bicubic | 12 | -2.0' in text


@pytest.mark.parametrize('name', ['houston18', 'jasper_ridge', 'salinas_a', 'abu'])
def test_real_scenes_split_without_overlap(name: str, real_data: Path) -> None:
    scene = table.open_scene(real_data, name)
    split = table.splitter(name, 24)(scene, 3)
    parts = [set(split.pixels(part).tolist()) for part in ('train', 'val', 'test')]
    assert not parts[0] & parts[2]
    assert len(parts[0]) > 1500
    assert len(parts[2]) >= 3 * 24 * 24
    assert np.isfinite(scene.spectra(split.test[:100])).all()
    if name == 'abu':  # whole scenes test
        assert scene.groups is not None
        tiles = [set(scene.groups.reshape(-1)[list(part)].tolist()) for part in parts]
        assert not tiles[0] & tiles[2]
        assert scene.wavelengths_approximate
    else:  # a buffer of two pixels
        trained = np.zeros(scene.shape, dtype=bool)
        trained.reshape(-1)[list(parts[0])] = True
        gaps = distance_transform_cdt(~trained, 'chessboard').reshape(-1)[list(parts[2])]
        assert gaps.min() > 2


def test_a_cell_differs_by_setting_and_seed() -> None:
    cell = planned()[0]
    others = [replace(cell, seed=1), replace(cell, size=24), replace(cell, config=replace(cell.config, factor=3))]
    assert len({cell.key, *(other.key for other in others)}) == 4
