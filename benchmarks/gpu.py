"""All measurements on a GPU, most important first, for the few minutes in which one is available.

    HSIAUG_DATA=folder python benchmarks/gpu.py --minutes 8 --out runs/gpu
    HSIAUG_DATA=folder python benchmarks/gpu.py --minutes 2 --device cpu --toy --out runs/gpu-toy   # a test

Each part runs in its own process for its share of the time. Its result or error is written immediately to
``parts.jsonl`` in the folder; the same command continues with parts without a result, and in studies with missing
trainings and seeds. At the end all results are printed next to their goals.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gpu_studies import gains_in_short, ordered
from measure import interleaved, launches, machine, milliseconds, summary

from hsiaug.engine.cuda_graphs import SWITCH
from hsiaug.json_lines import append_line, read_lines
from hsiaug.records import write_json

HERE = Path(__file__).resolve().parent
Result = dict[str, Any]


@dataclass(frozen=True)
class Task:
    """Arguments of a part.

    Args:
        device: ``'cuda'`` or ``'cpu'``.
        toy: only to see that it runs; figures are not results.
        seconds: time to spend.
        out: folder for files of the part.
    """

    device: str
    toy: bool
    seconds: float
    out: Path


@dataclass(frozen=True)
class Part:
    """One part.

    Args:
        measure: function that measures and returns the result.
        share: share of the time.
        goal: in words.
        figure: the part of the result that the goal refers to.
        timed: whether its figures are times, so that nothing may run in parallel.
    """

    measure: Callable[[Task], Result]
    share: float
    goal: str
    figure: Callable[[Result], Any]
    timed: bool = False


def tests(task: Task) -> Result:
    """The tests that need a GPU."""
    # Without a GPU, one module is enough to see that the tests are found.
    where = 'tests/gpu' if task.toy else 'tests'
    command = [sys.executable, '-m', 'pytest', '-q', '-m', 'gpu', '-p', 'no:cacheprovider', where]
    command += [] if task.toy or find_spec('xdist') is None else ['-n', '4']
    done = subprocess.run(command, cwd=HERE.parent, capture_output=True, text=True, check=False)
    lines = done.stdout.strip().splitlines() or [done.stderr[-2000:]]
    if done.returncode not in (0, 5):  # 5: no tests
        raise RuntimeError(
            '\n'.join(line for line in lines if line.startswith(('FAILED', 'ERROR')) or line == lines[-1])
        )
    return {'summary': lines[-1], 'skipped': sum('SKIPPED' in line for line in lines)}


def spectral_gan(task: Task) -> Result:
    """An iteration of the spectral GAN at the paper's setting: a textbook loop, ours, and ours as a CUDA graph."""
    from speed_spectral_gan import Textbook, spectra

    from hsiaug.systems.spectral_gan.train import SpectralGANConfig

    config, data = SpectralGANConfig.paper(), spectra(1283, 103, 9)
    if task.toy:
        config = replace(config, hidden=32, batch_size=16)
    loops = {'textbook': Textbook(data, config, task.device).step}
    kinds = {'replayed': ('1', 'highest'), 'replayed, TF32': ('1', 'high')} if task.device != 'cpu' else {}
    for name, (switch, precision) in {'launched': ('0', 'highest'), **kinds}.items():
        loops[f'hsiaug, {name}'] = iteration(data, config, task.device, switch, precision)
    block = 3 if task.device == 'cpu' else 100
    blocks = {name: partial(milliseconds, step, block, task.device) for name, step in loops.items()}
    start = time.perf_counter()
    interleaved(blocks, 1)
    affordable = task.seconds / 2 / (time.perf_counter() - start)
    times = interleaved(blocks, min(max(int(affordable), 3), 30))
    asked = {name: launches(step, task.device) for name, step in loops.items()}
    return {'ms': {name: summary(values) for name, values in times.items()}, 'launches': asked}


