"""Huang et al.: super-resolution of real pairs of images by residual learning and a discriminator."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from ..datasets import PatchDataset
from ..datasets.real.patches import CoarseWindows, read_coarse_windows, read_windows
from ..functional.degradation import degrade
from ..metrics.super_resolution import super_resolution_scores
from ..named_configs import published_config
from ..scenes import PatchSplit, PatchSplitter, Scene
from ..scenes.config import SceneConfig
from ..systems.data import training_data
from ..systems.training_data import TrainingData
from .base import Drawing, Files, Paper, Scale, Table, Values, Work, kept, picture_row

NETWORKS = {
    'bicubic': 'Bicubic',
    'srcnn': 'SRCNN',
    'srgan': 'SRGAN',
    'msrresnet': 'MSRResNet',
    'msrresgan': 'MSRResGAN',
}
STANDS_IN = 'Jasper Ridge, degraded'
CHUNK = 32  # windows at a time


@kept
def _pair(work: Work, name: str) -> Scene:
    """A scene of high resolution with its counterpart of low resolution."""
    paths = [str(path) for path in work.found[name]]
    if name != STANDS_IN:
        return SceneConfig(path=paths[0], coarse=paths[1], name=name, one_class=True)()
    scene, config = SceneConfig(path=paths[0], name=name, one_class=True)(), published_config('msrresgan')
    spectra = torch.from_numpy(scene.spectra(np.arange(scene.shape[0] * scene.shape[1])))
    low = degrade(spectra.T.reshape(1, -1, *scene.shape), config['settings']['factor'], 0.3)[0]
    coarse = Scene(f'{name}, coarse', low.movedim(0, -1).numpy().astype(np.float32))
    fine = Scene(name, spectra.reshape(*scene.shape, -1).numpy(), unit=scene.unit)
    return replace(fine, coarse=coarse).as_one_class()


def _split(work: Work, name: str, seed: int) -> PatchSplit:
    settings = {**published_config('msrresgan')['split']['settings'], **work.settings['split']}
    return PatchSplitter(**settings)(_pair(work, name), seed)


def _trained(work: Work, name: str, network: str, split: PatchSplit, seed: int) -> Any:
    settings = {**published_config('msrresgan')['settings'], **work.settings['training'], 'network': network}
    scene = _pair(work, name)
    data = training_data(scene, split)
    data = _on_coarse_grid(data, scene, split) if network == 'srgan' else data
    return work.generator(f'{name.replace(" ", "_")}-{network}', 'msrresgan', data, settings, seed)


def _on_coarse_grid(data: TrainingData, scene: Scene, split: PatchSplit) -> TrainingData:
    """The same windows for SRGAN, which interpolates by itself: whole coarse pixels, and the fine ones in them."""
    assert data.coarse is not None
    assert scene.coarse is not None
    k, corners = data.coarse.factor, -(-split.train // data.coarse.factor)
    side = (split.size - int((corners * k - split.train).max())) // k
    low = read_windows(replace(scene.coarse, bands=scene.bands), corners, side)
    return replace(
        data, spec=replace(data.spec, size=(k * side,) * 2), x=read_windows(scene, k * corners, k * side),
        y=data.y[:, : k * side, : k * side], coarse=CoarseWindows(low, k), val_coarse=None,
    )  # fmt: skip


@torch.no_grad()
def _restored(generator: Any, scene: Scene, corners: np.ndarray, size: int) -> Tensor:
    """Windows (n, C, H, W) by a network, interpolated before they are cut; SRGAN's are cut out of its whole image."""
    if hasattr(generator.network, 'restore'):
        image = read_coarse_windows(scene, corners, size).image
        return torch.cat([generator.restore(part.to(generator.device)).cpu() for part in image.split(CHUNK)])
    assert scene.coarse is not None
    low = replace(scene.coarse, bands=scene.bands).spectra(np.arange(scene.coarse.num_pixels)).T
    whole = generator.super_resolve(torch.from_numpy(low.reshape(-1, *scene.coarse.shape).copy()))
    return torch.stack([whole[:, row : row + size, column : column + size] for row, column in corners.tolist()])


def _scores(work: Work, name: str, network: str, seed: int) -> Mapping[str, float]:
    """Scores on the test half, whose windows are cut after interpolation, as in training."""
    scene, split = _pair(work, name), _split(work, name, seed)

    def measure() -> dict[str, float]:
        generator = _trained(work, name, network, split, seed)
        high = PatchDataset.from_scene(scene, split, 'test').image
        found = _restored(generator, scene, split.test_windows, split.size)
        return dataclasses.asdict(super_resolution_scores(found, high, generator.factor))

    scores = work.scored(['Table 1', name, split.fingerprint, network, seed], measure)
    return {metric: 1000 * score if metric == 'sid' else score for metric, score in scores.items()}


def score_table(work: Work) -> Values:
    """Table 1."""
    rows = {f'{name}: {NETWORKS[n]}': partial(_scores, work, name, n) for name in work.found for n in NETWORKS}
    return work.measured(rows, {'MRAE': 'mrae', 'SID': 'sid', 'PSNR (dB)': 'psnr', 'SSIM': 'ssim'})


# --- figures ----------------------------------------------------------------------------------------------------------


