"""MSRResGAN and its baselines measured on real scenes: one cell per scene, factor, network and seed."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from real_scenes import AVIRIS_NM, _load, houston18, jasper_ridge, salinas_a
from safetensors.torch import save_file
from torch import Tensor
from workers import run_in_workers

from hsiaug.ablation.results import RESULTS_FILE, append_result, read_results
from hsiaug.ablation.statistics import PairedComparison, holm, paired_comparison
from hsiaug.datasets import PatchDataset
from hsiaug.engine import Run
from hsiaug.functional.degradation import degrade
from hsiaug.metrics.super_resolution import super_resolution_scores
from hsiaug.samples import require_unseen
from hsiaug.scenes import PatchSplitter, Scene
from hsiaug.systems.msrresgan.build import Network
from hsiaug.systems.msrresgan.model import CHUNK
from hsiaug.systems.msrresgan.train import SuperResolutionConfig, train_super_resolution
from hsiaug.trainers import training_data

NETWORKS: tuple[Network, ...] = ('bicubic', 'srcnn', 'srgan', 'msrresnet', 'msrresgan')
ORDER: tuple[Network, ...] = ('msrresgan', 'msrresnet', 'srcnn', 'bicubic')
"""What the text claims, best first."""
METRICS = {
    'mrae': 'MRAE',
    'sid': 'SID (1e-3)',
    'psnr': 'PSNR (dB)',
    'ssim': 'SSIM',
    'sam': 'SAM (deg)',
    'ergas': 'ERGAS',
}
PRIMARY = ('psnr', 'sam')
HIGHER = ('psnr', 'ssim')  # the better; of the others lower
ABU = (
    'abu-airport-1', 'abu-airport-2', 'abu-airport-3', 'abu-beach-1', 'abu-urban-1', 'abu-urban-2', 'abu-urban-3',
    'abu-urban-4', 'sandiego',
)  # fmt: skip
ABU_BANDS = 96
SHOWN = 4  # test windows that are kept for figures


def abu(root: Path) -> Scene:
    """Nine AVIRIS scenes on one grid of bands; split by scenes.

    Their 188 to 207 bands lie somewhere on the sensor's 224, which ones the files do not say: each scene's are taken as
    evenly spread over the sensor's range. The grid is therefore nominal by up to some 100 nm, which super-resolution
    does not mind, as every band is an image of the same place; nothing here compares spectra with those of elsewhere.
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
    """Windows of a scene: whole scenes of ABU test, and a half of each other one, two pixels from what trains.

    Nothing is chosen on validation windows, of which there are as few as can be. A scene has eight such splits, so that
    from some seed on splits come again, with other initialisations.
    """
    if scene == 'abu':
        return PatchSplitter(size=size, stride=size // 2, val_fraction=0.1, regions='groups')
    return PatchSplitter(size=size, stride=size // 4, val_fraction=0.05, regions='halves', buffer=2)


def open_scene(root: Path, name: str) -> Scene:
    """A scene with the parity of its columns for labels: super-resolution needs none, the splitter two classes."""
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
        """16 hex digits that identify it."""
        text = json.dumps(dataclasses.asdict(self), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def cells(
    scenes: Sequence[str], factors: Sequence[int], config: SuperResolutionConfig, size: int, seeds: int
) -> list[Cell]:
    """All cells, seed after seed, so that what an interrupted run leaves is paired."""
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
    """(n, C, H, W) test windows, degraded and super-resolved; borders included, for all networks alike."""
    low = degrade(high, config.factor, config.mtf)
    return torch.cat([generator(part.to(generator.device)).cpu() for part in low.split(CHUNK)])


def run_cell(cell: Cell, root: Path, out: Path, device: str) -> None:
    """Train and measure one network, and record it; the first seed's pictures are kept."""
    scene = open_scene(root, cell.scene)
    split = splitter(cell.scene, cell.size)(scene, cell.seed)
    data, test = training_data(scene, split), PatchDataset.from_scene(scene, split, 'test')
    folder = out / 'training' / cell.key
    generator = train_super_resolution(data, cell.config, Run(cell.seed, device=device, folder=folder))
    if folder.exists():
        folder.rmdir()  # its checkpoint is gone when a training has ended
    require_unseen(generator.provenance, split.scene, split.test)
    image = restored(generator, test.image, cell.config)
    scores = super_resolution_scores(image, test.image, cell.config.factor)
    if cell.seed == 0:
        at = np.unique(np.linspace(0, len(image) - 1, SHOWN).astype(np.int64))
        (out / 'pictures').mkdir(parents=True, exist_ok=True)
        kept = {'restored': image[at].contiguous(), 'original': test.image[at].contiguous()}
        save_file(kept, out / 'pictures' / f'{cell.key}.safetensors')
    append_result(out / RESULTS_FILE, {
        'cell': cell.key, 'scene': cell.scene, 'factor': cell.config.factor, 'network': cell.config.network,
        'seed': cell.seed, 'split': split.fingerprint, 'train_windows': len(data.x), 'test_windows': len(test),
        'train_pixels': len(split.pixels('train')), 'test_pixels': len(split.test), 'bands': data.spec.bands,
        'weights': sum(p.numel() for p in generator.network.parameters()),
        **dataclasses.asdict(scores),
    })  # fmt: skip


def run_table(planned: Sequence[Cell], root: Path, out: Path, workers: int = 1, device: str = 'cpu') -> None:
    """Run what is still missing; a killed run loses at most the cells in hand, and these go on from checkpoints."""
    done = {row['cell'] for row in read_results(out / RESULTS_FILE)}
    pending = [cell for cell in planned if cell.key not in done]
    if not pending:
        return
    tasks = [(cell, root, out, device) for cell in pending]
    run_in_workers(run_cell, tasks, workers, 'super-resolution', 'cell')


# --- statistics -----------------------------------------------------------------------------------------------------

Row = dict[str, Any]


@dataclass(frozen=True)
class Step:
    """One network against another, on one scene at one factor: positive differences mean that ``first`` is better."""

    scene: str
    factor: int
    metric: str
    first: str
    second: str
    difference: PairedComparison
    p_holm: float | None = None

    @property
    def verdict(self) -> str:
        """Whether ``first`` is better, by the p value corrected within the claimed order."""
        if self.p_holm is None or self.p_holm >= 0.05 or not self.difference.basis_for_claims:
            return 'open'
        return 'shown' if self.difference.mean > 0 else 'refuted'


def steps(rows: Sequence[Row]) -> list[Step]:
    """The claimed order step by step, corrected by Holm over all scenes, factors and both metrics."""
    found = [
        step
        for scene, factor in _groups(rows)
        for metric in PRIMARY
        for first, second in pairwise(ORDER)
        if (step := _compared(rows, scene, factor, metric, first, second)) is not None
    ]
    adjusted = holm([step.difference.p for step in found])
    return [replace(step, p_holm=p) for step, p in zip(found, adjusted, strict=True)]


def against_bicubic(rows: Sequence[Row]) -> list[Step]:
    """Every network against interpolation; exploratory."""
    return [
        step
        for scene, factor in _groups(rows)
        for metric in PRIMARY
        for network in NETWORKS[1:]
        if (step := _compared(rows, scene, factor, metric, network, 'bicubic')) is not None
    ]


def _groups(rows: Sequence[Row]) -> Iterator[tuple[str, int]]:
    yield from dict.fromkeys((row['scene'], row['factor']) for row in rows)


def _compared(rows: Sequence[Row], scene: str, factor: int, metric: str, first: str, second: str) -> Step | None:
    """None without a common seed."""
    sides = [
        {r['seed']: r for r in rows if (r['scene'], r['factor'], r['network']) == (scene, factor, network)}
        for network in (first, second)
    ]
    if not (seeds := sorted(set(sides[0]) & set(sides[1]))):
        return None
    values = [[_unit(metric, side[s][metric]) for s in seeds] for side in sides]
    ratio = float(np.mean([sides[0][s]['test_pixels'] / sides[0][s]['train_pixels'] for s in seeds]))
    better, worse = values if metric in HIGHER else values[::-1]
    return Step(scene, factor, metric, first, second, paired_comparison(better, worse, ratio))


def _unit(metric: str, value: float) -> float:
    """A score as the tables show it."""
    return float(np.degrees(value)) if metric == 'sam' else 1e3 * value if metric == 'sid' else value


def markdown(rows: Sequence[Row]) -> str:
    """Means over seeds, then the claimed order and the gain over interpolation with their intervals."""
    lines = []
    for scene, factor in _groups(rows):
        here = [row for row in rows if (row['scene'], row['factor']) == (scene, factor)]
        first = here[0]
        lines += [
            f'### {scene}, factor {factor}', '',
            f'{first["bands"]} bands; of seed {first["seed"]} {first["train_windows"]} training and '
            f'{first["test_windows"]} test windows. Means over seeds.', '',
            f'| network | seeds | weights | {" | ".join(METRICS.values())} |', '|---|---|---|' + '---|' * len(METRICS),
        ]  # fmt: skip
        for network in NETWORKS:
            if mine := [row for row in here if row['network'] == network]:
                means = [f'{np.mean([_unit(m, row[m]) for row in mine]):.4g}' for m in METRICS]
                lines.append(f'| {network} | {len(mine)} | {mine[0]["weights"]} | {" | ".join(means)} |')
        lines.append('')
    for title, found in (
        ('The claimed order, step by step (p by Holm over all of them)', steps(rows)),
        ('Against interpolation (exploratory)', against_bicubic(rows)),
    ):
        lines += [
            f'### {title}', '', 'Positive differences mean that the first is better, in dB and degrees; the second '
            'interval allows for the overlap of splits (Nadeau and Bengio).', '',
            '| scene | factor | metric | comparison | n | difference [95 % interval] | 2nd interval | p | verdict |',
            '|---|---|---|---|---|---|---|---|---|',
        ]  # fmt: skip
        for s in found:
            d, p = s.difference, s.difference.p if s.p_holm is None else s.p_holm
            verdict = '' if s.p_holm is None else s.verdict
            lines.append(
                f'| {s.scene} | {s.factor} | {s.metric.upper()} | {s.first} − {s.second} | {d.n} | {d.mean:+.3f} '
                f'{_interval(d.interval)} | {_interval(d.corrected)} | {p:.3f} | {verdict} |'
            )
        lines.append('')
    return '\n'.join(lines)


def _interval(ends: tuple[float, float]) -> str:
    return '–' if ends[0] != ends[0] else f'[{ends[0]:+.3f}, {ends[1]:+.3f}]'
