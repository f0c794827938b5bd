"""Two fidelity goals on small scenes: spectra of the spectral GAN, and super-resolution against interpolation.

    HSIAUG_DATA=folder python benchmarks/fidelity_goals.py spectra --scenes salinas_a    # about 12 s per cell
    HSIAUG_DATA=folder python benchmarks/fidelity_goals.py resolution --steps 400        # about 11 s

Spectra: 30 labels per class including validation, spatially disjoint parts; 200 spectra per class from the GAN at its
defaults, without and with each calibration, and from duplicates. Real spectra of the validation part, about nine per
class, show how close unseen real spectra are to the training spectra.
Resolution: windows of 16 pixels of Houston, degraded by 2; networks of width 16 with 2 blocks, batches of 4, as trained
and as shrunk on the validation windows. An interrupted run resumes when repeated.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, get_args

import torch
from real_scenes import DISJOINT, READERS
from studies import data_root
from super_resolution import open_scene
from torch import Tensor

from hsiaug.ablation import Experiment
from hsiaug.ablation.experiment import means, means_table
from hsiaug.datasets import PatchDataset, SpectraDataset
from hsiaug.engine import Run
from hsiaug.functional.degradation import degrade, upsample
from hsiaug.metrics.super_resolution import super_resolution_scores
from hsiaug.scenes import PatchSplitter
from hsiaug.systems import Generator
from hsiaug.systems.fit import fit_generator, training_data
from hsiaug.systems.msrresgan.train import SuperResolutionConfig, shrink_residual, train_super_resolution
from hsiaug.systems.spectral_gan.model import Calibration, SpectralGAN
from hsiaug.tasks import whole
from hsiaug.tasks.spectrum import Spectra, spectral_record

SPECTRA = {'std': 'standard deviation within classes, of real', 'rough': 'roughness, of real', 'fr': 'SVM fake→real',
           'rr': 'real→real', 'gap': 'difference, points', 'closer': 'closer than real'}  # fmt: skip
RESOLUTION = {'psnr': 'PSNR (dB)', 'sam': 'SAM (deg)'}


@dataclass(frozen=True)
class Cell:
    """One training: a GAN on a scene, or a super-resolution network."""

    part: str
    of: str  # scene, or network
    seed: int
    steps: int = 0  # of super-resolution


def spectra(cell: Cell, root: Path) -> dict[str, Any]:
    """Fidelity of the GAN's spectra, by calibration, and of duplicates."""
    scene = READERS[cell.of](root)
    split = DISJOINT[cell.of](per_class=30, on_rare='drop', max_test=3000)(scene, cell.seed)
    data, test = training_data(scene, split), whole(SpectraDataset(scene, split, 'test'))
    begin = time.process_time()
    trained = fit_generator('spectral_gan', data, {}, cell.seed)
    seconds = time.process_time() - begin
    networks = {name: value for name, value in trained.state_dict().items() if name.startswith(('network', 'space'))}

    def scores(fake: tuple[Tensor, Tensor]) -> dict[str, float]:
        found = spectral_record((data.x, data.y), test, fake, data.spec.num_classes)
        fr, rr = found['svm']['fake_real'], found['svm']['real_real']
        near = {'rough': found['roughness_ratio'], 'closer': found['authenticity_share_closer']}
        return {'std': found['std_ratio'], **near, 'fr': fr, 'rr': rr, 'gap': 100 * (fr - rr)}

    def drawn(generator: Generator) -> dict[str, float]:
        fake = Spectra().draw(generator, 0, 200, cell.seed)
        return scores((fake['image'], fake['label']))

    result = {}
    for calibration in ('none', *get_args(Calibration)):
        given = 'marginal' if calibration == 'none' else calibration
        generator = SpectralGAN(trained.spec, **{**trained.settings, 'calibration': given})
        generator.load_state_dict(networks, strict=False)
        if calibration != 'none':
            generator.calibrate(data, cell.seed)
        result[calibration] = drawn(generator.eval())
    result['duplicate'] = drawn(fit_generator('duplicate', data, {}, cell.seed))
    result['real, unseen'] = scores((data.val_x, data.val_y))
    return {**result, 'cpu_seconds': round(seconds, 1)}


def resolution(cell: Cell, root: Path) -> dict[str, Any]:
    """Scores of a network on the test half, as trained and shrunk, and of interpolation."""
    scene = open_scene(root, 'houston18')
    split = PatchSplitter(size=16, stride=4, val_fraction=0.1, regions='halves', buffer=2)(scene, cell.seed)
    data, high = training_data(scene, split), PatchDataset.from_scene(scene, split, 'test').image
    config = SuperResolutionConfig(
        cell.of, width=16, blocks=2, gradient_iterations=cell.steps // 2, iterations=cell.steps, batch_size=4,
        discriminator_width=8, shrink=False,
    )  # fmt: skip
    begin = time.process_time()
    generator: Any = train_super_resolution(data, config, Run(cell.seed))
    seconds, low, val = time.process_time() - begin, degrade(high, 2), generator.normalise(data.val_x)

    def scores(image: Tensor) -> dict[str, float]:
        found = super_resolution_scores(image, high, 2)
        return {'psnr': found.psnr, 'sam': math.degrees(found.sam)}

    with torch.no_grad():
        last = scores(torch.cat([generator(part) for part in low.split(32)]))
        share = shrink_residual(generator.network, upsample(degrade(val, 2), 2), val)
        shrunk = scores(torch.cat([generator(part) for part in low.split(32)]))
    windows = {'train_windows': len(data.x), 'val_windows': len(val), 'cpu_seconds': round(seconds, 1)}
    return {'bicubic': scores(upsample(low, 2)), 'last': last, 'shrunk': shrunk, 'share': share, **windows}


def measure(cell: Cell, root: Path) -> Mapping[str, Any]:
    """One cell."""
    return (spectra if cell.part == 'spectra' else resolution)(cell, root)


def main() -> None:
    """Measure what is missing, and print the means over seeds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('part', choices=['spectra', 'resolution'])
    parser.add_argument('--scenes', nargs='+', choices=list(READERS), default=['salinas_a', 'houston18'])
    parser.add_argument('--steps', type=int, default=400, help='of super-resolution')
    parser.add_argument('--seeds', type=int, default=5)
    parser.add_argument('--out', type=Path, default=None, help='run folder (default: runs/fidelity-PART)')
    args = parser.parse_args()
    of = args.scenes if args.part == 'spectra' else ['msrresnet', 'msrresgan']
    steps = 0 if args.part == 'spectra' else args.steps
    cells = [Cell(args.part, name, seed, steps) for seed in range(args.seeds) for name in of]
    experiment = Experiment(f'Fidelity goals: {args.part}', cells, partial(measure, root=data_root()))
    out = args.out or Path(f'runs/fidelity-{args.part}')
    rows = [
        {'of': row['of'], 'form': form, **found}
        for row in experiment.run(out)
        for form, found in row.items()
        if isinstance(found, dict)
    ]
    names = SPECTRA if args.part == 'spectra' else RESOLUTION
    table = means(rows, ('of', 'form'), tuple(names))
    print(experiment.write(out, means_table(table, ('of', 'form'), names), table))


if __name__ == '__main__':
    main()