def _shown(work: Work, name: str) -> tuple[Tensor, dict[str, Any], dict[str, Tensor]]:
    """The test window of most contrast (1, C, H, W), the first seed's networks, and what each makes of it."""
    scene, split = _pair(work, name), _split(work, name, 0)
    high = PatchDataset.from_scene(scene, split, 'test').image
    at = int(high.std(dim=(2, 3)).mean(dim=1).argmax())
    networks = {n: _trained(work, name, n, split, 0) for n in NETWORKS}
    corners = split.test_windows[at : at + 1]
    return high[at : at + 1], networks, {n: _restored(one, scene, corners, split.size) for n, one in networks.items()}


def draw_learned(work: Work) -> Iterator[tuple[str, Figure]]:
    """Fig. 2, of band 40 or the last one."""
    for name in work.found:
        _, networks, restored = _shown(work, name)
        generator, interpolated = networks['msrresgan'], restored['bicubic']
        band, residual = min(39, interpolated.shape[1] - 1), restored['msrresgan'] - interpolated
        with torch.no_grad():
            gradient = generator.network.learned_gradient(generator.normalise(interpolated.to(generator.device))).cpu()
        pictures = {'learned residual image': residual[0, band], 'learned gradient image': gradient[0, band]}
        yield f'band {band + 1}, {name}', picture_row(pictures)


def draw_results(work: Work) -> Iterator[tuple[str, Figure]]:
    """Fig. 4, of band 40 or the last one."""
    for name in work.found:
        high, _, restored = _shown(work, name)
        band = min(39, high.shape[1] - 1)
        pictures = {NETWORKS[n]: found[0, band] for n, found in restored.items()}
        yield f'band {band + 1}, {name}', picture_row({**pictures, 'high resolution': high[0, band]}, common=True)


_SOURCE = (
    'HiWATER airborne imaging over Zhangye, National Tibetan Plateau Data Center, https://data.tpdc.ac.cn; the paper '
    'names no files: cut both images to one area and save them under these names, in any format that hsiaug reads'
)
_SMALL = {
    'width': 32, 'blocks': 2, 'gradient_iterations': 150, 'iterations': 400, 'batch_size': 4, 'discriminator_width': 16,
}  # fmt: skip
_DEMO = {'width': 4, 'blocks': 1, 'gradient_iterations': 3, 'iterations': 5, 'batch_size': 2, 'discriminator_width': 4}
_SETTINGS: dict[Scale, dict[str, Any]] = {
    'paper': {'seeds': 5, 'training': {}, 'split': {}},
    'small': {'seeds': 2, 'training': _SMALL, 'split': {'size': 20, 'stride': 5}},
    'demo': {'seeds': 2, 'training': _DEMO, 'split': {'size': 20, 'stride': 20}},
}

MSRRESGAN = Paper(
    name='msrresgan',
    citation='Huang, Li, Hu, Tao: Hyperspectral Image Super-Resolution Using Generative Adversarial Network and '
    'Residual Learning, ICASSP 2019',
    files=(
        Files('SWIR', ('HR_SWIR.*', 'LR_SWIR.*'), _SOURCE),
        Files('VNIR', ('HR_VNIR.*', 'LR_VNIR.*'), _SOURCE),
        Files(STANDS_IN, ('jasper_ridge.npz',), 'the unmixing benchmark of that name', stands_in=True),
    ),
    tables=(
        Table(
            1, 'Super-resolution of real pairs by a factor of 5', ('MRAE', 'SID', 'PSNR (dB)', 'SSIM'),
            {
                'SWIR: Bicubic': (0.1256, 31.4386, 43.7679, 0.9016),
                'SWIR: SRCNN': (0.0812, 10.6691, 49.4285, 0.9872),
                'SWIR: SRGAN': (0.0677, 10.8887, 48.9640, 0.9832),
                'SWIR: MSRResNet': (0.0492, 4.6164, 51.6164, 0.9953),
                'SWIR: MSRResGAN': (0.0372, 2.8824, 52.6751, 0.9959),
                'VNIR: Bicubic': (0.1661, 27.3275, 46.5987, 0.9929),
                'VNIR: SRCNN': (0.1388, 21.7286, 47.3267, 0.9952),
                'VNIR: SRGAN': (0.2385, 40.5758, 44.9196, 0.9567),
                'VNIR: MSRResNet': (0.1257, 18.3422, 47.9100, 0.9949),
                'VNIR: MSRResGAN': (0.1205, 17.2523, 48.1036, 0.9949),
            },
            score_table, digits=4, configs=('msrresgan',),
            note='The unit of the text\'s SID is not given; ours is the mean over pixels in 1e-3. SRGAN learns from '
            'whole coarse pixels of the same windows, by squared error instead of features of VGG. Batch size and '
            'numbers of steps are of our choice.', otherwise=('SID',),
        ),
    ),
    figures=(
        Drawing(2, 'Learned residual and gradient: the paper sees clearer details in the gradient', draw_learned),
        Drawing(4, 'Band 40 by every network: the paper sees most details with MSRResGAN', draw_results),
    ),
    settings=_SETTINGS,
    note='Figures 1 and 3 show networks.',
)  # fmt: skip
