"""Figures of a generator's fidelity, after Figs. 2 to 4 of Audebert et al. 2018."""

from __future__ import annotations

from matplotlib.figure import Figure
from sklearn.decomposition import PCA
from torch import Tensor

from ..datasets.preview import BandAxis
from ..samples import SampleSpec
from .figures import COLOURS

REAL, FAKE = COLOURS[0], COLOURS[1]
# The palette's own seven, and as many more for scenes of up to fifteen classes.
_CLASS_COLOURS = (*COLOURS, '#8c564b', '#17becf', '#bcbd22', '#7f7f7f', '#9467bd', '#aec7e8', '#ff9896', '#98df8a')

Labelled = tuple[Tensor, Tensor]
"""(N, C) spectra and (N,) labels."""


def plot_class_spectra(real: Labelled, fake: Labelled, spec: SampleSpec) -> Figure:
    """Mean and standard deviation per class, real and synthetic (Fig. 2)."""
    columns = min(3, spec.num_classes)
    rows = -(-spec.num_classes // columns)
    figure = Figure(figsize=(4 * columns, 2.7 * rows), layout='constrained')
    grid = figure.subplots(rows, columns, squeeze=False).reshape(-1)
    bands = BandAxis(spec)
    x = bands.broken(bands.x)
    for label, axes in enumerate(grid):
        if label >= spec.num_classes:
            axes.set_visible(False)
            continue
        for (spectra, labels), colour, name in ((real, REAL, 'real'), (fake, FAKE, 'synthetic')):
            mine = spectra[labels == label].cpu().numpy()
            if len(mine) == 0:
                continue
            mean, std = bands.broken(mine.mean(axis=0)), bands.broken(mine.std(axis=0))
            axes.plot(x, mean, color=colour, lw=1.2, label=name)
            axes.fill_between(x, mean - std, mean + std, color=colour, alpha=0.22, lw=0)
        bands.label(axes)
        axes.set_title(spec.classes[label], fontsize=10, parse_math=False)
    grid[0].legend(frameon=False, fontsize=8)
    figure.supylabel(spec.unit or 'value', fontsize=9)
    return figure


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
