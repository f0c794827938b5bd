"""The study of unmixing before fusion: its rivals, its claims, its arms, its scene."""

import argparse
import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from mixtures import mixtures

from hsiaug.ablation.arms import scene_arms
from hsiaug.records import short_digest
from hsiaug.systems.unmixing_fusion.abundances.train import AbundanceConfig
from hsiaug.systems.unmixing_fusion.unmixing.train import UnmixingConfig, train_unmixing

sys.path.insert(0, str(Path(__file__).parents[2] / 'benchmarks'))

import unmixing_fusion_data as scenes
import unmixing_fusion_rivals as rivals
import unmixing_fusion_tables as tables

DATA = mixtures(24, kind='scene')
CONFIG = UnmixingConfig.small(endmembers=3, widths=(8, 8, 12, 8, 8), steps=60, learning_rate=1e-2)


def test_rivals_learn_to_restore_images() -> None:
    network = train_unmixing(DATA.x, DATA.spec.wavelengths, CONFIG)
    std = float(DATA.x.std(dim=(0, 2, 3)).mean())
    weights = {name: value.clone() for name, value in network.state_dict().items()}
    for make, channels in ((rivals.autoencoder, 3), (rivals.reconstruction, DATA.spec.bands)):
        rival = rivals.train_rival(make, network, DATA.x, CONFIG, 0)
        code = rival.abundances(DATA.x)
        assert code.shape[1] == channels
        assert float((rival.mix(code) - DATA.x).square().mean().sqrt()) < 0.7 * std
        again = rivals.train_rival(make, network, DATA.x, CONFIG, 0)
        assert torch.equal(again.abundances(DATA.x), code)
    assert all(torch.equal(value, weights[name]) for name, value in network.state_dict().items())


def test_free_diffusion_leaves_the_simplex() -> None:
    maps = 3 + 2 * torch.rand((12, 2, 8, 8), generator=torch.Generator().manual_seed(0))
    config = AbundanceConfig('diffusion', {'channels': [8], 'sampling_steps': 4}, iterations=30, batch_size=4)
    model = rivals.train_free_diffusion(maps, torch.arange(12) % 3, 3, config, 0, 'cpu')
    drawn = model.sample(20, torch.arange(20) % 3, torch.Generator().manual_seed(0))
    assert abs(float(drawn.mean()) - 4) < 1
    assert float(drawn.sum(dim=1).std()) > 0.1


def test_the_mixtures_pixels_know_nothing_of_each_other() -> None:
    labels = torch.tensor([0, 1, 2] * 6)
    image = rivals.gaussian_images(DATA, 2, labels, 0)
    assert image.shape == (18, *DATA.x.shape[1:])
    for k in range(3):
        ratio = image[labels == k].mean(dim=(0, 2, 3)) / DATA.x[DATA.y == k].mean(dim=(0, 2, 3))
        assert torch.allclose(ratio, torch.ones_like(ratio), atol=0.2)
    inside = image - image.mean(dim=(2, 3), keepdim=True)
    assert abs(float((inside[..., 1:] * inside[..., :-1]).mean() / inside.square().mean())) < 0.1


def rows(seeds: int, gap: float) -> list[tables.Row]:
    rng = np.random.default_rng(0)
    return [
        {'scene': 'a', 'seed': seed, 'method': method, 'fid': float(np.exp(offset + rng.normal(0, 0.1)))}
        for seed in range(seeds)
        for method, offset in (('VAE', 0.0), ('style GAN', -gap))
    ]


@pytest.mark.parametrize(
    ('seeds', 'gap', 'result'),
    [(10, 0.7, 'holds'), (10, -0.7, 'refuted'), (10, 0.0, 'open'), (3, 0.7, 'too few seeds')],
)
def test_claims_are_decided_by_paired_seeds(seeds: int, gap: float, result: str) -> None:
    (decided,) = tables.decisions(rows(seeds, gap), [tables.Claim('style GAN', 'VAE', 'fid', 1)])
    assert decided.result == result
    assert abs(decided.difference.mean - gap) < 0.15  # a lower distance is better
    assert result in '\n'.join(tables.results([decided]))


def test_a_cell_is_known_by_all_that_it_depends_on() -> None:
    effort = tables.Effort({'vae': {'iterations': 3}, 'diffusion': {'iterations': 3}}, {'steps': 4}, alone=())
    longer = tables.Effort({'vae': {'iterations': 4}, 'diffusion': {'iterations': 3}}, {'steps': 4}, alone=())
    vae, real = (tables.Method(name, make, (1,), 'vae') for name, make in (('VAE', 'fusion'), ('real', 'real')))
    key = lambda *of: short_digest(tables.cell(*of))  # noqa: E731
    assert key('a', 0, vae, effort) == key('a', 0, vae, effort)
    assert key('a', 0, vae, effort) != key('a', 1, vae, effort)
    assert key('a', 0, vae, effort) != key('a', 0, vae, longer)
    assert key('a', 0, real, effort) == key('a', 0, real, longer)


def test_tables_are_measured_and_resumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    monkeypatch.setattr(
        tables, 'Bench', lambda root, rgb, out, scene, seed, *rest: argparse.Namespace(scene=scene, seed=seed)
    )
    monkeypatch.setattr(tables, 'measured', lambda bench, method: calls.append(method.name) or {'fid': 1.0})
    effort = tables.Effort({'vae': {}, 'style_gan': {}, 'diffusion': {}}, {'steps': 4}, (3, 5), ('diffusion',))
    wanted = tables.methods(effort)
    for _ in range(2):
        rows = tables.experiment([('a', 0), ('a', 1)], tmp_path, tmp_path, tmp_path, effort, wanted, 'cpu').run(
            tmp_path, progress=False
        )
    assert [(row['seed'], row['method']) for row in rows] == [(seed, m.name) for seed in (0, 1) for m in wanted]
    assert calls == 2 * [m.name for m in wanted]


def test_arms_are_there_when_asked_for() -> None:
    plain = [arm.name for arm in scene_arms()]
    assert not any('unmixing' in name for name in plain)
    arms = {arm.name: arm for arm in scene_arms(fusion={'masks': 'dominant'}, rgb='folder')}
    assert set(arms) - set(plain) == {'unmixing', 'unmixing + RGB'}
    assert arms['unmixing + RGB'].settings == {'masks': 'dominant', 'rgb': 'folder'}
    json.dumps([arm.settings for arm in arms.values()])


@pytest.mark.skipif('HSIAUG_DATA' not in os.environ, reason='HSIAUG_DATA names the folder of the real scenes')
def test_places_share_their_bands() -> None:
    scene = scenes.places(Path(os.environ['HSIAUG_DATA']))
    assert sorted(np.unique(scene.labels)) == [1, 2, 3]
    centres = scene.band_wavelengths
    assert centres is not None
    oxygen = int(np.abs(centres - 761).argmin())
    for tile in scene.cube.reshape(8, 100, 100, -1):
        mean = tile.mean(axis=(0, 1))
        assert 1.2 * mean[oxygen] < min(mean[oxygen - 2], mean[oxygen + 2])
        assert np.quantile(tile, 0.99) == pytest.approx(1, abs=0.01)
