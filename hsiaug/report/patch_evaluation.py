"""The fidelity report of a generator of image-mask pairs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from torch import Tensor

from ..ablation.plan import Study
from ..ablation.runner import file_name, open_group
from ..datasets import PatchDataset, SceneDataset
from ..datasets.patches import HeldImages
from ..metrics.masks import class_shares
from ..metrics.patches import PatchFidelity, patch_fidelity
from ..samples import SampleSpec, require_compatible, require_unseen
from ..systems import Generator
from ..systems.base import CARD_FILE
from ..trainers.patch_encoder import train_patch_encoder
from .patches import plot_class_profiles, plot_class_shares, plot_cooccurrence, plot_pairs


def evaluate_patches(
    generator: Generator,
    train: PatchDataset,
    test: PatchDataset,
    out: Path,
    count: int = 500,
    seed: int = 0,
    encoder: Callable[[Tensor], Tensor] | None = None,
) -> str:
    """Measure a generator of pairs against real ones; write figures, ``fidelity.md`` and the model card.

    Args:
        generator: trained on ``train``.
        train: the training part.
        test: a part that the generator has not seen.
        out: folder for the figures; the generator's own.
        count: synthetic pairs, drawn as the generator has them, with the training frequencies.
        seed: of the draw and of the encoder.
        encoder: (n, C, H, W) images to (n, d) features; one trained on the training part if None.

    Returns:
        the report in Markdown.

    Raises:
        LeakageError: if the generator has seen test pixels of the split.
        SpecMismatchError: if bands, size or classes differ.
    """
    spec = generator.spec
    require_parts(generator, train, test)
    if encoder is None:
        encoder = train_patch_encoder(train.image, train.mask, spec.num_classes, spec.ignore_index, seed)
    batch = generator.sample(count, seed=seed)
    known, real = (train.image, train.mask), (test.image, test.mask)
    fake = (batch['image'].cpu(), batch['mask'].cpu())
    result = patch_fidelity(known, real, fake, spec, encoder, seed)
    masks = {'real, training': known[1], 'real, test': real[1], 'synthetic': fake[1]}
    figures = {
        'pairs': plot_pairs(known, fake, spec),
        'class_shares': plot_class_shares(masks, spec),
        'cooccurrence': plot_cooccurrence(masks, spec),
        'class_profiles': plot_class_profiles({'real, test': real, 'synthetic': fake}, spec),
    }
    text = patch_markdown(result, spec, masks)
    write_evaluation(generator, text, figures, out)
    return text


def require_parts(generator: Generator, train: HeldImages | SceneDataset, test: HeldImages | SceneDataset) -> None:
    """Check that a generator fits real data, and has not seen the part that it is tested on.

    Raises:
        LeakageError: if the generator has seen test pixels of the split.
        SpecMismatchError: if bands, size or classes differ.
    """
    require_compatible(train.spec, generator.spec)
    require_compatible(test.spec, generator.spec)
    if test.split is not None:
        require_unseen(generator.provenance, test.split.scene, test.split.test)


def write_evaluation(generator: Generator, text: str, figures: Mapping[str, Figure], out: Path) -> None:
    """Write figures, ``fidelity.md`` and the model card that holds both."""
    (out / 'figures').mkdir(parents=True, exist_ok=True)
    for name, figure in figures.items():
        figure.savefig(out / 'figures' / f'{name}.png', dpi=120)
    (out / 'fidelity.md').write_text(text)
    images = ''.join(f'\n![{name.replace("_", " ")}](figures/{name}.png)\n' for name in figures)
    (out / CARD_FILE).write_text(generator.card() + '\n' + text + images)


ROWS: dict[str, tuple[str, str]] = {
    'fid_image': ('Fréchet distance of images', '0'),
    'fid_mask': ('Fréchet distance of masks', '0'),
    'msad': ('spectral angle between class means (mSAD, radians)', '0'),
    'std_ratio': ('standard deviation within a class, synthetic / real', '1'),
    'precision': ('precision', '1'),
    'recall': ('recall', '1'),
    'density': ('density', '1'),
    'coverage': ('coverage', '1'),
    'class_share_error': ('class shares, total variation', '0'),
    'cooccurrence_error': ('neighbouring classes, total variation', '0'),
    'alignment': ('alignment of mask and image', '1'),
}
"""Measures by field of a fidelity: what they are, and what is ideal."""


def patch_markdown(result: PatchFidelity, spec: SampleSpec, masks: dict[str, Tensor]) -> str:
    """A fidelity of pairs as Markdown tables.

    Args:
        result: of :func:`~hsiaug.metrics.patches.patch_fidelity`, with its two companions.
        spec: of the pairs.
        masks: (n, H, W) masks by what they are, whose class shares are listed.
    """
    lines = ['## Fidelity', '', *fidelity_table(result, tuple(ROWS))]
    lines += ['', *fidelity_notes(result), '', *_class_table(result, spec, masks)]
    return '\n'.join(lines) + '\n'


def fidelity_table(result: PatchFidelity, fields: Sequence[str]) -> list[str]:
    """Lines of a Markdown table of some measures, of :data:`ROWS`."""
    columns = [result, result.real_reference, result.against_train]
    lines = [
        '| measure | synthetic, test | real training, test | synthetic, real training | ideal |',
        '|---|---|---|---|---|',
    ]
    for field in fields:
        name, ideal = ROWS[field]
        values = ['–' if side is None else format_number(getattr(side, field)) for side in columns]
        lines.append(f'| {name} | {" | ".join(values)} | {ideal} |')
    return lines


def format_number(value: float) -> str:
    """A measure with as many digits as say something, or a dash for NaN."""
    return '–' if value != value else f'{value:.4f}' if abs(value) < 0.1 else f'{value:.2f}'


def _cell(name: str) -> str:
    return name.replace('|', '\\|').replace('<', '&lt;')


def fidelity_notes(result: PatchFidelity, what: str = 'pairs') -> list[str]:
    """What numbers of samples the measures are from, and what that means for them; ``what`` the samples are."""
    image, mask = result.dimensions
    trained = result.against_train.real_count if result.against_train else 0
    notes = [
        f'{result.count} synthetic {what}, {trained} training and {result.real_count} test {what}. Distances of '
        f'features ({image} of an image, {mask} of a mask) take {result.compared} synthetic or training {what} each. '
        'The second column is the best that a generator can hope for: the training part differs from the test part '
        'as well.'
    ]
    if min(result.compared, result.real_count) <= max(image, mask):
        notes += [
            '',
            f'There are no more {what} than features, so that Fréchet distances are biased upwards. The first two '
            'columns can be compared with each other, and with other generators at these numbers; alone they say '
            'nothing.',
        ]
    return notes


def _class_table(result: PatchFidelity, spec: SampleSpec, masks: dict[str, Tensor]) -> list[str]:
    shares = [100 * class_shares(mask, spec.num_classes, spec.ignore_index) for mask in masks.values()]
    lines = [
        f'| class | angle of the class means to test (radians) | {" | ".join(f"% of {name}" for name in masks)} |',
        '|---|---|' + '---|' * len(masks),
    ]
    for label, (name, angle) in enumerate(zip(spec.classes, result.msad_per_class, strict=True)):
        each = ' | '.join(f'{float(share[label]):.1f}' for share in shares)
        lines.append(f'| {_cell(name)} | {format_number(angle)} | {each} |')
    return lines


def draw_pairs(study: Study, run: Path, device: str = 'cpu') -> None:
    """Draw real and synthetic pairs of each learned arm, for the first seed of each setting, into a run's figures.

    Args:
        study: of images with masks, of one date or of two.
        run: its run folder, with the generators that the study has kept.
        device: where to sample.
    """
    (run / 'figures').mkdir(parents=True, exist_ok=True)
    for setting in study.settings:
        group: Any = open_group(study, setting, study.seeds[0], run, device)
        for arm in study.arms:
            if arm.control:
                continue
            fake = group.generator(arm).sample(8, seed=0)
            pair = fake['image'].cpu(), fake['mask'].cpu()
            figure = plot_pairs((group.shown.image, group.shown.mask), pair, group.real.spec)
            figure.savefig(run / 'figures' / file_name(setting, arm.name, 'png', 'pairs-'), dpi=110)