def iteration(data: Any, config: Any, device: str, switch: str, precision: str) -> Callable[[], None]:
    """An iteration of the spectral GAN, with or without a CUDA graph, at a precision of matrix products."""
    from hsiaug.systems.spectral_gan.train import SpectralGANTraining

    training, rng = SpectralGANTraining(data, config, 0, device), torch.Generator(device)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)

    def advance() -> None:
        with set_graphs(switch):  # a training that is not recorded asks at each step
            training.advance(rng)

    advance()  # records it
    torch.set_float32_matmul_precision(before)
    return advance


@contextmanager
def set_graphs(switch: str) -> Iterator[None]:
    """Switch recording of steps as CUDA graphs on or off, by the package's own option."""
    before = os.environ.get(SWITCH, '1')
    os.environ[SWITCH] = switch
    try:
        yield
    finally:
        os.environ[SWITCH] = before


def replayed_steps(task: Task) -> Result:
    """Milliseconds of a training step: each operation launched, and the step replayed as a CUDA graph.

    Computed from the difference between many and few steps, since a training records its step once.
    """
    few, many = (1, 3) if task.toy else (4, 20)
    found: Result = {}
    for name, train in trainings(task).items():
        ms = {}
        for way, switch in {'launched': '0', 'replayed': '1'}.items():
            with set_graphs(switch):
                train(2)  # one-time costs
                times = [milliseconds(lambda n=steps, of=train: of(n), 1, task.device) for steps in (few, many)]
            ms[way] = round((times[1] - times[0]) / (many - few), 3)
        found[name] = {**ms, 'ratio': round(ms['launched'] / ms['replayed'], 2)}
    return found


def trainings(task: Task) -> dict[str, Callable[[int], object]]:
    """Whole trainings of a given number of steps."""
    from specdm_change import CHANGEFORMER, FULL_CHANGEFORMER
    from specdm_segmentation import SEGFORMER

    from hsiaug.datasets import ChangeDataset, PatchDataset
    from hsiaug.samples import SampleSpec
    from hsiaug.systems import TrainingData
    from hsiaug.trainers import fit_generator
    from hsiaug.trainers.change_detection import train_change_detector
    from hsiaug.trainers.segmentation import train_segmenter

    side, bands, rng = 16 if task.toy else 64, 12, torch.Generator().manual_seed(0)
    dates = torch.rand(64, 2, bands, side, side, generator=rng)
    masks = torch.randint(2, (64, side, side), generator=rng)
    spec = SampleSpec('segmentation', bands, ('a', 'b'), size=(side, side))
    of_two = replace(spec, kind='change')
    data = TrainingData(spec, dates[:, 0], masks, dates[:0, 0], dates[:0, 0], masks[:0])
    small: Result = {'vae_channels': 4, 'unet_channels': [8, 16]} if task.toy else FULL
    settings: dict[str, tuple[str, Result, str]] = {
        'autoencoders': ('two_stream_diffusion', {**small, 'diffusion_iterations': 1}, 'vae_iterations'),
        'denoiser': ('two_stream_diffusion', {**small, 'vae_iterations': 1}, 'diffusion_iterations'),
        'MSRResGAN': ('msrresgan', {'gradient_iterations': 1, 'width': 8 if task.toy else 64}, 'iterations'),
        'patch GAN': ('patch_gan', {'loss': 'wgan-gp', 'critic_steps': 5}, 'iterations'),
    }

    def of_generator(kind: str, fixed: Result, length: str) -> Callable[[int], object]:
        return lambda steps: fit_generator(kind, data, {**fixed, length: steps}, device=task.device)

    of_pairs, of_changes = PatchDataset(data.x, masks, spec), ChangeDataset(dates, masks[:, None], of_two)
    segformer = SEGFORMER if task.toy else replace(SEGFORMER, encoder='mit_b0', channels=256)
    changeformer = CHANGEFORMER if task.toy else replace(FULL_CHANGEFORMER, upsampling=2)
    return {
        **{name: of_generator(*of) for name, of in settings.items()},
        'SegFormer-B0': lambda steps: train_segmenter(of_pairs, replace(segformer, steps=steps), device=task.device),
        'ChangeFormer V3': lambda steps: train_change_detector(
            of_changes, replace(changeformer, steps=steps), device=task.device
        ),
    }


