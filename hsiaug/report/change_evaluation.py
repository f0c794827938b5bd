"""The fidelity report of a generator of pairs of dates with change masks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from matplotlib.figure import Figure
from torch import Tensor

from ..datasets import ChangeDataset
from ..metrics.change_fidelity import ChangeFidelity, change_fidelity
from ..metrics.masks import class_shares
from ..systems import Generator
from ..trainers.patch_encoder import train_date_encoder
from .patch_evaluation import fidelity_notes, fidelity_table, require_parts, write_evaluation
from .patches import plot_class_profiles, plot_class_shares, plot_pairs


def evaluate_changes(
    generator: Generator,
    train: ChangeDataset,
    test: ChangeDataset,
    out: Path,
    count: int = 500,
    seed: int = 0,
    encoder: Callable[[Tensor], Tensor] | None = None,
) -> str:
    """Measure a generator of pairs of dates against real ones; write figures, ``fidelity.md`` and the model card.

    Args:
        generator: trained on ``train``.
        train: the training part.
        test: a part that the generator has not seen.
        out: folder for the figures; the generator's own.
        count: synthetic pairs, drawn as the generator has them, with the training frequencies.
        seed: of the draw and of the encoder.
        encoder: (n, C, H, W) images of one date to (n, d) features; one trained on the training part if None.

    Returns:
        the report in Markdown.

    Raises:
        LeakageError: if the generator has seen test pixels of the split.
        SpecMismatchError: if bands, size or classes differ.
    """
    spec = generator.spec
    require_parts(generator, train, test)
    if encoder is None:
        encoder = train_date_encoder(train.image, train.mask, spec.ignore_index, seed)
    batch = generator.sample(count, seed=seed)
    known, real = (train.image, train.mask), (test.image, test.mask)
    fake = (batch['image'].cpu(), batch['mask'].cpu())
    result = change_fidelity(known, real, fake, spec, encoder, seed)
    one_date = replace(spec, kind='segmentation')
    masks = {'real, training': known[1][:, 0], 'real, test': real[1][:, 0], 'synthetic': fake[1][:, 0]}
    figures: dict[str, Figure] = {
        'pairs': plot_pairs(known, fake, spec),
        'class_shares': plot_class_shares(masks, one_date),
    }
    for date in range(2):
        sides = {'real, training': known, 'real, test': real, 'synthetic': fake}
        at_date = {name: (image[:, date], mask[:, 0]) for name, (image, mask) in sides.items()}
        figures[f'profiles_date_{date + 1}'] = plot_class_profiles(at_date, one_date)
    changed = {name: 100 * float(class_shares(mask, 2, spec.ignore_index)[1]) for name, mask in masks.items()}
    text = change_markdown(result, changed)
    write_evaluation(generator, text, figures, out)
    return text


OF_DATE = ('fid_image', 'msad', 'std_ratio', 'precision', 'recall', 'density', 'coverage')
DIFFERENCES = {
    'unchanged': 'where nothing changed, Wasserstein distance in real standard deviations',
    'changed': 'where something changed',
    'unchanged_texture': 'steps from a pixel to the next, where nothing changed',
    'changed_texture': 'steps from a pixel to the next, where something changed',
}
OF_BOTH = ('fid_image', 'fid_mask', 'class_share_error', 'cooccurrence_error', 'alignment')


def change_markdown(result: ChangeFidelity, changed: dict[str, float]) -> str:
    """A fidelity of pairs of dates as Markdown tables.

    Args:
        result: of :func:`~hsiaug.metrics.change_fidelity.change_fidelity`.
        changed: percentage of changed pixels, by what the masks are.
    """
    lines = ['## Fidelity', '']
    parts = (('Date 1', result.first, OF_DATE), ('Date 2', result.second, OF_DATE))
    for title, part, fields in (*parts, ('Both dates and the change mask', result.both, OF_BOTH)):
        lines += [f'### {title}', '', *fidelity_table(part, fields), '']
    lines += [
        '### Differences between the dates',
        '',
        '| measure | synthetic, test | real training, test |',
        '|---|---|---|',
    ]
    for field, name in DIFFERENCES.items():
        values = [f'{getattr(side, field):.3f}' for side in (result.differences, result.real_differences)]
        lines.append(f'| {name} | {" | ".join(values)} |')
    lines.append('')
    shares = ', '.join(f'{share:.1f} % ({name})' for name, share in changed.items())
    lines += [*fidelity_notes(result.both), '', f'Changed pixels: {shares}.']
    return '\n'.join(lines) + '\n'
