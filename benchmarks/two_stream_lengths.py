"""How long the stages of the two-stream model must be trained: fidelity and time at several lengths and batch sizes.

    HSIAUG_DATA=folder python benchmarks/two_stream_lengths.py              # 3 seeds, about an hour on 2 cores

All else is the library's default. Interrupt and repeat at will.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from real_scenes import MASKED, patch_splitter
from studies import data_root
from workers import run_in_workers

from hsiaug.ablation import Arm, Setting
from hsiaug.ablation.cells import Group
from hsiaug.ablation.results import append_result, read_results
from hsiaug.ablation.runner import environment
from hsiaug.records import write_json
from hsiaug.scenes import PatchSplitter, Scene, SimulatedScene

# Steps and batches of the autoencoders and of the denoiser.
LENGTHS = {
    '600 x 2, 3000 x 4': (600, 2, 3000, 4),
    '600 x 8, 3000 x 4': (600, 8, 3000, 4),
    '1200 x 8, 3000 x 4': (1200, 8, 3000, 4),
    '1200 x 8, 1500 x 8': (1200, 8, 1500, 8),
}
SIMULATED = 'simulated'
FIGURES = ('fid_image', 'fid_mask', 'msad', 'alignment', 'std_ratio', 'precision', 'recall')


def opened(root: Path, name: str, seed: int) -> tuple[Scene, Setting]:
    """A scene and its split into patches."""
    if name == SIMULATED:
        return SimulatedScene(128, 128, seed=seed), Setting(name, '32 px', PatchSplitter(size=32, stride=8))
    return MASKED[name](root), Setting(name, '16 px', replace(patch_splitter(name, 16), stride=4))


def measure(root: Path, out: Path, name: str, seed: int) -> None:
    """Measure what is missing of one scene and seed."""
    torch.set_num_threads(1)
    file = out / 'results.jsonl'
    known = {row['cell'] for row in read_results(file)}
    missing = {length: sizes for length, sizes in LENGTHS.items() if f'{name}|{seed}|{length}' not in known}
    if not missing:
        return
    scene, setting = opened(root, name, seed)
    group = Group(scene, setting, seed, out)
    for length, (steps, batch, further, size) in missing.items():
        settings = {
            'vae_iterations': steps, 'vae_batch_size': batch, 'diffusion_iterations': further, 'batch_size': size,
        }  # fmt: skip
        arm, start = Arm(length, 'two_stream_diffusion', settings, 'real'), time.process_time()
        group.generator(arm)
        seconds = time.process_time() - start
        cell = {'cell': f'{name}|{seed}|{length}', 'patches': len(group.real), 'cpu_seconds': round(seconds, 1)}
        append_result(file, {**cell, **group.measure_fidelity(arm)})


def table(rows: list[dict[str, Any]]) -> str:
    """Means over seeds, and their spread; time as a multiple of the first length's on the same scene and seed."""
    text = [f'| scene | steps x batch | {" | ".join(FIGURES)} | RMSE back | time |', '|---' * (len(FIGURES) + 4) + '|']
    first = next(iter(LENGTHS))
    base = {(row['scene'], row['seed']): row['cpu_seconds'] for row in rows if row['arm'] == first}
    for scene in dict.fromkeys(row['scene'] for row in rows):
        for length in LENGTHS:
            mine = [row for row in rows if (row['scene'], row['arm']) == (scene, length)]
            if not mine:
                continue
            values = [[row[name] for row in mine] for name in FIGURES]
            values.append([row['reconstruction']['rmse'] for row in mine])
            cells = [f'{np.mean(v):.3g} ± {np.std(v, ddof=min(1, len(v) - 1)):.2g}' for v in values]
            times = [row['cpu_seconds'] / base[scene, row['seed']] for row in mine if (scene, row['seed']) in base]
            text.append(f'| {scene} | {length} | {" | ".join(cells)} | {np.median(times):.2f} |')
    return '\n'.join(text) + '\n'


def main() -> None:
    """Measure what is missing, print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--scenes', nargs='+', default=['jasper_ridge', 'houston18', SIMULATED])
    parser.add_argument('--seeds', type=int, default=3)
    parser.add_argument('--out', type=Path, default=Path('runs/two-stream-lengths'))
    parser.add_argument('--workers', type=int, default=2)
    args = parser.parse_args()
    out = args.out.absolute()
    tasks = [(data_root(), out, name, seed) for seed in range(args.seeds) for name in args.scenes]
    run_in_workers(measure, tasks, args.workers, 'scenes and seeds', 'group')
    text = table(read_results(out / 'results.jsonl'))
    write_json(out / 'plan.json', {'environment': environment(), 'lengths': json.loads(json.dumps(LENGTHS))})
    (out / 'table.md').write_text(text)
    print(text)


if __name__ == '__main__':
    main()
