"""Studies of ``gpu.py`` that train to the end.

Learning rates fall over the whole training, so its length is set beforehand, from the available time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property, partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from super_resolution import NETWORKS, restored

from hsiaug.ablation.arms import change_arms, segmentation_arms
from hsiaug.ablation.statistics import MIN_SEEDS, paired_comparison
from hsiaug.datasets import MixedDataset, PatchDataset, scene_dataset
from hsiaug.engine import Run
from hsiaug.engine.loss_log import read_losses
from hsiaug.evidence import recommended_ratio
from hsiaug.json_lines import append_line, read_lines
from hsiaug.metrics.super_resolution import super_resolution_scores
from hsiaug.records import read_json, write_json
from hsiaug.scenes import PatchSplitter, Scene
from hsiaug.systems import Generator
from hsiaug.systems.msrresgan.train import SuperResolutionConfig, train_super_resolution
from hsiaug.tasks import task_of, whole
from hsiaug.trainers import fit_generator, training_data
from hsiaug.trainers.convergence import loss_still_falls, still_falls

Result = dict[str, Any]
RATIOS = (1.0, 5.0)
PASTED = 'region_paste'
"""Source compared with the diffusion model: recommended without training, at its recommended ratio."""
ARMS = ('two-stream', 'single stream')
OF_A_VAE_STEP = 5
"""Steps of the denoiser per step of the autoencoders, as in the studies."""
FLAT = 0.05
"""Gain in validation PSNR (dB) from twice the steps, below which training stops."""


@dataclass(frozen=True)
class Gains:
    """Do pairs from the two-stream model raise the score of a downstream network?

    Args:
        scene: with masks, or of two dates.
        splitter: of the scene into patches.
        downstream: the network with its setting.
        settings: of the diffusion models, except their lengths.
        training: share of the time for the two diffusion models, which are trained in parallel.
        most: largest number of rounds; a round is a step of the autoencoders and :data:`OF_A_VAE_STEP` of the
            denoiser.
        processes: parallel processes, at least 2: one small training does not fill a GPU.
    """

    scene: Scene
    splitter: PatchSplitter
    downstream: Any
    settings: dict[str, Any]
    training: float = 0.5
    most: int = 8000
    processes: int = 2

    def run(self, seconds: float, out: Path, device: str) -> Result:
        """Train both models equally long, measure their pairs, then train with and without them for the time left.

        All seeds share one split, one model and one draw; only initialisation and order of the network vary. Files
        already in the folder are used.
        """
        start, study = time.time(), _Study(self, out, device)
        with ProcessPoolExecutor(self.processes, get_context('spawn'), _open, (self, out, device)) as pool:

            def of_arms(what: str, *args: Any) -> Result:
                return dict(zip(ARMS, pool.map(partial(_ask, what), ARMS, *([arg, arg] for arg in args)), strict=True))

            if not (file := out / 'length.json').exists():
                of_arms('fitted', 1)  # whatever is made once
                each = max(of_arms('seconds_per_round').values())
                write_json(file, self.length(each, self.training * seconds - (time.time() - start)))
            length = read_json(file, 'the length of a training')
            of_arms('keep', length['rounds'])
            if not (file := out / 'fidelity.json').exists():
                write_json(file, of_arms('fidelity'))
            rows, end = read_lines(out / 'scores.jsonl', 'seed', 'scores'), start + seconds
            lacking = [seed for seed in range(MIN_SEEDS) if seed not in {row['seed'] for row in rows}]
            list(pool.map(partial(_ask, 'score'), lacking, [end] * len(lacking)))
        rows, gains = read_lines(out / 'scores.jsonl', 'seed', 'scores'), {}
        for name in [*(f'{ratio:g}' for ratio in RATIOS), PASTED]:
            d = paired_comparison([row[name] for row in rows], [row['0'] for row in rows])
            gains[name] = {'mean': d.mean, 'interval': [None if x != x else x for x in d.interval], 'p': d.p}
        found = read_json(file, 'the fidelity of synthetic pairs')
        return {
            'scene': self.scene.name, 'size': self.splitter.size, 'train': len(study.real), 'test': len(study.test),
            **length, 'vae_steps': length['rounds'], 'diffusion_steps': OF_A_VAE_STEP * length['rounds'],
            'fidelity': {name: _of_images(record) for name, record in found.items()},
            'losses_still_fall': {name: study.falling(name) for name in ARMS},
            'metric': study.task.metrics[0], 'n': len(rows), 'real_only': sum(row['0'] for row in rows) / len(rows),
            'gains': gains, 'still_falls': sum(row['still_falls'] for row in rows), 'whole': len(rows) >= MIN_SEEDS,
        }  # fmt: skip

    def length(self, each: float, seconds: float) -> Result:
        """Number of rounds for two models trained in parallel in the time, from the time of one round."""
        return {'rounds': min(max(int(seconds / each), 1), self.most), 'seconds_per_round': round(each, 4)}


class _Study:
    """What each process of a study holds: its data, and how to train and measure."""

    def __init__(self, plan: Gains, out: Path, device: str) -> None:
        self.plan, self.out, self.device = plan, out, device
        split = plan.splitter(plan.scene, 0)
        self.real, self.test = (scene_dataset(plan.scene, split, part) for part in ('train', 'test'))
        self.task, self.data = task_of(self.real), training_data(plan.scene, split)
        make = change_arms if self.task.kind == 'change' else segmentation_arms
        self.arms = {arm.name: arm.settings for arm in make(plan.settings) if arm.name in ARMS}
        self.taken = 0.0

    def fitted(self, name: str, rounds: int) -> float:
        """Train a model for some rounds; returns the seconds."""
        start = time.perf_counter()
        self._fit(name, rounds)
        return time.perf_counter() - start

    def _fit(self, name: str, rounds: int, folder: Path | None = None, losses: Path | None = None) -> Generator:
        settings = {**self.arms[name], 'vae_iterations': rounds, 'diffusion_iterations': OF_A_VAE_STEP * rounds}
        return fit_generator('two_stream_diffusion', self.data, settings, 0, self.device, folder=folder, losses=losses)

    def seconds_per_round(self, name: str) -> float:
        """Measured on a few rounds."""
        return max((self.fitted(name, 32) - self.fitted(name, 2)) / 30, 1e-4)

    def keep(self, name: str, rounds: int) -> None:
        """Train and save a model, unless it exists."""
        if not (kept := self.out / name).is_dir():
            model = self._fit(name, rounds, self.out / 'training' / name, self.out / f'losses {name}.csv')
            model.save_pretrained(kept)

    def model(self, name: str) -> Generator:
        """A saved model."""
        return Generator.from_pretrained(self.out / name, self.device)

    def falling(self, name: str) -> list[str]:
        """Stages of a model whose loss still fell at the end."""
        curves = read_losses(self.out / f'losses {name}.csv')
        return [f'{stage} {loss}' for (stage, loss), curve in curves.items() if still_falls(curve)]

    def fidelity(self, name: str) -> Result:
        """Fidelity of a model's pairs."""
        return self.task.study_fidelity(self.real, self.test, 0)(self.model(name))

    @cached_property
    def sources(self) -> dict[str, Callable[[int], Any]]:
        """Training sets by source, given the seed."""
        real, spec, count = self.real, self.real.spec, len(self.real)
        drawn = whole(self.task.drawn(self.model(ARMS[0]), round(RATIOS[-1] * count), 0, 'real', spec))
        pasted = fit_generator(PASTED, self.data, {}, 0, self.device)
        advice = recommended_ratio(pasted)

        def of_ratio(ratio: float) -> Callable[[int], Any]:
            held = self.task.hold(*(side[: round(ratio * count)] for side in drawn), spec)
            return lambda seed: MixedDataset(real, held, ratio, seed=seed)

        return {
            '0': lambda seed: real,
            **{f'{ratio:g}': of_ratio(ratio) for ratio in RATIOS},
            PASTED: lambda seed: MixedDataset(real, pasted, advice.ratio, labels=advice.labels, seed=seed),
        }

    def score(self, seed: int, end: float) -> None:
        """Test scores by source, if there is time; each process scores at least one seed."""
        if self.taken and time.time() + self.taken > end:
            return
        start, row = time.time(), {'seed': seed, 'still_falls': False}
        image, target = whole(self.test)
        for name, mixed in self.sources.items():
            network = self.task.train(self.plan.downstream, mixed(seed), seed, self.device)
            predicted = self.task.predict(network, image)
            row[name] = float(self.task.score(predicted, target, self.real.spec)[self.task.metrics[0]])
            row['still_falls'] |= bool(loss_still_falls(network))
        append_line(self.out / 'scores.jsonl', row)
        self.taken = time.time() - start


