"""How long the stages of the two-stream model must be trained: fidelity and time at several lengths and batch sizes.

    HSIAUG_DATA=folder python benchmarks/two_stream_lengths.py              # 3 seeds, about an hour on 2 cores

All else is the library's default. Interrupt and repeat at will.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from real_scenes import MASKED, patch_splitter
from studies import data_root

from hsiaug.ablation import Arm, Experiment, Setting
from hsiaug.ablation.cells import Group
from hsiaug.ablation.experiment import means, means_table
from hsiaug.scenes import PatchSplitter, Scene, SimulatedScene
from hsiaug.tasks.base import finite

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


@dataclass(frozen=True)
class Cell:
    """One length on one split of one scene."""

    scene: str
    seed: int
    length: str


@lru_cache(maxsize=1)
def group(root: Path, out: Path, name: str, seed: int) -> Group:
    """What all lengths share."""
    return Group(*opened(root, name, seed), seed, out)


def measure(cell: Cell, root: Path, out: Path) -> dict[str, Any]:
    """Fidelity at one length, and the time that the training took."""
    split = group(root, out, cell.scene, cell.seed)
    steps, batch, further, size = LENGTHS[cell.length]
    settings = {'vae_iterations': steps, 'vae_batch_size': batch, 'diffusion_iterations': further, 'batch_size': size}
    arm, start = Arm(cell.length, 'two_stream_diffusion', settings, 'real'), time.process_time()
    split.generator(arm)
    seconds = time.process_time() - start
    found = finite(split.measure_fidelity(arm))
    return {'cpu_seconds': round(seconds, 1), 'patches': len(split.real), **found, **found['reconstruction']}


def main() -> None:
    """Measure what is missing, print and write the table: means over seeds, time in that of the first length."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--scenes', nargs='+', default=['jasper_ridge', 'houston18', SIMULATED])
    parser.add_argument('--seeds', type=int, default=3)
    parser.add_argument('--out', type=Path, default=Path('runs/two-stream-lengths'))
    parser.add_argument('--workers', type=int, default=2)
    args = parser.parse_args()
    root, out = data_root(), args.out.absolute()
    cells = [Cell(name, seed, length) for seed in range(args.seeds) for name in args.scenes for length in LENGTHS]
    experiment = Experiment(
        "Lengths of the two-stream model's stages",
        cells,
        partial(measure, root=root, out=out),
        {'lengths': LENGTHS},
        lambda cell: (cell.scene, cell.seed),
    )
    rows = experiment.run(out, args.workers)
    first = {(r['scene'], r['seed']): r['cpu_seconds'] for r in rows if r['length'] == next(iter(LENGTHS))}
    timed = [{**row, 'time': row['cpu_seconds'] / first[row['scene'], row['seed']]} for row in rows]
    names = (*FIGURES, 'rmse', 'time')
    table = means(timed, ('scene', 'length'), names)
    text = means_table(table, ('scene', 'length'), dict(zip(names, names, strict=True)))
    print(experiment.write(out, text, table))


if __name__ == '__main__':
    main()
