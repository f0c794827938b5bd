"""Rivals of unmixing before fusion, and the scene that all are measured on."""

import argparse
import os
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from mixtures import mixtures

from hsiaug.ablation import Experiment
from hsiaug.systems.unmixing_fusion.abundances.train import AbundanceConfig
from hsiaug.systems.unmixing_fusion.unmixing.train import UnmixingConfig, train_unmixing

sys.path.insert(0, str(Path(__file__).parents[2] / 'benchmarks'))

import unmixing_fusion as bench

DATA = mixtures(24, kind='scene')
CONFIG = UnmixingConfig.small(endmembers=3, widths=(8, 8, 12, 8, 8), steps=60, learning_rate=1e-2)


def test_rivals_learn_to_restore_images() -> None:
    network = train_unmixing(DATA.x, DATA.spec.wavelengths, CONFIG)
    std = float(DATA.x.std(dim=(0, 2, 3)).mean())
    weights = {name: value.clone() for name, value in network.state_dict().items()}
    for make, channels in ((bench.autoencoder, 3), (bench.reconstruction, DATA.spec.bands)):
        rival = bench.train_rival(make, network, DATA.x, CONFIG, 0)
        code = rival.abundances(DATA.x)
        assert code.shape[1] == channels
        assert float((rival.mix(code) - DATA.x).square().mean().sqrt()) < 0.7 * std
        again = bench.train_rival(make, network, DATA.x, CONFIG, 0)
        assert torch.equal(again.abundances(DATA.x), code)
    assert all(torch.equal(value, weights[name]) for name, value in network.state_dict().items())


def test_free_diffusion_leaves_the_simplex() -> None:
    maps = 3 + 2 * torch.rand((12, 2, 8, 8), generator=torch.Generator().manual_seed(0))
    config = AbundanceConfig('diffusion', {'channels': [8], 'sampling_steps': 4}, iterations=30, batch_size=4)
    model = bench.train_free_diffusion(maps, torch.arange(12) % 3, 3, config, 0, 'cpu')
    drawn = model.sample(20, torch.arange(20) % 3, torch.Generator().manual_seed(0))
    assert abs(float(drawn.mean()) - 4) < 1
    assert float(drawn.sum(dim=1).std()) > 0.1


def test_the_mixtures_pixels_know_nothing_of_each_other() -> None:
    labels = torch.tensor([0, 1, 2] * 6)
    image = bench.gaussian_images(DATA, 2, labels, 0)
    assert image.shape == (18, *DATA.x.shape[1:])
    for k in range(3):
        ratio = image[labels == k].mean(dim=(0, 2, 3)) / DATA.x[DATA.y == k].mean(dim=(0, 2, 3))
        assert torch.allclose(ratio, torch.ones_like(ratio), atol=0.2)
    inside = image - image.mean(dim=(2, 3), keepdim=True)
    assert abs(float((inside[..., 1:] * inside[..., :-1]).mean() / inside.square().mean())) < 0.1


def test_scores_of_all_methods_are_measured_and_resumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    found = DATA.x[:12]
    split = argparse.Namespace(
        real=found.flip(0), trained_on=found, encoder=lambda x: x.mean(dim=(2, 3)), unmixing=argparse.Namespace(scale=1)
    )
    monkeypatch.setattr(bench, 'bench_of', lambda *of: calls.append(of[3]) or split)
    monkeypatch.setattr(
        bench, 'METHODS', {'real': lambda _: (found, None), 'noisy': lambda _: (found.rot90(dims=(2, 3)), found)}
    )
    cells = [bench.Cell('a', seed, method) for seed in (0, 1) for method in bench.METHODS]
    measure = partial(bench.measure, root=tmp_path, out=tmp_path, scale='quick', device='cpu')
    for _ in range(2):
        rows = Experiment('rivals', cells, measure).run(tmp_path, progress=False)
    assert calls == [0, 0, 1, 1]
    assert [(row['seed'], row['method']) for row in rows] == [(cell.seed, cell.method) for cell in cells]
    assert rows[0]['fid'] == rows[0]['fid_train'] == pytest.approx(0, abs=1e-9)
    assert rows[0]['edges'] == rows[0]['recall'] == 1
    assert 'rmse' not in rows[0]
    assert rows[1]['sad'] > 0


@pytest.mark.skipif('HSIAUG_DATA' not in os.environ, reason='HSIAUG_DATA names the folder of the real scenes')
def test_places_share_their_bands() -> None:
    scene = bench.places(Path(os.environ['HSIAUG_DATA']))
    assert sorted(np.unique(scene.labels)) == [1, 2, 3]
    centres = scene.band_wavelengths
    assert centres is not None
    oxygen = int(np.abs(centres - 761).argmin())
    for tile in scene.cube.reshape(8, 100, 100, -1):
        mean = tile.mean(axis=(0, 1))
        assert 1.2 * mean[oxygen] < min(mean[oxygen - 2], mean[oxygen + 2])
        assert np.quantile(tile, 0.99) == pytest.approx(1, abs=0.01)
