"""Memory of training the two-stream model on 20 000 image-mask pairs of 10 x 128 x 128 float32 values (13.1 GB).

    python benchmarks/memory_dataset.py /tmp/pairs --out benchmarks/results/memory_dataset.json

The pairs are generated once, as ``images.npy`` and ``masks.npy`` in the given folder (13.5 GB), and kept for further
runs. The dataset opens the file for each pair, like one of single files would: in a permanent mapping, every page ever
read counts as resident. The training runs in its own process with its workers. The benchmark samples the proportional
resident memory (``Pss``, shared pages counted once) of all these processes several times a second, and measures the
seconds until the first step, i.e. of the pass over all pairs. Linux only.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measure import machine, publish
from processes import Peak, fresh_process
from torch.utils.data import Dataset

import hsiaug

BANDS, SIDE, CLASSES = 10, 128, ('water', 'field', 'forest', 'town')
LIMIT_GB = 3.0
SETTINGS: dict[str, Any] = {'vae_iterations': 20, 'diffusion_iterations': 20, 'vae_batch_size': 8, 'batch_size': 8}


class StoredPairs(Dataset[dict[str, Any]]):
    """Pairs in two memory-mapped files."""

    classes = CLASSES

    def __init__(self, folder: Path) -> None:
        self.files = folder / 'images.npy', folder / 'masks.npy'
        self.length = len(np.load(self.files[0], mmap_mode='r'))

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> dict[str, Any]:
        image, mask = (torch.from_numpy(np.array(np.load(file, mmap_mode='r')[index])) for file in self.files)
        return {'image': image, 'mask': mask}


def write_pairs(folder: Path, count: int) -> None:
    """Write smooth regions of four classes, each with a spectrum and noise: 200 pairs, repeated under new illumination.

    New noise for each pair would take longer than the measurement; for the training, all pairs are different.
    """
    folder.mkdir(parents=True, exist_ok=True)
    shape = (count, BANDS, SIDE, SIDE)
    if (folder / 'images.npy').exists() and np.load(folder / 'images.npy', mmap_mode='r').shape == shape:
        return
    rng = torch.Generator().manual_seed(0)
    spectra = 0.1 + 0.4 * torch.rand((len(CLASSES), BANDS), generator=rng)
    coarse = torch.randn((min(200, count), len(CLASSES), 8, 8), generator=rng)
    mask = torch.nn.functional.interpolate(coarse, (SIDE, SIDE), mode='bilinear').argmax(dim=1)
    image = spectra[mask].movedim(-1, 1).contiguous()
    image += 0.01 * torch.randn(image.shape, generator=rng)
    with (folder / 'images.part').open('wb') as images, (folder / 'masks.npy').open('wb') as masks:
        for file, descr, dims in ((images, '<f4', shape), (masks, '|u1', (count, SIDE, SIDE))):
            np.lib.format.write_array_header_1_0(file, {'descr': descr, 'fortran_order': False, 'shape': dims})
        for start in range(0, count, len(image)):
            n = min(len(image), count - start)
            light = 1 + 0.15 * torch.randn((n, 1, 1, 1), generator=rng)
            (light * image[:n]).numpy().tofile(images)
            mask[:n].to(torch.uint8).numpy().tofile(masks)
    (folder / 'images.part').rename(folder / 'images.npy')


def train(folder: Path, workers: int) -> dict[str, Any]:
    """A few steps of both stages; seconds of the pass over all pairs and of the rest."""
    start = time.perf_counter()
    adapted = hsiaug.adapt(StoredPairs(folder), workers=workers)
    adapted.survey()
    passed = time.perf_counter() - start
    generator = hsiaug.fit('two_stream_diffusion', adapted, workers=workers, settings=SETTINGS)
    if not all(value.isfinite().all() for value in generator.state_dict().values()):
        raise RuntimeError('the generator is not finite')
    return {'pass_s': round(passed, 1), 'training_s': round(time.perf_counter() - start - passed, 1)}


def memory_gb(process: int) -> float:
    """Proportional resident memory of a process and its children in GB (10^9 bytes)."""
    found, waiting = 0, [process]
    while waiting:
        folder = Path('/proc') / str(waiting.pop())
        try:
            text = (folder / 'smaps_rollup').read_text()
            waiting += [int(child) for child in (folder / 'task' / folder.name / 'children').read_text().split()]
        except (OSError, ProcessLookupError):  # it has ended
            continue
        found += int(dict(line.split(':', 1) for line in text.splitlines()[1:])['Pss'].split()[0])
    return found * 1024 / 1e9


def measure(folder: Path, workers: int) -> dict[str, Any]:
    """Peak memory while another process trains."""
    with fresh_process() as process:
        pid = process.submit(os.getpid).result()
        with Peak(partial(memory_gb, pid), interval=0.1) as peak:
            found = process.submit(train, folder, workers).result()
    return {'workers': workers, 'peak_gb': round(peak.highest, 2), **found}


def main() -> int:
    """Run the benchmark; exit status 1 if the memory is over the limit."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('folder', type=Path, help='where the pairs are, or are written; outside the repository')
    parser.add_argument('--pairs', type=int, default=20_000)
    parser.add_argument('--workers', type=int, default=2)
    parser.add_argument('--out', type=Path, help='JSON file of the results')
    args = parser.parse_args()
    write_pairs(args.folder, args.pairs)
    result = measure(args.folder, args.workers)
    stored = sum(file.stat().st_size for file in args.folder.glob('*.npy')) / 1e9
    result |= {'pairs': args.pairs, 'stored_gb': round(stored, 2), 'settings': SETTINGS, 'machine': machine()}
    publish(result, args.out)
    return 0 if result['peak_gb'] < LIMIT_GB else 1


if __name__ == '__main__':
    sys.exit(main())
