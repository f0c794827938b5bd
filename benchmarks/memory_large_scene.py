"""Memory of a large scene: open, split and sample 2517 x 2335 x 128 uint16 values (1.5 GB) from a memory-mapped file.

    python benchmarks/memory_large_scene.py --out benchmarks/results/memory_large_scene.json

The files (``.npy`` and raw ENVI) are written to a temporary folder and removed. Each measurement runs in its own
process: peak anonymous resident memory (``RssAnon``, which excludes the mapping of the file), sampled every few
milliseconds, minus the memory of the imports. By default, 77 592 pixels are labelled, as in the Chikusei scene of this
size; ``--labelled 5877195`` labels every pixel. Linux only.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from measure import machine, publish
from processes import Peak, in_fresh_process, resident_mb

from hsiaug.scenes import RandomSplit, open_scene

HEIGHT, WIDTH, BANDS = 2517, 2335, 128
CLASSES = 19
SAMPLES = 10_000
LIMIT_MB = 1000
_ENVI_HEADER = f"""ENVI
samples = {WIDTH}
lines = {HEIGHT}
bands = {BANDS}
header offset = 0
file type = ENVI Standard
data type = 12
interleave = bil
byte order = 0
"""


def measure(cube: Path, labels: Path) -> dict[str, Any]:
    """Open, split and sample in this process; MB beyond the imports, and seconds, of each step."""
    baseline = resident_mb()
    with Peak() as opening:
        scene = open_scene(cube, labels)
    with Peak() as splitting:
        split = RandomSplit(fraction=0.03)(scene, seed=0)
    with Peak() as sampling:
        pixels = np.random.default_rng(0).choice(scene.num_pixels, SAMPLES, replace=False)
        spectra = scene.spectra(pixels)
    if spectra.shape != (SAMPLES, BANDS):
        raise RuntimeError(f'sampled {spectra.shape}, expected {(SAMPLES, BANDS)}')
    steps = {'open': opening, 'split': splitting, 'sample': sampling}
    return {
        'baseline_mb': round(baseline),
        'peak_mb': {k: round(p.highest - baseline) for k, p in steps.items()},
        'seconds': {k: round(p.seconds, 2) for k, p in steps.items()},
        'train_pixels': len(split.train),
        'test_pixels': len(split.test),
    }


def write_scene(folder: Path, kind: str, labelled: int) -> tuple[Path, Path]:
    """Write cube and labels, a few rows at a time."""
    rng = np.random.default_rng(0)
    labels = np.zeros(HEIGHT * WIDTH, dtype=np.uint8)
    chosen = slice(None) if labelled == labels.size else rng.choice(labels.size, labelled, replace=False)
    labels[chosen] = rng.integers(1, CLASSES + 1, labelled)
    np.save(folder / 'labels.npy', labels.reshape(HEIGHT, WIDTH))
    cube = folder / ('cube.npy' if kind == 'npy' else 'cube.bil')
    with cube.open('wb') as out:
        if kind == 'npy':
            header = {'descr': '<u2', 'fortran_order': False, 'shape': (HEIGHT, WIDTH, BANDS)}
            np.lib.format.write_array_header_1_0(out, header)
        else:
            cube.with_suffix('.hdr').write_text(_ENVI_HEADER)
        for start in range(0, HEIGHT, 64):
            rows = rng.integers(1, 10_000, (min(64, HEIGHT - start), WIDTH, BANDS), dtype=np.uint16)
            (rows if kind == 'npy' else np.ascontiguousarray(rows.transpose(0, 2, 1))).tofile(out)
    return cube, folder / 'labels.npy'


def main() -> int:
    """Run the benchmark; exit status 1 if a measurement is over the limit."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--labelled', type=int, nargs='+', default=[77_592], help='numbers of labelled pixels')
    parser.add_argument('--files', nargs='+', choices=('npy', 'envi'), default=['npy', 'envi'])
    parser.add_argument('--tmp', type=Path, help='where the temporary folder is made; needs 1.6 GB')
    parser.add_argument('--out', type=Path, help='JSON file of the results')
    args = parser.parse_args()
    results = []
    for kind in args.files:
        for labelled in args.labelled:
            if not CLASSES * 1000 <= labelled <= HEIGHT * WIDTH:
                parser.error(f'--labelled must be from {CLASSES * 1000} to {HEIGHT * WIDTH}, found {labelled}')
            with tempfile.TemporaryDirectory(dir=args.tmp) as folder:
                found = in_fresh_process(measure, *write_scene(Path(folder), kind, labelled))
            ok = max(found['peak_mb'].values()) < LIMIT_MB
            results.append({'file': kind, 'labelled': labelled, **found, 'ok': ok})
    shape = [HEIGHT, WIDTH, BANDS]
    facts = {'shape': shape, 'dtype': 'uint16', 'limit_mb': LIMIT_MB, 'machine': machine(), 'results': results}
    publish(facts, args.out)
    return 0 if all(r['ok'] for r in results) else 1


if __name__ == '__main__':
    sys.exit(main())
