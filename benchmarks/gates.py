"""How well gates find misaligned masks, copies and impossible spectra, and how often they raise false alarms.

    HSIAUG_DATA=folder python benchmarks/gates.py --quick       # one seed
    HSIAUG_DATA=folder python benchmarks/gates.py               # 5 seeds, about 10 minutes on a free core

False alarms are counted on real samples of the test part, whose pixels no gate has seen. Faults are planted in such
samples; copies are made of training samples. An interrupted run resumes when repeated.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from real_scenes import DISJOINT, READERS, houston18_patches, jasper_ridge
from sklearn.metrics import roc_auc_score
from studies import data_root, options, parsed
from torch import Tensor

from hsiaug.ablation import Experiment
from hsiaug.ablation.experiment import markdown_table
from hsiaug.datasets import IGNORE, PatchDataset, SpectraDataset
from hsiaug.quality import (
    AgreementGate,
    Coverage,
    Gates,
    NoveltyGate,
    RangeGate,
    SmoothnessGate,
    SubspaceGate,
    held_out_limit,
    label_regions,
)
from hsiaug.scenes import PatchSplit, PatchSplitter, Scene, SimulatedScene
from hsiaug.scenes.windows import window_sums
from hsiaug.systems import TrainingData
from hsiaug.trainers import fit_generator, training_data

SIZE, STRIDE, SHIFTS = 32, 4, (1, 2, 4, 8)
PATCHES = ('jasper_ridge', 'houston18', 'simulated')
SPECTRA = ('salinas_a', 'enmap_potsdam', 'santa_barbara', 'houston18', 'simulated')
Batch = dict[str, Tensor]


def gates() -> Gates:
    """All gates, each at a false alarm rate of 5 %."""
    return Gates([RangeGate(), SmoothnessGate(), SubspaceGate(), AgreementGate(), NoveltyGate()])


def noise_of(scene: Scene, data: TrainingData) -> Tensor:
    """(C,) sensor noise by band: the truth of a simulated scene, else the part of a band that others cannot explain.

    This is independent of the estimate of the gate for patches.
    """
    if isinstance(scene, SimulatedScene):
        quiet = SimulatedScene(*scene.shape, seed=data.provenance.seed if data.provenance else 0, noise=0.0)
        return torch.from_numpy((scene.cube - quiet.cube).reshape(-1, data.spec.bands).std(axis=0))
    pixels = data.x.movedim(1, -1).reshape(-1, data.spec.bands)
    if len(data.unlabelled):
        pixels = torch.cat([pixels, data.unlabelled])
    covariance = torch.cov(pixels.double().T) + 1e-10 * pixels.double().var() * torch.eye(data.spec.bands)
    return (1 / torch.linalg.inv(covariance).diagonal()).clamp_min(0).sqrt().float()


def judged(found: Gates, batch: Batch) -> dict[str, float]:
    """Share of samples that each gate rejects."""
    return {name: share(rejected) for name, rejected in found.judge(batch).rejected.items()}


def memorised(gate: NoveltyGate, batch: Batch) -> float:
    """Share of samples that are memorised."""
    return float((gate.score(batch) > gate.threshold).double().mean())


def share(flags: Tensor) -> float:
    """Share of true values."""
    return round(float(flags.double().mean()), 4)


def auroc(good: Tensor, bad: Tensor) -> float:
    """Probability that a bad sample scores worse than a good one."""
    truth = np.r_[np.zeros(len(good)), np.ones(len(bad))]
    return round(float(roc_auc_score(truth, torch.cat([good, bad]).numpy())), 4)


def impossible(batch: Batch, noise: Tensor) -> dict[str, Batch]:
    """Real samples made unphysical: too bright, noisy, with a false absorption feature."""
    image = batch['image']
    bands = image.shape[1]
    column = (-1, *(1,) * (image.ndim - 2))
    rng = torch.Generator().manual_seed(0)
    dip = 1 - 0.3 * torch.exp(-0.5 * ((torch.arange(bands) - bands * 0.4) / max(1.0, bands * 0.01)) ** 2)
    extra = noise.view(column) * torch.randn(image.shape, generator=rng)
    made = {'twice as bright': 2 * image, 'noise 5x': image + 5 * extra, 'false absorption': image * dip.view(column)}
    return {name: {**batch, 'image': changed} for name, changed in made.items()}


def noisy(image: Tensor, noise: Tensor, times: float) -> Tensor:
    """Copies with new sensor noise."""
    rng = torch.Generator().manual_seed(1)
    return image + times * noise.view(-1, *(1,) * (image.ndim - 2)) * torch.randn(image.shape, generator=rng)


def copies(gate: NoveltyGate, image: Tensor, noise: Tensor, real: Tensor) -> dict[str, Any]:
    """Share of copies found at thresholds for 5 % and 1 % false alarms, and at 5 % of the test samples."""
    made = {'exact': image, **{f'noise {k}x': noisy(image, noise, k) for k in (0.5, 1, 2)}}
    if image.ndim == 4:
        made['turned, noise 1x'] = noisy(image.rot90(1, dims=(-2, -1)).flip(-1), noise, 1)
    scores, of_real = {name: gate.score({'image': x}) for name, x in made.items()}, gate.score({'image': real})
    strict = held_out_limit(gate.held_out, gate.independent, 0.01)
    limits = {'false_alarm=0.05': gate.threshold, 'false_alarm=0.01': strict, '5 % of test': of_real.quantile(0.95)}
    return {
        rule: {'false alarms': share(of_real > limit), **{name: share(s > limit) for name, s in scores.items()}}
        for rule, limit in limits.items()
    }


# --- patches ----------------------------------------------------------------------------------------------------------


def open_patches(name: str, root: Path, seed: int) -> Scene:
    """A scene with masks; the simulated one changes with the seed."""
    readers: dict[str, Callable[[Path], Scene]] = {'jasper_ridge': jasper_ridge, 'houston18': houston18_patches}
    return SimulatedScene(128, 128, seed=seed) if name == 'simulated' else readers[name](root)


def unseen_windows(scene: Scene, split: PatchSplit, offset: tuple[int, int] = (0, 0)) -> np.ndarray:
    """(n, 2) corners, ``STRIDE`` apart, of windows without pixels of training or validation windows.

    Args:
        scene: the scene.
        split: its split.
        offset: shift by which the windows must still lie in the scene.
    """
    free = np.ones(scene.num_pixels, dtype=bool)
    free[split.footprint().pixels()] = False
    fits = window_sums(free.reshape(1, *scene.shape), SIZE)[0] == SIZE**2
    corners = np.argwhere(fits)
    corners = corners[(corners % STRIDE == 0).all(axis=1)]
    moved = corners + offset
    return corners[((moved >= 0) & (moved + SIZE <= scene.shape)).all(axis=1)]


def windows(scene: Scene, split: PatchSplit, corners: np.ndarray) -> Batch:
    """Images and masks of windows."""
    data = PatchDataset.from_scene(scene, replace(split, test_windows=corners), 'test')
    return {'image': data.image, 'mask': data.mask}


def swapped(mask: Tensor, num_classes: int) -> Tensor:
    """Masks with their two most frequent classes swapped."""
    result = mask.clone()
    for old, new in zip(mask, result, strict=True):
        first, second = torch.bincount(old[old < num_classes], minlength=num_classes).topk(2).indices.tolist()
        new[old == first], new[old == second] = second, first
    return result


def patch_cell(name: str, root: Path, seed: int) -> dict[str, Any]:
    """All rates of one scene and seed."""
    scene = open_patches(name, root, seed)
    split = PatchSplitter(size=SIZE, stride=STRIDE)(scene, seed)
    data = training_data(scene, split)
    start = time.perf_counter()
    found = gates().fit(data, label_regions(scene, split), seed)
    fitting = time.perf_counter() - start
    agreement, novelty = found.gates[-2:]
    assert isinstance(agreement, AgreementGate)
    assert isinstance(novelty, NoveltyGate)
    real, noise = windows(scene, split, unseen_windows(scene, split)), noise_of(scene, data)
    good = agreement.score(real)
    shift: dict[str, Any] = {}
    for step in SHIFTS:
        scores, ignored, kept = [], [], []
        for move in ((step, 0), (-step, 0), (0, step), (0, -step)):
            corners = unseen_windows(scene, split, move)
            batch, wrong = windows(scene, split, corners), windows(scene, split, corners + move)['mask']
            moved = {**batch, 'mask': wrong}
            losses = agreement.label_losses(moved)
            scores.append(losses.flatten(1).nanmean(dim=1).log())  # like agreement.score, which would compute it again
            flagged, counts = losses > agreement.margin, (wrong < data.spec.num_classes) & (batch['mask'] != IGNORE)
            ignored.append(flagged[counts & (wrong != batch['mask'])])
            kept.append(flagged[counts & (wrong == batch['mask'])])
        bad = torch.cat(scores)
        shift[str(step)] = {
            'auroc': auroc(good, bad),
            'found': share(bad > agreement.threshold),
            'wrong_pixels_ignored': share(torch.cat(ignored)),
            'right_pixels_ignored': share(torch.cat(kept)),
        }
    bad = agreement.score({**real, 'mask': swapped(real['mask'], data.spec.num_classes)})
    banks = {
        kind: memorised(novelty, fit_generator('patch_augment', data, {'kind': kind}, seed).sample(64, seed=seed))
        for kind in ('duplicate', 'flips', 'noise', 'cutmix')
    }
    wide = NoveltyGate(shifts=2).fit(data, label_regions(scene, split), seed)
    off = split.train[::4] + 2  # rows and columns
    between = windows(scene, split, off[(off + SIZE <= scene.shape).all(axis=1)])['image']
    return {
        'train_windows': len(data.x),
        'independent': {gate.name: gate.independent for gate in found},
        'test_windows': len(good),
        'seconds_to_fit': round(fitting, 1),
        'false_alarms': judged(found, real),
        'shift': shift,
        'swap': {'auroc': auroc(good, bad), 'found': share(bad > agreement.threshold)},
        'copies': copies(novelty, data.x, noise, real['image']),
        'shifted_copies': {
            'shifts=0': share(~novelty.keep({'image': between})),
            'shifts=2': share(~wide.keep({'image': between})),
            'false_alarms of shifts=2': share(~wide.keep(real)),
        },
        'impossible': {kind: judged(found, batch) for kind, batch in impossible(real, noise).items()},
        'memorised': banks,
    }


# --- spectra ----------------------------------------------------------------------------------------------------------


def spectra_cell(name: str, root: Path, seed: int) -> dict[str, Any]:
    """All rates of one scene and seed, at 30 labels per class as in the other studies."""
    scene = SimulatedScene(128, 128, seed=seed) if name == 'simulated' else READERS[name](root)
    splitter = DISJOINT['houston18' if name == 'simulated' else name]
    split = splitter(per_class=30, on_rare='drop')(scene, seed)
    data = training_data(scene, split)
    found = gates().fit(data, label_regions(scene, split), seed)
    agreement, novelty = found.gates[-2:]
    assert isinstance(novelty, NoveltyGate)
    image, label = SpectraDataset(scene, split, 'test').tensors()
    some = torch.randperm(len(image), generator=torch.Generator().manual_seed(seed))[:1000]
    real = {'image': image[some], 'label': label[some]}
    noise, good = noise_of(scene, data), agreement.score(real)
    bad = agreement.score({**real, 'label': (real['label'] + 1) % data.spec.num_classes})
    generators = ('duplicate', 'variability', 'mixup', 'gaussian')
    drawn = {kind: fit_generator(kind, data, {}, seed).sample(500, seed=seed) for kind in generators}
    cover = Coverage().fit(data)
    return {
        'train_spectra': len(data.x),
        'false_alarms': judged(found, real),
        'wrong_label': {'auroc': auroc(good, bad), 'found': share(bad > agreement.threshold)},
        'copies': copies(novelty, data.x, noise, real['image']),
        'impossible': {kind: judged(found, batch) for kind, batch in impossible(real, noise).items()},
        'memorised': {kind: memorised(novelty, batch) for kind, batch in drawn.items()},
        'rejected': {kind: judged(found, batch) for kind, batch in drawn.items()},
        'coverage': {kind: round(cover.report(batch)['coverage'], 4) for kind, batch in drawn.items()},
    }


# --- the study --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cell:
    """One scene, as ``'patches'`` or ``'spectra'``, and one seed."""

    kind: str
    scene: str
    seed: int


def measure(cell: Cell, root: Path) -> dict[str, Any]:
    """All rates of a cell."""
    rates = (patch_cell if cell.kind == 'patches' else spectra_cell)(cell.scene, root, cell.seed)
    return {'rates': rates}


def flat(tree: Any, name: str = '') -> dict[str, float]:
    """Numbers of a tree, by their names from its root on."""
    if not isinstance(tree, dict):
        return {name.removeprefix(', '): float(tree)}
    return {path: value for key, of in tree.items() for path, value in flat(of, f'{name}, {key}').items()}


def summarised(rows: list[dict[str, Any]]) -> dict[str, dict[str, list[float]]]:
    """Mean, lowest and highest over seeds of each rate, by rate and scene."""
    found: dict[str, dict[str, list[float]]] = {}
    for row in rows:
        for rate, value in flat(row['rates']).items():
            found.setdefault(rate, {}).setdefault(row['scene'], []).append(value)
    return {
        rate: {scene: [round(float(np.mean(v)), 4), min(v), max(v)] for scene, v in of.items()}
        for rate, of in found.items()
    }


def markdown(table: dict[str, dict[str, dict[str, list[float]]]]) -> str:
    """All rates."""
    parts = ['Mean over seeds [lowest, highest].\n']
    for kind, rates in table.items():
        scenes = list(dict.fromkeys(scene for of in rates.values() for scene in of))
        lines = [
            [rate, *('{:.3g} [{:.3g}, {:.3g}]'.format(*of[scene]) if scene in of else None for scene in scenes)]
            for rate, of in rates.items()
        ]
        parts.append(markdown_table([kind, *scenes], lines))
    return '\n'.join(parts)


def main() -> None:
    """Measure what is missing and write the summary."""
    args = parsed(options(__doc__, 'gates', quick='one seed', seeds=(5, 1)))
    scenes = {'patches': PATCHES, 'spectra': SPECTRA}
    cells = [Cell(kind, name, seed) for seed in range(args.seeds) for kind in scenes for name in scenes[kind]]
    experiment = Experiment('What gates find, and their false alarms', cells, partial(measure, root=data_root()))
    rows = experiment.run(args.out, args.workers)
    table = {kind: summarised([row for row in rows if row['kind'] == kind]) for kind in scenes}
    print(experiment.write(args.out, markdown(table), table))


if __name__ == '__main__':
    main()