def live_mixing(task: Task) -> Result:
    """Spectra drawn live in addition to a step of SegFormer-B0, and in a step of NN-1D."""
    from speed_mixing import QUICK, Scale, measure_live

    return measure_live(QUICK if task.toy else Scale(pairs=8, steps=10), task.device)


def bank_mixing(task: Task) -> Result:
    """A step of SegFormer-B0 with half of the samples from a bank."""
    from speed_mixing import QUICK, Files, Scale, measure_step

    scale = replace(QUICK, steps=1, patches=4) if task.toy else Scale(pairs=6, steps=10, patches=64)
    with tempfile.TemporaryDirectory() as folder:
        return measure_step(Files(Path(folder), scale), scale, task.device)


def sampling(task: Task) -> Result:
    """Image-mask pairs of 64 x 64 x 48 in 20 and in 1000 steps; weights do not matter to speed."""
    from speed_sampling import throughput

    from hsiaug.samples import SampleSpec
    from hsiaug.systems import TrainingData
    from hsiaug.trainers import fit_generator

    side = 16 if task.toy else 64
    rng = torch.Generator().manual_seed(0)
    x, y = torch.rand(16, 48, side, side, generator=rng), torch.randint(4, (16, side, side), generator=rng)
    spec = SampleSpec('segmentation', 48, ('a', 'b', 'c', 'd'), size=(side, side))
    settings: Result = {'vae_iterations': 1, 'diffusion_iterations': 1}
    settings |= {'vae_channels': 4, 'unet_channels': [8, 16]} if task.toy else {}
    data = TrainingData(spec, x, y, x[:0], x[:0], y[:0])
    generator: Any = fit_generator('two_stream_diffusion', data, settings, device=task.device)
    return throughput(generator, 2 if task.toy else 64, 2, task.device)


def segmentation(task: Task) -> Result:
    """SpecDM on forests with bark-beetle damage, 64 pixels: fidelity, and the gain of SegFormer-B0."""
    from gpu_studies import Gains
    from real_scenes import barkbeetle, patch_splitter
    from specdm_segmentation import SEGFORMER
    from studies import data_root

    from hsiaug.ablation import Segmenter
    from hsiaug.scenes import PatchSplitter, SimulatedScene

    if task.toy:
        network = Segmenter('SegFormer, tiny', replace(SEGFORMER, steps=2, channels=8))
        scene = SimulatedScene(72, 72, WAVELENGTHS, classes=2, patch=12)
        study = Gains(scene, PatchSplitter(size=16, stride=8), network, SMALL, most=2)
    else:
        network = Segmenter(
            'SegFormer-B0', replace(SEGFORMER, encoder='mit_b0', channels=256, learning_rate=1e-3, steps=500)
        )
        study = Gains(barkbeetle(data_root(), side=64), patch_splitter('barkbeetle', 64), network, FULL, processes=4)
    return study.run(task.seconds, task.out, task.device)


def change(task: Task) -> Result:
    """The same for two dates: fidelity, and the gain of ChangeFormer V3."""
    from gpu_studies import Gains
    from real_scenes import barkbeetle_change, change_splitter
    from specdm_change import CHANGEFORMER, FULL_CHANGEFORMER
    from studies import data_root

    from hsiaug.ablation import Detector
    from hsiaug.scenes import BitemporalScene, PatchSplitter, SimulatedScene

    if task.toy:
        network = Detector('ChangeFormer, tiny', replace(CHANGEFORMER, steps=2, channels=8))
        scene = BitemporalScene.from_simulated(SimulatedScene(72, 72, WAVELENGTHS, dates=2, change=0.3, patch=12))
        study = Gains(scene, PatchSplitter(size=16, stride=8), network, SMALL, most=2)
    else:
        network = Detector('ChangeFormer V3', replace(FULL_CHANGEFORMER, steps=300, learning_rate=3e-4, upsampling=2))
        scene = barkbeetle_change(data_root(), side=64)
        study = Gains(scene, change_splitter('barkbeetle_change', 64), network, FULL, processes=4)
    return study.run(task.seconds, task.out, task.device)


