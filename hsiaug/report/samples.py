"""Figures of synthetic samples next to real ones: spectra, after Figs. 2 to 4 of Audebert et al. 2018, and patches."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import zip_longest

import numpy as np
import torch
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from sklearn.decomposition import PCA
from torch import Tensor

from ..datasets.contract.batches import spread_rows
from ..datasets.preview import REAL, SYNTHETIC, BandAxis, preview_grid
from ..metrics.masks import class_shares, cooccurrence
from ..metrics.patches import Pair, class_pixels
from ..samples import SampleSpec
from ..tasks import task_of
from .figures import COLOURS

TRAINING = '#7FB8D8'
"""Real training pairs: the colour of real ones, paler."""
_COLOURS = {'real, training': TRAINING, 'real, test': REAL, 'real': REAL, 'synthetic': SYNTHETIC}
_PIXELS = 2000  # of a class, from which a profile is drawn
_LOWEST = 0.05  # percent; below, pairs of classes have neither a number nor a shade of their own
# The palette's own seven, and as many more for scenes of up to fifteen classes.
_CLASS_COLOURS = (*COLOURS, '#8c564b', '#17becf', '#bcbd22', '#7f7f7f', '#9467bd', '#aec7e8', '#ff9896', '#98df8a')


# --- spectra ----------------------------------------------------------------------------------------------------------


def plot_class_spectra(real: Pair, fake: Pair, spec: SampleSpec) -> Figure:
    """Mean and standard deviation per class of (N, C) spectra with (N,) labels, real and synthetic (Fig. 2)."""

    def around_mean(spectra: np.ndarray) -> tuple[np.ndarray, ...]:
        mean, std = spectra.mean(axis=0), spectra.std(axis=0)
        return mean - std, mean, mean + std

    sides = {'real': real, 'synthetic': fake}
    pairs = {name: (x[:, :, None, None], y[:, None, None]) for name, (x, y) in sides.items()}
    most = max(len(y) for _, y in sides.values())
    return _plot_by_class(pairs, spec, around_mean, 'mean ± standard deviation', most)


def plot_pca(real_x: Tensor, real_y: Tensor, fake_x: Tensor, fake_y: Tensor, spec: SampleSpec) -> Figure:
    """Real and synthetic spectra on the first two principal components of the real ones (Fig. 3)."""
    figure = Figure(figsize=(10, 4.4), layout='constrained')
    left, right = figure.subplots(1, 2, sharex=True, sharey=True)
    pca = PCA(2).fit(real_x.cpu().numpy())
    for axes, x, y, title in ((left, real_x, real_y, 'real'), (right, fake_x, fake_y, 'synthetic')):
        points, labels = pca.transform(x.cpu().numpy()), y.cpu().numpy()
        for label, name in enumerate(spec.classes):
            colour = _CLASS_COLOURS[label % len(_CLASS_COLOURS)]
            axes.scatter(*points[labels == label].T, s=6, alpha=0.6, color=colour, label=name, linewidths=0)
        axes.set_title(title)
        axes.set_xlabel(f'PC 1 ({pca.explained_variance_ratio_[0]:.0%} of the real variance)')
        axes.locator_params(axis='x', nbins=5)  # radiances have long numbers
        axes.spines[['top', 'right']].set_visible(False)
    left.set_ylabel(f'PC 2 ({pca.explained_variance_ratio_[1]:.0%})')
    handles, names = left.get_legend_handles_labels()
    legend = figure.legend(handles, names, loc='outside right upper', frameon=False, markerscale=3, fontsize=9)
    for text in legend.get_texts():
        text.set_parse_math(False)
    return figure


def plot_interpolation(spectra: Tensor, alphas: Tensor, spec: SampleSpec, title: str) -> Figure:
    """(A, C) spectra at (A,) positions from 0 to 1 on a line in the latent space (Fig. 4)."""
    figure = Figure(figsize=(6, 3.4), layout='constrained')
    axes = figure.subplots()
    bands = BandAxis(spec)
    x = bands.broken(bands.x)
    for spectrum, alpha in zip(spectra.cpu().numpy(), alphas.tolist(), strict=True):
        weight = 1 - alpha
        colour = tuple(weight * a + alpha * b for a, b in zip((0.0, 0.447, 0.698), (0.835, 0.369, 0.0), strict=True))
        label = f'α = {alpha:g}' if alpha in (0, 1) else None
        axes.plot(x, bands.broken(spectrum), color=colour, lw=1, label=label)
    bands.label(axes)
    axes.set_ylabel(spec.unit or 'value')
    axes.set_title(title, fontsize=10, parse_math=False)
    axes.legend(frameon=False, fontsize=8)
    return figure


# --- images with masks ------------------------------------------------------------------------------------------------


Sides = Mapping[str, Mapping[str, Tensor]]
"""Batches by what they are (see ``_COLOURS``)."""


def as_images(sides: Sides, spec: SampleSpec, date: int = 0) -> dict[str, Pair]:
    """Images (n, C, H, W) with masks (n, H, W) of each side, of pairs those of one ``date``."""
    task = task_of(spec)
    return {name: task.as_images((side['image'], side[spec.target_key]), date) for name, side in sides.items()}


def plot_samples(real: Pair, fake: Pair, spec: SampleSpec, count: int = 8) -> Figure:
    """A few real samples above a few synthetic ones, evenly spread, and mean spectra of all below."""
    sides = []
    for image, target in (real, fake):
        shown = spread_rows(len(image), count)
        order = torch.from_numpy(np.concatenate([shown, np.setdiff1d(np.arange(len(image)), shown)]))
        sides.append({'image': image[order], spec.target_key: target[order]})
    return preview_grid(sides[0], sides[1], spec, count)


def plot_class_shares(masks: Mapping[str, Tensor], spec: SampleSpec) -> Figure:
    """Share of each class in all counting pixels of (n, H, W) masks, by what they are (see ``_COLOURS``)."""
    height = 0.8 / len(masks)
    figure = Figure(figsize=(8, 0.45 * spec.num_classes + 1.3), layout='constrained')
    axes = figure.subplots()
    place = np.arange(spec.num_classes)
    longest = 0.0
    for number, (name, mask) in enumerate(masks.items()):
        shares = 100 * class_shares(mask, spec.num_classes, spec.ignore_index).nan_to_num().numpy()
        y = place + (number - (len(masks) - 1) / 2) * height
        axes.barh(y, shares, height=0.9 * height, color=_COLOURS[name], label=name)
        longest = max(longest, float(shares.max()))
        for at, share in zip(y, shares, strict=True):
            axes.annotate(f'{share:.1f}', (share, at), (3, 0), textcoords='offset points', va='center', fontsize=6.5)
    axes.set_xlim(0, 1.08 * max(longest, 1e-9))
    axes.set_yticks(place, _names(spec, 24), fontsize=9, parse_math=False)
    axes.invert_yaxis()
    axes.set_xlabel(f'share of {"spectra" if spec.size is None else "pixels"} (%)', fontsize=9)
    axes.tick_params(axis='x', labelsize=8)
    axes.tick_params(axis='y', length=0)
    axes.spines[['top', 'right', 'left']].set_visible(False)
    figure.legend(loc='outside upper center', ncols=len(masks), frameon=False, fontsize=9)
    return figure


def plot_cooccurrence(masks: Mapping[str, Tensor], spec: SampleSpec) -> Figure:
    """Which classes lie side by side in (n, H, W) masks: share of neighbouring pixel pairs, a panel for each side."""
    k = spec.num_classes
    tables = {name: 100 * cooccurrence(mask, k, spec.ignore_index).numpy() for name, mask in masks.items()}
    values = np.concatenate([table[table > 0] for table in tables.values()])
    # Logarithmic, since the diagonal dwarfs all else.
    scale = LogNorm(_LOWEST, max(float(values.max(initial=0.0)), 10 * _LOWEST), clip=True)
    side = 0.42 * k
    figure = Figure(figsize=(side * len(masks) + 3.2, side + 2.2), layout='constrained')
    grid = figure.subplots(1, len(masks), squeeze=False, sharey=True)[0]
    names = _names(spec, 16)
    for axes, (name, table) in zip(grid, tables.items(), strict=True):
        shown = axes.imshow(np.ma.masked_less_equal(table, 0), cmap='viridis', norm=scale)
        for (i, j), value in np.ndenumerate(table):
            if value >= _LOWEST:
                text = f'{value:.0f}' if value >= 9.95 else f'{value:.1f}'
                axes.text(j, i, text, ha='center', va='center', fontsize=6.5, color='w' if scale(value) < 0.6 else 'k')
        axes.set_title(name, fontsize=10)
        axes.set_xticks(range(k), names, fontsize=8, rotation=90, parse_math=False)
        axes.set_yticks(range(k), names, fontsize=8, parse_math=False)
        axes.tick_params(length=0)
        axes.set_facecolor('#eeeeee')
        axes.spines[:].set_visible(False)
    bar = figure.colorbar(shown, ax=list(grid), shrink=0.8, pad=0.02)
    bar.set_label('share of neighbouring pixel pairs (%)', fontsize=9)
    bar.ax.tick_params(labelsize=8)
    return figure


def plot_class_profiles(pairs: Mapping[str, Pair], spec: SampleSpec) -> Figure:
    """Median spectrum of each class and the band that holds its middle 80 %."""

    def around_median(spectra: np.ndarray) -> tuple[np.ndarray, ...]:
        return tuple(np.quantile(spectra, [0.1, 0.5, 0.9], axis=0))

    return _plot_by_class(pairs, spec, around_median, 'median and 10–90 %', _PIXELS)


def _plot_by_class(
    pairs: Mapping[str, Pair], spec: SampleSpec, around: Callable[[np.ndarray], tuple[np.ndarray, ...]], shown: str,
    most: int,
) -> Figure:  # fmt: skip
    """A panel for each class: a line within a band, lowest first as ``around`` finds them, of each side's pixels."""
    columns = min(3, spec.num_classes)
    rows = -(-spec.num_classes // columns)
    figure = Figure(figsize=(3.6 * columns, 2.3 * rows + 0.5), layout='constrained')
    grid = figure.subplots(rows, columns, squeeze=False, sharex=True).reshape(-1)
    bands = BandAxis(spec)
    x = bands.broken(bands.x)
    handles = {}
    for name, pair in pairs.items():
        colour = _COLOURS[name]
        spectra, labels = class_pixels(pair, spec.num_classes, spec.ignore_index, most)
        for label, axes in enumerate(grid[: spec.num_classes]):
            mine = spectra[labels == label]
            if len(mine) == 0:
                continue
            low, middle, high = map(bands.broken, around(mine))
            axes.fill_between(x, low, high, color=colour, alpha=0.2, lw=0)
            (handles[name],) = axes.plot(x, middle, color=colour, lw=1.3)
    for axes, title in zip_longest(grid, _names(spec, 36)):
        axes.set_visible(title is not None)
        axes.set_title(title, fontsize=10, parse_math=False)
        axes.tick_params(labelsize=8)
        axes.locator_params(axis='x', nbins=5, integer=True)
        axes.locator_params(axis='y', nbins=5)
        axes.spines[['top', 'right']].set_visible(False)
        if not axes.lines:
            axes.set_yticks([])
            axes.text(0.5, 0.5, 'no pixels', transform=axes.transAxes, ha='center', fontsize=8, color='#777777')
    figure.supxlabel(bands.title, fontsize=9)
    figure.supylabel(spec.unit or 'value', fontsize=9)
    styles = [f'{name}: {shown}' for name in handles]
    figure.legend(list(handles.values()), styles, loc='outside upper center', ncols=2, frameon=False, fontsize=9)
    return figure


def _names(spec: SampleSpec, width: int) -> list[str]:
    return [name if len(name) <= width else name[: width - 1] + '…' for name in spec.classes]
