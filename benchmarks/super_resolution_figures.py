"""Figures of super-resolution: restored windows, one band, errors and spectra, each network beside interpolation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from safetensors.torch import load_file
from super_resolution_table import NETWORKS, Cell, open_scene
from torch import Tensor

from hsiaug.datasets.preview import BandAxis, false_colour, stretch_limits
from hsiaug.functional.degradation import degrade
from hsiaug.samples import SampleSpec

COLOURS = {'bicubic': '#8C8C8C', 'srcnn': '#E69F00', 'srgan': '#CC79A7', 'msrresnet': '#56B4E9', 'msrresgan': '#D55E00'}


def draw_table(cells: list[Cell], root: Path, out: Path) -> list[Path]:
    """Draw the kept pictures of a table's first seed, one figure per scene and factor.

    Args:
        cells: of the table.
        root: folder of the real scenes, for the wavelengths.
        out: run folder.

    Returns:
        paths of the figures.
    """
    groups = dict.fromkeys((cell.scene, cell.config.factor) for cell in cells)
    (out / 'figures').mkdir(parents=True, exist_ok=True)
    paths = []
    for scene, factor in groups:
        mine = [c for c in cells if (c.scene, c.config.factor, c.seed) == (scene, factor, 0)]
        files = {c.config.network: out / 'pictures' / f'{c.key}.safetensors' for c in mine}
        found = {name: load_file(file) for name, file in files.items() if file.exists()}
        if 'bicubic' not in found:
            continue
        spec = open_scene(root, scene).spec()
        original = _mosaic(found['bicubic']['original'])
        low = degrade(original[None], factor, mine[0].config.mtf)[0]
        restored = {name: _mosaic(found[name]['restored']) for name in NETWORKS if name in found}
        paths.append(out / 'figures' / f'restored-{scene}-factor-{factor}.png')
        plot_restored(original, low, restored, spec, f'{scene}, factor {factor}').savefig(paths[-1], dpi=110)
    return paths


def _mosaic(windows: Tensor) -> Tensor:
    """(C, H, n W) windows (n, C, H, W) side by side, four of them in two rows."""
    rows = windows.split(2) if len(windows) == 4 else [windows]
    return torch.cat([torch.cat(list(row), dim=2) for row in rows], dim=1)


def plot_restored(original: Tensor, low: Tensor, restored: dict[str, Tensor], spec: SampleSpec, title: str) -> Figure:
    """Pictures in false colour, one band, errors of all bands on one scale, and spectra of three pixels.

    Args:
        original: (C, H, W).
        low: (C, H/k, W/k) what was given to the networks.
        restored: (C, H, W) by network, ``'bicubic'`` among them.
        spec: what they hold.
        title: of the figure.
    """
    columns = {'original': original, 'low resolution': low, **restored}
    band = int(original.flatten(1).std(dim=1).argmax())  # the one with most to restore
    where = f'{spec.wavelengths[band]:.0f} nm' if spec.wavelengths else f'band {band}'
    errors = {name: (image - original).square().mean(dim=0).sqrt() for name, image in restored.items()}
    figure = Figure(figsize=(1.9 * len(columns), 8.6), layout='constrained')
    figure.suptitle(title)
    grid = figure.add_gridspec(4, len(columns), height_ratios=[1, 1, 1, 1.25])
    limits, scale = stretch_limits(original, spec.wavelengths), float(errors['bicubic'].quantile(0.98))
    grey = [float(original[band].quantile(q)) for q in (0.01, 0.99)]
    for column, (name, image) in enumerate(columns.items()):
        axes = [figure.add_subplot(grid[row, column]) for row in range(3)]
        axes[0].imshow(false_colour(image, spec.wavelengths, limits), interpolation='nearest')
        axes[0].set_title(name, fontsize=9)
        axes[1].imshow(image[band].numpy(), cmap='gray', vmin=grey[0], vmax=grey[1], interpolation='nearest')
        if name in errors:
            shown = axes[2].imshow(errors[name].numpy(), cmap='magma', vmin=0, vmax=scale, interpolation='nearest')
            ratio = float(errors[name].square().mean().sqrt() / errors['bicubic'].square().mean().sqrt())
            axes[2].set_title(f'{ratio:.2f} of bicubic', fontsize=8)
        for axis in axes:
            axis.set_xticks([])
            axis.set_yticks([])
            axis.set_visible(axis is not axes[2] or name in errors)
        if column == 0:
            axes[0].set_ylabel('false colour', fontsize=8)
            axes[1].set_ylabel(where, fontsize=8)
    figure.colorbar(shown, ax=axes[2], fraction=0.05).set_label('error, root of mean over bands', fontsize=7)
    _draw_spectra(figure, grid, original, restored, spec, errors['bicubic'])
    return figure


def _draw_spectra(
    figure: Figure, grid: Any, original: Tensor, restored: dict[str, Tensor], spec: SampleSpec, error: Tensor
) -> None:
    """Spectra of the pixels where interpolation errs most, at the ninth decile, and at the median."""
    bands, width = BandAxis(spec), original.shape[-1]
    order = error.flatten().argsort(descending=True)
    panels = grid[3, :].subgridspec(1, 3)
    for panel, (share, name) in enumerate(((0.0, 'most'), (0.1, 'more than at 90 %'), (0.5, 'as at the median'))):
        pixel = int(order[int(share * (len(order) - 1))])
        row, column = divmod(pixel, width)
        axes = figure.add_subplot(panels[panel])
        axes.plot(bands.broken(bands.x), bands.broken(original[:, row, column].numpy()), 'k', lw=1.6, label='original')
        for network, image in restored.items():
            values = bands.broken(image[:, row, column].numpy())
            axes.plot(bands.broken(bands.x), values, color=COLOURS[network], lw=0.9, label=network)
        axes.set_title(f'pixel ({row}, {column}): interpolation errs {name}', fontsize=8)
        shown = torch.stack([original, restored['bicubic']])[:, :, row, column]
        axes.set_ylim(min(0.0, float(shown.min())), 1.1 * float(shown.max()))  # others may leave it
        bands.label(axes)
        if panel == 0:
            axes.set_ylabel(spec.unit or 'value', fontsize=8)
            axes.legend(fontsize=6.5, frameon=False)