def super_resolution(task: Task) -> Result:
    """MSRResGAN and its baselines at their published size, trained until they no longer gain."""
    from gpu_studies import resolve
    from msrresgan import PAPER, SCALES
    from studies import data_root
    from super_resolution import open_scene, splitter

    from hsiaug.scenes import PatchSplitter, SimulatedScene

    if task.toy:
        scene, windows = SimulatedScene(48, 48, WAVELENGTHS, classes=2), PatchSplitter(size=16, stride=8)
        config, first, longest = replace(SCALES['quick'][0], width=8, blocks=1), 2, 4
    else:
        scene, windows = open_scene(data_root(), 'houston18'), splitter('houston18', 24)
        config, first, longest = replace(PAPER, factor=2), 250, 64_000
    return resolve(scene, windows, config, first, longest, task.seconds, task.out, task.device)


WAVELENGTHS = np.linspace(400, 1000, 8)  # of toys
SMALL: Result = {'vae_channels': 4, 'unet_channels': [8, 16], 'sampling_steps': 2}
FULL: Result = {'unet_channels': [128, 256], 'batch_size': 32, 'vae_batch_size': 16, 'precision': 'tf32'}


def each_loop(result: Result) -> str:
    """Milliseconds of every loop."""
    return ', '.join(f'{name} {times["median"]:.3f} ms' for name, times in result['ms'].items())


def faster(result: Result) -> str:
    """How many times faster a replayed step is, by what is trained."""
    return ', '.join(f'{name} {of["ratio"]} ({of["launched"]} to {of["replayed"]} ms)' for name, of in result.items())


def ratios(result: Result) -> str:
    """Median ratios of a comparison."""
    found = {
        name: value['ratio']['median'] for name, value in result.items() if isinstance(value, dict) and 'ratio' in value
    }
    return ', '.join(f'{name}: {ratio:.3f}' for name, ratio in found.items())


def pairs(result: Result) -> str:
    """Time per pair, and the speed-up by few steps."""
    whole = result['whole']
    return f'{whole["ms_per_pair_20_steps"]["median"]:.2f} ms, {result["denoising"]["ratio"]["median"]:.1f} times'


PARTS: dict[str, Part] = {
    'tests': Part(tests, 0.1, 'none fails', lambda result: result['summary']),
    'spectral_gan': Part(spectral_gan, 0.04, 'at most 0.5 ms an iteration', each_loop, timed=True),
    'replayed_steps': Part(replayed_steps, 0.06, 'none slower', faster, timed=True),
    'live_mixing': Part(live_mixing, 0.05, 'at most 1.05 beside SegFormer-B0', ratios, timed=True),
    'bank_mixing': Part(bank_mixing, 0.12, 'at most 1.02', ratios, timed=True),
    'sampling': Part(sampling, 0.08, 'at most 10 ms a pair, at least 40 times', pairs, timed=True),
    'segmentation': Part(segmentation, 0.38, 'two-stream above real only', gains_in_short),
    'change': Part(change, 0.14, 'two-stream above real only', gains_in_short),
    'super_resolution': Part(super_resolution, 0.09, 'the order of the paper', ordered),
}


# --- running ----------------------------------------------------------------------------------------------------------


def run_part(name: str, device: str, toy: bool, seconds: float, out: Path) -> Result:
    """Run a part in its own process; returns its result or error."""
    file = out / name / 'result.json'
    command = [sys.executable, __file__, '--only', name, '--device', device, '--out', str(out)]
    command += ['--seconds', str(seconds), *(['--toy'] if toy else [])]
    start = time.perf_counter()
    limit = 1.5 * seconds + (180 if toy else 20)  # a loaded machine may need a minute to import everything
    record: Result = {'part': name, 'goal': PARTS[name].goal, 'toy': toy}
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=limit)
        if done.returncode == 0:
            record |= {'result': json.loads(file.read_text())}
        else:
            record |= {'error': (done.stderr or done.stdout).strip()[-2000:]}
    except subprocess.TimeoutExpired:
        record |= {'error': f'not done after {limit:.0f} s'}
    return {**record, 'seconds': round(time.perf_counter() - start, 1), 'machine': machine(device)}


