"""Fidelity of the spectral GAN's spectra by calibration, against duplicates and unseen real spectra.

    HSIAUG_DATA=folder python benchmarks/gan_fidelity.py --quick     # 3 seeds, about 12 s each on a scene

30 labels per class including validation, spatially disjoint parts; 200 spectra per class from the GAN at its defaults,
without and with each calibration, and from duplicates. Real spectra of the validation part, about nine per class, show
how close unseen real spectra are to the training spectra. An interrupted run resumes when repeated.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, get_args

from real_scenes import DISJOINT, READERS
from studies import data_root, options, parsed
from torch import Tensor

from hsiaug.ablation import Experiment
from hsiaug.ablation.experiment import means, means_table
from hsiaug.datasets import SpectraDataset
from hsiaug.systems import Generator
from hsiaug.systems.fit import fit_generator, training_data
from hsiaug.systems.spectral_gan.model import Calibration, SpectralGAN
from hsiaug.tasks import whole
from hsiaug.tasks.spectrum import Spectra, spectral_record

SCORES = {'std': 'standard deviation within classes, of real', 'rough': 'roughness, of real', 'fr': 'SVM fake→real',
          'rr': 'real→real', 'gap': 'difference, points', 'closer': 'closer than real'}  # fmt: skip


@dataclass(frozen=True)
class Cell:
    """One GAN."""

    scene: str
    seed: int


def measure(cell: Cell, root: Path) -> dict[str, Any]:
    """Fidelity of the GAN's spectra, by calibration, of duplicates, and of unseen real spectra."""
    scene = READERS[cell.scene](root)
    split = DISJOINT[cell.scene](per_class=30, on_rare='drop', max_test=3000)(scene, cell.seed)
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


def main() -> None:
    """Measure what is missing, and print the means over seeds."""
    parser = options(__doc__, 'gan-fidelity', seeds=(5, 3))
    parser.add_argument('--scenes', nargs='+', choices=list(READERS), default=['salinas_a', 'houston18'])
    args = parsed(parser)
    cells = [Cell(scene, seed) for seed in range(args.seeds) for scene in args.scenes]
    experiment = Experiment('Fidelity of spectra of the GAN', cells, partial(measure, root=data_root()))
    rows = [
        {'scene': row['scene'], 'spectra': spectra, **found}
        for row in experiment.run(args.out, args.workers)
        for spectra, found in row.items()
        if isinstance(found, dict)
    ]
    table = means(rows, ('scene', 'spectra'), tuple(SCORES))
    print(experiment.write(args.out, means_table(table, ('scene', 'spectra'), SCORES), table))


if __name__ == '__main__':
    main()
