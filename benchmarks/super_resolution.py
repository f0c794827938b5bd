"""MSRResGAN and its baselines measured on real scenes: cells, statistics, tables and figures."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise, product
from operator import itemgetter
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from real_scenes import AVIRIS_NM, _load, houston18, jasper_ridge, salinas_a
from safetensors.torch import load_file, save_file
from torch import Tensor

from hsiaug.ablation import Experiment
from hsiaug.ablation.experiment import Columns, markdown_table, records_table
from hsiaug.ablation.statistics import holm, paired_comparison
from hsiaug.datasets import PatchDataset
from hsiaug.engine import Run
from hsiaug.functional.degradation import degrade
from hsiaug.metrics.super_resolution import super_resolution_scores
from hsiaug.records import short_digest
from hsiaug.report.ablation import interval
from hsiaug.reproduce.base import picture_row
from hsiaug.samples import require_unseen
from hsiaug.scenes import PatchSplitter, Scene
from hsiaug.systems.msrresgan.model import CHUNK
from hsiaug.systems.msrresgan.network import Network
from hsiaug.systems.msrresgan.train import SuperResolutionConfig, train_super_resolution
from hsiaug.trainers import training_data

NETWORKS: tuple[Network, ...] = ('bicubic', 'srcnn', 'srgan', 'msrresnet', 'msrresgan')
ORDER: tuple[Network, ...] = ('msrresgan', 'msrresnet', 'srcnn', 'bicubic')
"""Order claimed by the paper, best first."""
METRICS = {
    'mrae': 'MRAE',
    'sid': 'SID (1e-3)',
    'psnr': 'PSNR (dB)',
    'ssim': 'SSIM',
    'sam': 'SAM (deg)',
    'ergas': 'ERGAS',
}
PRIMARY = ('psnr', 'sam')
HIGHER = ('psnr', 'ssim')  # higher is better; for the others, lower
ABU = (
    'abu-airport-1', 'abu-airport-2', 'abu-airport-3', 'abu-beach-1', 'abu-urban-1', 'abu-urban-2', 'abu-urban-3',
    'abu-urban-4', 'sandiego',
)  # fmt: skip
ABU_BANDS = 96
SHOWN = 4  # test windows kept for figures
Row = dict[str, Any]


def abu(root: Path) -> Scene:
    """Nine AVIRIS scenes on one grid of bands; split by scenes.

    The files do not say which of the sensor's 224 bands their 188 to 207 bands are; they are assumed to be spread
    evenly over the sensor's range. The grid may therefore be wrong by up to about 100 nm, which does not matter for
    super-resolution: every band is an image of the same place, and no spectra are compared across sensors.
    """
    grid, tiles = np.linspace(AVIRIS_NM[0], AVIRIS_NM[-1], ABU_BANDS), []
    for name in ABU:
        cube = _load(root / 'abu_anomaly' / f'{name}.npz')['cube'][:100, :100].astype(np.float32)
        place = np.interp(grid, np.linspace(grid[0], grid[-1], cube.shape[2]), np.arange(cube.shape[2]))
        low = np.minimum(place.astype(np.int64), cube.shape[2] - 2)
        share = (place - low).astype(np.float32)
        tiles.append((1 - share) * cube[..., low] + share * cube[..., low + 1])
    return Scene.from_tiles('abu', np.stack(tiles), wavelengths=grid, wavelengths_approximate=True, unit='radiance')


SCENES = {'houston18': houston18, 'jasper_ridge': jasper_ridge, 'salinas_a': salinas_a, 'abu': abu}


def splitter(scene: str, size: int) -> PatchSplitter:
    """Windows of a scene; test data are whole scenes of ABU, and half of each other one, two pixels from training.

    Nothing is chosen on validation windows, which are as few as possible. A scene has eight such splits; with more
    seeds, splits repeat with other initialisations.
    """
    if scene == 'abu':
        return PatchSplitter(size=size, stride=size // 2, val_fraction=0.1, regions='groups')
    return PatchSplitter(size=size, stride=size // 4, val_fraction=0.05, regions='halves', buffer=2)


def open_scene(root: Path, name: str) -> Scene:
    """A scene labelled by the parity of its columns: super-resolution needs no labels, but the splitter two classes."""
    scene = SCENES[name](root)
    parity = np.broadcast_to(1 + np.arange(scene.shape[1]) % 2, scene.shape)
    return replace(scene, labels=parity, class_names={1: 'even column', 2: 'odd column'})


@dataclass(frozen=True)
class Cell:
    """One network, trained and measured on one split of one scene.

    Args:
        scene: name in :data:`SCENES`.
        config: of the training; it holds network and factor.
        size: side of a window.
        seed: of split and training.
    """

    scene: str
    config: SuperResolutionConfig
    size: int
    seed: int

    @property
    def key(self) -> str:
        """Stem of its files."""
        return short_digest(self)


def cells(
    scenes: Sequence[str], factors: Sequence[int], config: SuperResolutionConfig, size: int, seeds: int
) -> list[Cell]:
    """All cells, seed by seed, so that the results of an interrupted run are paired."""
    assert set(NETWORKS) == set(get_args(Network))
    return [
        Cell(scene, replace(config, network=network, factor=factor), size, seed)
        for seed in range(seeds)
        for scene in scenes
        for factor in factors
        for network in NETWORKS
    ]


@torch.no_grad()
def restored(generator: Any, high: Tensor, config: SuperResolutionConfig) -> Tensor:
    """(n, C, H, W) test windows, degraded and super-resolved; borders included for all networks."""
    low = degrade(high, config.factor, config.mtf)
    return torch.cat([generator(part.to(generator.device)).cpu() for part in low.split(CHUNK)])


def measure(cell: Cell, root: Path, out: Path, device: str) -> Row:
    """Train and measure one network; pictures of the first seed are kept."""
    scene = open_scene(root, cell.scene)
    split = splitter(cell.scene, cell.size)(scene, cell.seed)
    data, test = training_data(scene, split), PatchDataset.from_scene(scene, split, 'test')
    folder = out / 'training' / cell.key
    generator = train_super_resolution(data, cell.config, Run(cell.seed, device=device, folder=folder))
    if folder.exists():
        folder.rmdir()  # checkpoints are removed at the end of a training
    require_unseen(generator.provenance, split.scene, split.test)
    image = restored(generator, test.image, cell.config)
    scores = super_resolution_scores(image, test.image, cell.config.factor)
    if cell.seed == 0:
        at = np.unique(np.linspace(0, len(image) - 1, SHOWN).astype(np.int64))
        (out / 'pictures').mkdir(parents=True, exist_ok=True)
        kept = {'restored': image[at].contiguous(), 'original': test.image[at].contiguous()}
        save_file(kept, out / 'pictures' / f'{cell.key}.safetensors')
    return {
        'factor': cell.config.factor, 'network': cell.config.network, 'split': split.fingerprint,
        'train_windows': len(data.x), 'test_windows': len(test), 'train_pixels': len(split.pixels('train')),
        'test_pixels': len(split.test), 'bands': data.spec.bands,
        'weights': sum(p.numel() for p in generator.network.parameters()), **dataclasses.asdict(scores),
    }  # fmt: skip


def experiment(planned: Sequence[Cell], root: Path, out: Path, device: str = 'cpu') -> Experiment:
    """The table; trainings of an interrupted run resume from checkpoints."""
    out = out.absolute()
    return Experiment('Super-resolution of real cubes', planned, partial(measure, root=root, out=out, device=device))


# --- statistics -----------------------------------------------------------------------------------------------------


def steps(rows: Sequence[Row]) -> list[Row]:
    """The claimed order step by step, corrected by Holm over all scenes, factors and both metrics."""
    found = _comparisons(rows, list(pairwise(ORDER)))
    for step, p in zip(found, holm([step['difference'].p for step in found]), strict=True):
        shown = p < 0.05 and step['difference'].basis_for_claims
        step['p'], step['result'] = p, ('shown' if step['difference'].mean > 0 else 'refuted') if shown else 'open'
    return found


def against_bicubic(rows: Sequence[Row]) -> list[Row]:
    """Every network against interpolation; exploratory."""
    return _comparisons(rows, [(network, 'bicubic') for network in NETWORKS[1:]])


def _comparisons(rows: Sequence[Row], pairs: Sequence[tuple[str, str]]) -> list[Row]:
    """Pairs of networks on all scenes, at all factors, by both metrics; positive differences: the first is better."""
    cells: dict[tuple[str, int], dict[str, dict[int, Row]]] = {}
    for row in rows:
        cells.setdefault((row['scene'], row['factor']), {}).setdefault(row['network'], {})[row['seed']] = row
    found = []
    for (scene, factor), networks in cells.items():
        for metric, (first, second) in product(PRIMARY, pairs):
            sides = [networks.get(network, {}) for network in (first, second)]
            if seeds := sorted(set(sides[0]) & set(sides[1])):
                values = [[_unit(metric, side[seed][metric]) for seed in seeds] for side in sides]
                sizes = [sides[0][seed]['test_pixels'] / sides[0][seed]['train_pixels'] for seed in seeds]
                better, worse = values if metric in HIGHER else values[::-1]
                difference = paired_comparison(better, worse, float(np.mean(sizes)))
                named = {'scene': scene, 'factor': factor, 'metric': metric, 'first': first, 'second': second}
                found.append({**named, 'difference': difference, 'p': difference.p, 'result': ''})
    return found


def _unit(metric: str, value: float) -> float:
    """A score in the unit of the tables."""
    return float(np.degrees(value)) if metric == 'sam' else 1e3 * value if metric == 'sid' else value


COMPARED: Columns = {
    **{name: itemgetter(name) for name in ('scene', 'factor')},
    'metric': lambda row: row['metric'].upper(),
    'comparison': lambda row: f'{row["first"]} − {row["second"]}',
    'n': lambda row: row['difference'].n,
    'difference [95 % interval]': lambda row: (
        f'{row["difference"].mean:+.3f} {interval(row["difference"].interval, 3)}'
    ),
    '2nd interval': lambda row: interval(row['difference'].corrected, 3),
    'p': lambda row: f'{row["p"]:.3f}',
    'result': itemgetter('result'),
}


def markdown(rows: Sequence[Row]) -> str:
    """Means over seeds, then the claimed order and the gain over interpolation with their intervals."""
    parts = []
    for scene, factor in dict.fromkeys((row['scene'], row['factor']) for row in rows):
        here = [row for row in rows if (row['scene'], row['factor']) == (scene, factor)]
        first, lines = here[0], []
        for network in NETWORKS:
            if mine := [row for row in here if row['network'] == network]:
                scores = [float(np.mean([_unit(m, row[m]) for row in mine])) for m in METRICS]
                lines.append([network, len(mine), mine[0]['weights'], *scores])
        parts += [
            f'### {scene}, factor {factor}\n',
            f'{first["bands"]} bands; of seed {first["seed"]} {first["train_windows"]} training and '
            f'{first["test_windows"]} test windows. Means over seeds.\n',
            markdown_table(['network', 'seeds', 'weights', *METRICS.values()], lines),
        ]
    for title, found in (
        ('The claimed order, step by step (p by Holm over all of them)', steps(rows)),
        ('Against interpolation (exploratory)', against_bicubic(rows)),
    ):
        parts += [
            f'### {title}\n',
            'Positive differences mean that the first is better, in dB and degrees; the second interval allows for the '
            'overlap of splits (Nadeau and Bengio).\n',
            records_table(found, COMPARED),
        ]
    return '\n'.join(parts)


# --- figures --------------------------------------------------------------------------------------------------------


def draw_table(cells: Sequence[Cell], out: Path) -> list[Path]:
    """Draw the pictures of the first seed of a table; returns the paths of the figures.

    For each scene and factor: the band with most to restore, by every network, and root mean square errors over bands.
    """
    (out / 'figures').mkdir(parents=True, exist_ok=True)
    paths = []
    for scene, factor in dict.fromkeys((cell.scene, cell.config.factor) for cell in cells):
        mine = [c for c in cells if (c.scene, c.config.factor, c.seed) == (scene, factor, 0)]
        files = {c.config.network: out / 'pictures' / f'{c.key}.safetensors' for c in mine}
        found = {name: load_file(file) for name, file in files.items() if file.exists()}
        if not found:
            continue
        original = _mosaic(next(iter(found.values()))['original'])
        restored = {name: _mosaic(kept['restored']) for name, kept in found.items()}
        low, band = degrade(original[None], factor, mine[0].config.mtf)[0], int(original.flatten(1).std(dim=1).argmax())
        bands = {name: image[band] for name, image in {'original': original, 'low': low, **restored}.items()}
        errors = {name: (image - original).square().mean(dim=0).sqrt() for name, image in restored.items()}
        for what, pictures in ((f'band-{band + 1}', bands), ('errors', errors)):
            paths.append(out / 'figures' / f'{what}-{scene}-factor-{factor}.png')
            picture_row(pictures, common=True).savefig(paths[-1], dpi=110)
    return paths


def _mosaic(windows: Tensor) -> Tensor:
    """(C, H, n W) windows (n, C, H, W) side by side, four of them in two rows."""
    rows = windows.split(2) if len(windows) == 4 else [windows]
    return torch.cat([torch.cat(list(row), dim=2) for row in rows], dim=1)