_STUDIES: list[_Study] = []


def _open(plan: Gains, out: Path, device: str) -> None:
    """Set up each process."""
    if device != 'cpu':
        torch.set_num_threads(2)  # else the threads of all processes compete for the cores
    _STUDIES.append(_Study(plan, out, device))


def _ask(what: str, *args: Any) -> Any:
    """Call a method of the study in its process."""
    return getattr(_STUDIES[0], what)(*args)


def _of_images(record: Result) -> Result:
    """Measures of pairs, or of both dates together."""
    part = record.get('both', record)
    names = ('fid_image', 'fid_mask', 'msad', 'std_ratio', 'precision', 'recall', 'alignment')
    return {name: part.get(name) for name in names}


def gains_in_short(result: Result) -> str:
    """FID and alignment of both models, and the gains with their intervals."""
    fid, fit = ([result['fidelity'][name][key] for name in ARMS] for key in ('fid_image', 'alignment'))
    pairs = [', single stream '.join('–' if x is None else f'{x:.3g}' for x in side) for side in (fid, fit)]
    lines = [f'FID {pairs[0]}; alignment {pairs[1]}']
    lines += [f'real only {result["real_only"]:.4f} {result["metric"]}']
    for name, gain in result['gains'].items():
        low, high = gain['interval']
        interval = '' if low is None else f' [{low:+.4f}, {high:+.4f}]'
        lines.append(f'{name if name == PASTED else f"r = {name}"} {gain["mean"]:+.4f}{interval}')
    return '; '.join(lines) + f'; n = {result["n"]}, {result["diffusion_steps"]} steps'


