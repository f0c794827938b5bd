"""The fidelity report of a generator: figures, ``fidelity.md`` and its model card."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import Tensor

from ..metrics.masks import class_shares
from ..metrics.patches import Pair
from ..metrics.values import OF_IMAGES
from ..samples import Kind
from ..systems.saved import CARD_FILE
from ..tasks import Evaluation, one_date
from .fidelity_text import change_parts, fidelity_notes, fidelity_table, patch_parts, spectra_parts
from .html import Part, Section, markdown
from .samples import (
    as_images,
    plot_class_profiles,
    plot_class_shares,
    plot_class_spectra,
    plot_cooccurrence,
    plot_interpolation,
    plot_pca,
    plot_samples,
)

Figures = dict[str, Figure]
_SHOWN = ('real, training', 'synthetic')

NO_VERDICT = '\nFidelity does not tell whether mixing in helps; `hsiaug ratio` and `hsiaug ablate` measure that.\n'


def write_evaluation(found: Evaluation, card: str, out: Path) -> str:
    """Write figures, ``fidelity.md`` and the model card that holds both.

    Args:
        found: of :meth:`~hsiaug.tasks.Task.evaluate`.
        card: model card of the generator.
        out: folder for all; the generator's own.

    Returns:
        the report in Markdown.
    """
    sections = [Section(f'Fidelity of {what}', [*PARTS[what](found)]) for what in found.measures]
    text = markdown(sections) + NO_VERDICT
    figures = FIGURES[found.spec.kind](found)
    (out / 'figures').mkdir(parents=True, exist_ok=True)
    for name, figure in figures.items():
        figure.savefig(out / 'figures' / f'{name}.png', dpi=120)
    (out / 'fidelity.md').write_text(text)
    images = ''.join(f'\n![{name.replace("_", " ")}](figures/{name}.png)\n' for name in figures)
    (out / CARD_FILE).write_text(card + '\n' + text + images)
    return text


# --- what is written of each measure, and drawn of each kind ----------------------------------------------------------


def _masks(found: Evaluation) -> dict[str, Tensor]:
    return {name: mask for name, (_, mask) in as_images(found.sides, found.spec).items()}


def _of_images(found: Evaluation) -> list[Part]:
    result = found.measures['images']
    return [fidelity_table(result, OF_IMAGES), *fidelity_notes(result, 'images')]


def _of_changes(found: Evaluation) -> list[Part]:
    ignored = found.spec.ignore_index
    changed = {name: 100 * float(class_shares(mask, 2, ignored)[1]) for name, mask in _masks(found).items()}
    return change_parts(found.measures['dates'], changed)


PARTS: dict[str, Callable[[Evaluation], list[Part]]] = {
    'spectra': lambda found: spectra_parts(found.measures['spectra'], found.spec),
    'images': _of_images,
    'mean spectra': lambda found: spectra_parts(found.measures['mean spectra'], found.spec),
    'pairs': lambda found: patch_parts(found.measures['pairs'], found.spec, _masks(found)),
    'dates': _of_changes,
}
"""What is written, by what is measured."""


def _samples(found: Evaluation) -> Figure:
    real, fake = _training_and_fake(found)
    return plot_samples(real, fake, found.spec)


def _training_and_fake(found: Evaluation) -> list[Pair]:
    """Images and targets."""
    return [(found.sides[name]['image'], found.sides[name][found.spec.target_key]) for name in _SHOWN]


def _shares(found: Evaluation) -> Figure:
    return plot_class_shares(_masks(found), one_date(found.spec))


def _profiles(found: Evaluation, date: int = 0) -> Figure:
    sides = {name: side for name, side in found.sides.items() if name != 'real, training'}
    return plot_class_profiles(as_images(sides, found.spec, date), one_date(found.spec))


def _of_spectra(found: Evaluation) -> Figures:
    spec, (real, fake) = found.spec, _training_and_fake(found)
    figures = {'class_spectra': plot_class_spectra(real, fake, spec), 'pca': plot_pca(*real, *fake, spec)}
    for name, (title, spectra) in found.paths.items():
        alphas = torch.linspace(0, 1, len(spectra))
        figures[f'interpolation_{name}'] = plot_interpolation(spectra, alphas, spec, title)
    return figures


def _of_dates(found: Evaluation) -> Figures:
    dates = {f'profiles_date_{date + 1}': _profiles(found, date) for date in range(2)}
    return {'pairs': _samples(found), 'class_shares': _shares(found), **dates}


FIGURES: dict[Kind, Callable[[Evaluation], Figures]] = {
    'spectrum': _of_spectra,
    'scene': lambda found: {
        'images': _samples(found), 'class_shares': _shares(found), 'class_profiles': _profiles(found),
    },
    'segmentation': lambda found: {
        'pairs': _samples(found), 'class_shares': _shares(found),
        'cooccurrence': plot_cooccurrence(_masks(found), found.spec), 'class_profiles': _profiles(found),
    },
    'change': _of_dates,
}  # fmt: skip
"""What is drawn, by the kind of the samples."""