def table(records: list[Result]) -> str:
    """Each part's last record as a row of Markdown."""
    last = {record['part']: record for record in records}
    device = next((record['machine']['device'] for record in last.values()), 'none')
    lines = ['# On a GPU', '', f'Device: {device}.', '', '| part | goal | found | seconds |', '|---|---|---|---|']
    for name, part in PARTS.items():
        if (record := last.get(name)) is None:
            found, seconds = 'not run', ''
        else:
            error = str(record.get('error', '')).strip().splitlines()
            found = f'error: {error[-1]}' if error else str(part.figure(record['result']))
            found, seconds = ('(toy) ' if record['toy'] else '') + found, record['seconds']
        lines.append(f'| {name} | {part.goal} | {found.replace("|", "/")} | {seconds} |')
    return '\n'.join(lines)


def main() -> None:
    """Run the parts that have no result yet, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--minutes', type=float, default=8)
    parser.add_argument('--out', type=Path, required=True, help='folder of the results')
    parser.add_argument('--device', choices=['auto', 'cuda', 'cpu'], default='auto')
    parser.add_argument('--toy', action='store_true', help='see that it runs; its figures are not results')
    parser.add_argument(
        '--side-by-side', action='store_true', help='tests and studies at once, after the timings; for many cores'
    )
    parser.add_argument('--parts', nargs='+', choices=list(PARTS), default=list(PARTS))
    parser.add_argument('--only', choices=list(PARTS), help=argparse.SUPPRESS)
    parser.add_argument('--seconds', type=float, default=30.0, help=argparse.SUPPRESS)
    args = parser.parse_args()
    device = ('cuda' if torch.cuda.is_available() else 'cpu') if args.device == 'auto' else args.device
    if args.only:
        folder = args.out / args.only
        folder.mkdir(parents=True, exist_ok=True)
        torch.manual_seed(0)
        result = PARTS[args.only].measure(Task(device, args.toy, args.seconds, folder))
        write_json(folder / 'result.json', result)
        return
    print(f'device: {device}', flush=True)
    args.out.mkdir(parents=True, exist_ok=True)
    end, log = time.monotonic() + 60 * args.minutes, args.out / 'parts.jsonl'
    records = read_lines(log, 'part', 'a part')
    done = {r['part'] for r in records if 'result' in r and r['result'].get('whole', True) and r['toy'] == args.toy}
    left = [name for name in args.parts if name not in done]
    if args.side_by_side:
        left.sort(key=lambda name: not PARTS[name].timed)

    def run(name: str, seconds: float) -> None:
        seconds = max(seconds, 5) if args.toy else seconds
        if seconds < 1:
            print(f'{name}: no time is left; the same command runs it')
            return
        record = run_part(name, device, args.toy, math.floor(seconds), args.out)
        append_line(log, record)
        records.append(record)
        print(f'{name}: {record["seconds"]} s, {"error" if "error" in record else "done"}', flush=True)

    together = [name for name in left if args.side_by_side and not PARTS[name].timed]
    for k, name in enumerate(left):
        if name not in together:
            share = PARTS[name].share / sum(PARTS[other].share for other in left[k:])
            run(name, share * (end - time.monotonic()))
    if together:
        with ThreadPoolExecutor(len(together)) as pool:
            rest = end - time.monotonic()
            list(pool.map(lambda name: run(name, rest), together))
    text = table(records)
    (args.out / 'table.md').write_text(text + '\n')
    print(text)


if __name__ == '__main__':
    os.environ.setdefault('PYTHONPATH', str(HERE.parent))
    main()