# --- super-resolution -------------------------------------------------------------------------------------------------


def resolve(
    scene: Scene, splitter: PatchSplitter, config: SuperResolutionConfig, first: int, longest: int, seconds: float,
    out: Path, device: str,
) -> Result:  # fmt: skip
    """Train each super-resolution network twice as long, until it no longer gains on validation windows.

    Args:
        scene: the scene.
        splitter: of the scene into windows.
        config: of all networks, except their lengths.
        first: steps of the first training.
        longest: steps of the last training, whether it gains or not.
        seconds: available time; no training starts that would end later.
        out: folder; files already there are used.
        device: device to train on.
    """
    start, split = time.perf_counter(), splitter(scene, 0)
    data = training_data(scene, split)
    val, test = (PatchDataset.from_scene(scene, split, part).image for part in ('val', 'test'))
    rows = read_lines(file := out / 'trainings.jsonl', 'network', 'a training')
    steps, late = first, False
    while steps <= longest and not late:
        for network in NETWORKS:
            before = [row for row in rows if row['network'] == network]
            if _flat(before) or any(row['steps'] >= steps for row in before):
                continue
            if before and time.perf_counter() - start + 2 * before[-1]['seconds'] > seconds:
                late = True
                continue
            began, of = time.perf_counter(), replace(config, network=network, iterations=steps)
            model = train_super_resolution(data, replace(of, gradient_iterations=steps // 2), Run(device=device))
            scores = [super_resolution_scores(restored(model, side, of), side, of.factor) for side in (val, test)]
            row = {'network': network, 'steps': steps, 'val_psnr': scores[0].psnr}
            row |= {'psnr': scores[1].psnr, 'sam': scores[1].sam, 'seconds': time.perf_counter() - began}
            append_line(file, row)
            rows.append(row)
        steps *= 2
    table = {}
    for network in NETWORKS:
        mine = [row for row in rows if row['network'] == network]
        table[network] = {**mine[-1], 'flat': _flat(mine)}
    flat = all(row['flat'] for row in table.values())
    return {'scene': scene.name, 'factor': config.factor, 'networks': table, 'whole': flat or not late}


def _flat(trainings: Sequence[Result]) -> bool:
    """Whether the last training was no better than the one before; always true of interpolation."""
    if trainings and trainings[-1]['network'] == 'bicubic':
        return True
    return len(trainings) > 1 and trainings[-1]['val_psnr'] - trainings[-2]['val_psnr'] < FLAT


def ordered(result: Result) -> str:
    """Test PSNR of each network, best first."""
    table = sorted(result['networks'].items(), key=lambda item: -item[1]['psnr'])
    rises = {name: '' if row['flat'] else f' (still rises at {row["steps"]} steps)' for name, row in table}
    return ', '.join(f'{name} {row["psnr"]:.2f} dB{rises[name]}' for name, row in table)
