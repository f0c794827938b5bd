"""The fidelity report of one generator."""

from __future__ import annotations

from pathlib import Path

import torch
from matplotlib.figure import Figure

from ..datasets import SpectraDataset
from ..metrics import Fidelity, fidelity
from ..samples import SampleSpec, require_compatible, require_unseen
from ..scenes import Scene, Split
from ..systems import Generator
from ..systems.abilities import Interpolates
from ..systems.base import CARD_FILE
from .fidelity import plot_class_spectra, plot_interpolation, plot_pca


def evaluate_generator(generator: Generator, scene: Scene, split: Split, out: Path, per_class: int = 200) -> str:
    """Measure a generator against real spectra; write figures, ``fidelity.md`` and the model card.

    Args:
        generator: trained on ``split``.
        scene: the scene.
        split: the split; its test part is what the generator has not seen.
        out: folder for the figures; the generator's own.
        per_class: synthetic samples per class.

    Returns:
        the report in Markdown.

    Raises:
        LeakageError: if the generator has seen test pixels of the split.
        SpecMismatchError: if bands or classes differ.
    """
    parts = {part: SpectraDataset(scene, split, part) for part in ('train', 'test')}  # type: ignore[arg-type]
    require_compatible(parts['train'].spec, generator.spec)
    require_unseen(generator.provenance, split.scene, split.test)
    classes = generator.spec.num_classes
    # Class by class in turn, so that every other sample, half of all, holds all classes.
    labels = torch.arange(classes).repeat(per_class)
    labels = labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))]
    batch = generator.sample(len(labels), labels, seed=0)
    fake = (batch['image'].cpu(), batch['label'].cpu())
    train, test = parts['train'].tensors(), parts['test'].tensors()
    result = fidelity(train, test, fake, classes)

    figures: dict[str, Figure] = {
        'class_spectra': plot_class_spectra(train, fake, generator.spec),
        'pca': plot_pca(*train, *fake, generator.spec),
    }
    if isinstance(generator, Interpolates) and generator.conditional:
        figures |= _interpolations(generator, generator.spec)
    (out / 'figures').mkdir(parents=True, exist_ok=True)
    for name, figure in figures.items():
        figure.savefig(out / 'figures' / f'{name}.png', dpi=120)
    text = fidelity_markdown(result, generator.spec)
    (out / 'fidelity.md').write_text(text)
    images = ''.join(f'\n![{name.replace("_", " ")}](figures/{name}.png)\n' for name in figures)
    (out / CARD_FILE).write_text(generator.card() + '\n' + text + images)
    return text


def fidelity_markdown(result: Fidelity, spec: SampleSpec) -> str:
    """A fidelity as Markdown tables."""
    svm = {name: f'{100 * value:.1f}' for name, value in result.svm.items()}
    lines = [
        '## Fidelity',
        '',
        '| measure | value | ideal |',
        '|---|---|---|',
        f'| spectral angle between class means (mSAD, radians) | {result.msad:.4f} | 0 |',
        f'| standard deviation, synthetic / real | {result.std_ratio:.2f} | 1 |',
        f'| band-to-band roughness, synthetic / real | {result.roughness_ratio:.2f} | 1 |',
        f'| synthetic nearer to a real spectrum than its neighbour | {100 * result.closer_than_real:.1f} % | 50 % |',
        '',
        'Linear SVM, accuracy in % (Audebert et al. 2018, Table 1):',
        '',
        '| ' + ' | '.join(name.replace('_', '→') for name in svm) + ' |',
        '|' + '---|' * len(svm),
        '| ' + ' | '.join(svm.values()) + ' |',
        '',
        '| class | angle of the class means (radians) |',
        '|---|---|',
        *(f'| {name} | {angle:.4f} |' for name, angle in zip(spec.classes, result.msad_per_class, strict=True)),
    ]
    return '\n'.join(lines) + '\n'


def _interpolations(generator: Interpolates, spec: SampleSpec) -> dict[str, Figure]:
    """Fig. 4 of the paper: within a class between two noise vectors, and between two classes at fixed noise."""
    alphas = torch.linspace(0, 1, 9)
    within = generator.interpolate((0, 0), alphas, (0, 1)).cpu()
    across = generator.interpolate((0, 1), alphas, (0, 0)).cpu()
    return {
        'interpolation_within': plot_interpolation(within, alphas, spec, f'two noise vectors, {spec.classes[0]}'),
        'interpolation_across': plot_interpolation(
            across, alphas, spec, f'{spec.classes[0]} to {spec.classes[1]}, fixed noise'
        ),
    }
