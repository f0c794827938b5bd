"""The fidelity report of a generator of labelled images."""

from __future__ import annotations

from pathlib import Path

from ..ablation.scene_cells import mean_spectra
from ..datasets import SceneDataset
from ..datasets.preview import preview_grid
from ..metrics import fidelity, patch_fidelity
from ..systems import Generator
from ..trainers.patch_encoder import train_patch_encoder
from .evaluation import fidelity_markdown
from .page_parts import as_pairs, pair_spec
from .patch_evaluation import fidelity_notes, fidelity_table, require_parts, write_evaluation
from .patches import plot_class_profiles, plot_class_shares, spread_first

OF_IMAGES = ('fid_image', 'msad', 'std_ratio', 'precision', 'recall', 'density', 'coverage', 'class_share_error')
"""What is measured of images whose pixels all have their label."""


def evaluate_scenes(
    generator: Generator, train: SceneDataset, test: SceneDataset, out: Path, count: int = 500, seed: int = 0
) -> str:
    """Measure a generator of labelled images against real ones; write figures, ``fidelity.md`` and the model card.

    Images count as pairs whose mask is their label all over, and by their mean spectra, as in a study.

    Args:
        generator: trained on ``train``.
        train: the training part.
        test: a part that the generator has not seen.
        out: folder for the figures; the generator's own.
        count: synthetic images, drawn with the training frequencies.
        seed: of the draw and of the encoder of images, which is trained on the training part.

    Returns:
        the report in Markdown.

    Raises:
        LeakageError: if the generator has seen test pixels of the split.
        SpecMismatchError: if bands, size or classes differ.
    """
    spec = generator.spec
    require_parts(generator, train, test)
    drawn = generator.sample(count, seed=seed)
    batches = {
        'real, training': {'image': train.image, 'label': train.label},
        'real, test': {'image': test.image, 'label': test.label},
        'synthetic': {key: drawn[key].cpu() for key in ('image', 'label')},
    }
    pairs = {name: as_pairs(batch, spec) for name, batch in batches.items()}
    known, real, fake = pairs.values()
    encoder = train_patch_encoder(*known, spec.num_classes, spec.ignore_index, seed)
    result = patch_fidelity(known, real, fake, pair_spec(spec), encoder, seed)
    means = [(mean_spectra(batch['image']), batch['label']) for batch in batches.values()]
    shown = [spread_first(batches[name], 8) for name in ('real, training', 'synthetic')]
    figures = {
        'images': preview_grid(shown[0], shown[1], spec, 8),
        'class_shares': plot_class_shares({name: mask for name, (_, mask) in pairs.items()}, spec),
        'class_profiles': plot_class_profiles({'real, test': real, 'synthetic': fake}, spec),
    }
    lines = ['## Fidelity of images', '', *fidelity_table(result, OF_IMAGES), '', *fidelity_notes(result, 'images')]
    of_means = fidelity_markdown(fidelity(means[0], means[1], means[2], spec.num_classes), spec)
    text = '\n'.join(lines) + '\n\n' + of_means.replace('## Fidelity', '## Fidelity of mean spectra', 1)
    write_evaluation(generator, text, figures, out)
    return text
