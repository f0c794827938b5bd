"""What ``gpu.py`` trains to the end.

Learning rates fall over the whole of a training, so that its length follows from the time that there is beforehand.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from super_resolution import NETWORKS, restored

from hsiaug.ablation.arms import change_arms, segmentation_arms
from hsiaug.ablation.statistics import MIN_SEEDS, paired_comparison
from hsiaug.datasets import MixedDataset, PatchDataset, scene_dataset
from hsiaug.engine import Run
from hsiaug.evidence import recommended_ratio
from hsiaug.json_lines import append_line, read_lines
from hsiaug.metrics.super_resolution import super_resolution_scores
from hsiaug.records import read_json, write_json
from hsiaug.scenes import PatchSplitter, Scene
from hsiaug.systems import Generator
from hsiaug.systems.msrresgan.train import SuperResolutionConfig, train_super_resolution
from hsiaug.tasks import task_of, whole
from hsiaug.trainers import fit_generator, training_data
from hsiaug.trainers.convergence import loss_still_falls

Result = dict[str, Any]
RATIOS = (1.0, 5.0)
PASTED = 'region_paste'
"""The source beside the diffusion model: what is recommended where nothing is trained, at its recommended ratio."""
ARMS = ('two-stream', 'single stream')
OF_A_VAE_STEP = 5
"""Steps of the denoiser for each of the autoencoders, as in the studies."""
FLAT = 0.05
"""dB of validation PSNR that twice the steps no longer bring."""


@dataclass(frozen=True)
class Gains:
    """Whether pairs from the two-stream model raise a downstream network's score.

    Args:
        scene: with masks, or of two dates.
        splitter: of it into patches.
        downstream: the network with its setting.
        settings: of the diffusion models, but for their lengths.
        training: share of the time for both diffusion models.
        most: rounds of training at most; a round is a step of the autoencoders and :data:`OF_A_VAE_STEP` of the
            denoiser.
    """

    scene: Scene
    splitter: PatchSplitter
    downstream: Any
    settings: dict[str, Any]
    training: float = 0.6
    most: int = 4000

    def run(self, seconds: float, out: Path, device: str) -> Result:
        """Train both models equally long, measure their pairs, then train with and without them for the time left.

        All seeds share one split, one model and one draw: what varies is the initialisation and order of the network.
        What was made before in the folder is used.
        """
        start, split = time.perf_counter(), self.splitter(self.scene, 0)
        real, test = (scene_dataset(self.scene, split, part) for part in ('train', 'test'))
        task, data = task_of(real), training_data(self.scene, split)
        make = change_arms if task.kind == 'change' else segmentation_arms
        arms = {arm.name: arm.settings for arm in make(self.settings) if arm.name in ARMS}

        def fitted(name: str, rounds: int, folder: Path | None = None) -> Generator:
            lengths = {'vae_iterations': rounds, 'diffusion_iterations': OF_A_VAE_STEP * rounds}
            return fit_generator('two_stream_diffusion', data, {**arms[name], **lengths}, 0, device, folder=folder)

        if not (file := out / 'length.json').exists():
            write_json(file, self._length(lambda rounds: fitted('two-stream', rounds), self.training * seconds))
        length, models = read_json(file, 'the length of a training'), {}
        for name in ARMS:
            if not (kept := out / name).is_dir():
                fitted(name, length['rounds'], out / 'training' / name).save_pretrained(kept)
            models[name] = Generator.from_pretrained(kept, device)
        if not (file := out / 'fidelity.json').exists():
            measure = task.study_fidelity(real, test, 0)
            write_json(file, {name: measure(model) for name, model in models.items()})
        found = read_json(file, 'the fidelity of synthetic pairs')
        result: Result = {
            'scene': self.scene.name, 'size': self.splitter.size, 'train': len(real), 'test': len(test), **length,
            'vae_steps': length['rounds'], 'diffusion_steps': OF_A_VAE_STEP * length['rounds'],
            'fidelity': {name: _of_images(record) for name, record in found.items()}, 'metric': task.metrics[0],
        }  # fmt: skip
        pasted = fit_generator(PASTED, data, {}, 0, device)
        rows = self._scores(
            task, real, test, models['two-stream'], pasted, start + seconds, out / 'scores.jsonl', device
        )
        gains = {}
        for name in [*(f'{ratio:g}' for ratio in RATIOS), PASTED]:
            d = paired_comparison([row[name] for row in rows], [row['0'] for row in rows])
            gains[name] = {'mean': d.mean, 'interval': [None if x != x else x for x in d.interval], 'p': d.p}
        of = {'n': len(rows), 'real_only': sum(row['0'] for row in rows) / len(rows), 'gains': gains}
        return {**result, **of, 'still_falls': sum(row['still_falls'] for row in rows), 'whole': len(rows) >= MIN_SEEDS}

    def _length(self, fit: Callable[[int], object], seconds: float) -> Result:
        """Rounds that two models can take in the time, from what few of them take."""
        fit(1)  # whatever is made once
        times = []
        for rounds in (2, 12):
            start = time.perf_counter()
            fit(rounds)
            times.append(time.perf_counter() - start)
        each = max((times[1] - times[0]) / 10, 1e-4)
        rounds = int((seconds - sum(times)) / 2 / each)
        return {'rounds': min(max(rounds, 1), self.most), 'seconds_per_round': round(each, 4)}

    def _scores(
        self, task: Any, real: Any, test: Any, model: Generator, pasted: Generator, end: float, file: Path, device: str
    ) -> list[Result]:
        """Test scores of each seed by what is mixed in, as many as there is time for, and one at least."""
        rows, (image, target), count = read_lines(file, 'seed', 'scores'), whole(test), len(real)
        drawn = whole(task.drawn(model, round(RATIOS[-1] * count), 0, 'real', real.spec))
        advice, taken = recommended_ratio(pasted), 0.0

        def mixed(name: str, seed: int) -> Any:
            if name == '0':
                return real
            if name == PASTED:
                return MixedDataset(real, pasted, advice.ratio, labels=advice.labels, seed=seed)
            some = [side[: round(float(name) * count)] for side in drawn]
            return MixedDataset(real, task.hold(*some, real.spec), float(name), seed=seed)

        while len(rows) < MIN_SEEDS and (not rows or time.perf_counter() + taken < end):
            start, row = time.perf_counter(), {'seed': len(rows), 'still_falls': False}
            for name in ('0', *(f'{ratio:g}' for ratio in RATIOS), PASTED):
                network = task.train(self.downstream, mixed(name, row['seed']), row['seed'], device)
                row[name] = float(task.score(task.predict(network, image), target, real.spec)[task.metrics[0]])
                row['still_falls'] |= bool(loss_still_falls(network))
            append_line(file, row)
            rows.append(row)
            taken = time.perf_counter() - start
        return rows


def _of_images(record: Result) -> Result:
    """The measures of pairs, or of both dates together."""
    part = record.get('both', record)
    return {name: part[name] for name in ('fid_image', 'fid_mask', 'alignment')}


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
        splitter: of it into windows.
        config: of all networks, but for their lengths.
        first: steps of the first training.
        longest: steps of the last, whether it gains or not.
        seconds: there are; no training begins that would end later.
        out: folder; what was made before is used.
        device: where to train.
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
    """Whether the last training was no better than the one before; interpolation learns nothing."""
    if trainings and trainings[-1]['network'] == 'bicubic':
        return True
    return len(trainings) > 1 and trainings[-1]['val_psnr'] - trainings[-2]['val_psnr'] < FLAT


def ordered(result: Result) -> str:
    """Test PSNR of each network, best first."""
    table = sorted(result['networks'].items(), key=lambda item: -item[1]['psnr'])
    rises = {name: '' if row['flat'] else f' (still rises at {row["steps"]} steps)' for name, row in table}
    return ', '.join(f'{name} {row["psnr"]:.2f} dB{rises[name]}' for name, row in table)
