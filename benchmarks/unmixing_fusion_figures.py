"""Figures of "Unmixing before Fusion": endmembers, abundances of a scene and of an aerial image, synthetic images."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn.functional import avg_pool2d
from unmixing import SIDES, Reference, network, windows
from unmixing_fusion_bench import MAKERS, Bench, Method
from unmixing_fusion_data import RGB_FACTOR, SIDE, rgb_images

from hsiaug.datasets.preview import REAL, SYNTHETIC, BandAxis, class_colour, false_colour, stretch_limits
from hsiaug.metrics.unmixing import match_endmembers
from hsiaug.samples import SampleSpec
from hsiaug.systems.unmixing_fusion.unmixing.network import UnmixingNetwork
from hsiaug.systems.unmixing_fusion.unmixing.train import abundances_from_rgb

SHOWN = 8  # images of a method
STEPS = 300  # of the unmixing networks whose endmembers are drawn


def draw_all(bench: Bench, listed: list[Method], out: Path) -> list[Path]:
    """Draw every figure; returns their files.

    Args:
        bench: of one split.
        listed: methods whose synthetic images are shown.
        out: folder of the figures.
    """
    out.mkdir(parents=True, exist_ok=True)
    spec, seen = bench.data.spec, bench.unmixing(listed[0].k)
    figures = {f'endmembers-{name}.png': plot_reference(bench.root, name) for name in SIDES}
    images, _ = rgb_images(bench.rgb, spec.classes)
    pictures = avg_pool2d(images, RGB_FACTOR)
    figures[f'abundances-{bench.scene}.png'] = plot_abundances(seen, bench.tile, pictures, spec)
    made = {method.name: MAKERS[method.make](bench, method).image for method in listed}
    figures[f'synthetic-{bench.scene}.png'] = plot_synthetic(bench.trained_on, made, spec)
    for name, figure in figures.items():
        figure.savefig(out / name, dpi=110)
    return [out / name for name in figures]


def plot_reference(root: Path, name: str) -> Figure:
    """Endmembers and abundances that the network finds with three bands, beside the reference.

    Args:
        root: folder of the real scenes.
        name: of the scene.
    """
    of = Reference(root, name)
    abundances, endmembers = network(of, 0, STEPS)
    order = match_endmembers(torch.from_numpy(endmembers), torch.from_numpy(of.endmembers))
    spec, count = of.scene.spec(), len(order)
    bands, shape = BandAxis(spec), of.scene.shape
    x = bands.broken(bands.x)
    figure = Figure(figsize=(2.5 * count + 0.6, 6.8), layout='constrained')
    figure.suptitle(f'{name}: endmembers and abundances, reference and network of three bands', fontsize=11)
    grid = figure.subplots(3, count, height_ratios=[1.1, 1, 1])
    top = 1.1 * max(float(of.endmembers.max()), float(endmembers.max()))
    for k, found in enumerate(order):
        axes = grid[0, k]
        axes.plot(x, bands.broken(of.endmembers[k]), color=REAL, lw=1.3, label='reference')
        axes.plot(x, bands.broken(endmembers[found]), color=SYNTHETIC, lw=1.1, label='network')
        axes.set_title(spec.classes[k], fontsize=10)
        axes.set_ylim(0, top)
        bands.label(axes)
        for row, maps in ((1, of.abundances[:, k]), (2, abundances[:, found])):
            shown = grid[row, k].imshow(maps.reshape(shape), cmap='viridis', vmin=0, vmax=1, interpolation='nearest')
            grid[row, k].set_xticks([])
            grid[row, k].set_yticks([])
    grid[0, 0].legend(frameon=False, fontsize=8)
    grid[0, 0].set_ylabel(spec.unit or 'value', fontsize=8)
    grid[1, 0].set_ylabel('reference', fontsize=9)
    grid[2, 0].set_ylabel('network', fontsize=9)
    figure.colorbar(shown, ax=grid[1:, :], fraction=0.03).set_label('abundance', fontsize=8)
    return figure


def plot_abundances(seen: UnmixingNetwork, scene: Tensor, pictures: Tensor, spec: SampleSpec) -> Figure:
    """Endmembers, and abundances of a scene and of four aerial RGB images.

    Args:
        seen: the unmixing network.
        scene: (C, H, W).
        pictures: (n, 3, H, W) RGB images from 0 to 1; their colours are matched all together.
        spec: of the scene.
    """
    chosen = torch.linspace(0, len(pictures) - 1, 4).long().tolist()  # one of each folder
    tiles = torch.cat([_cut(picture) for picture in pictures])
    maps = abundances_from_rgb(seen, tiles).cpu().unflatten(0, (len(pictures), -1))
    rows = [(false_colour(_whole(_cut(scene)), spec.wavelengths), _whole(seen.abundances(_cut(scene)).cpu()))]
    rows += [(_whole(_cut(pictures[i])).movedim(0, -1).numpy(), _whole(maps[i])) for i in chosen]
    k, bands = seen.num_endmembers, BandAxis(spec)
    figure = Figure(figsize=(1.75 * (k + 1) + 0.8, 1.75 * len(rows) + 3.1), layout='constrained')
    above, below = figure.subfigures(2, 1, height_ratios=[2.6, 1.75 * len(rows) + 0.3])
    axes = above.subplots()
    for i, spectrum in enumerate(seen.endmembers.detach().cpu().numpy()):
        axes.plot(bands.broken(bands.x), bands.broken(spectrum), color=class_colour(i), lw=1.2, label=f'{i + 1}')
    bands.label(axes)
    axes.set_ylabel(spec.unit or 'value', fontsize=8)
    axes.legend(
        title='endmember', frameon=False, fontsize=8, title_fontsize=8, loc='center left', bbox_to_anchor=(1, 0.5)
    )
    grid = below.subplots(len(rows), k + 1)
    for row, (picture, abundances) in enumerate(rows):
        grid[row, 0].imshow(picture, interpolation='nearest')
        grid[row, 0].set_ylabel('scene, false colour' if row == 0 else 'aerial RGB', fontsize=8)
        for i in range(k):
            shown = grid[row, i + 1].imshow(abundances[i], cmap='viridis', vmin=0, vmax=1, interpolation='nearest')
            if row == 0:
                grid[row, i + 1].set_title(f'{i + 1}', fontsize=9)
    for axis in grid.flat:
        axis.set_xticks([])
        axis.set_yticks([])
    below.colorbar(shown, ax=grid, fraction=0.02).set_label('abundance', fontsize=8)
    return figure


def _cut(image: Tensor) -> Tensor:
    """(n, C, s, s) tiles of an image, of the size that the network knows; a rest at the edges is left out."""
    return windows(image, SIDE, SIDE)


def _whole(tiles: Tensor) -> Tensor:
    """(C, H, W) of tiles (n, C, s, s) of a square image."""
    side = round(len(tiles) ** 0.5)
    return tiles.unflatten(0, (side, side)).permute(2, 0, 3, 1, 4).flatten(3, 4).flatten(1, 2)


def plot_synthetic(real: Tensor, made: Mapping[str, Tensor], spec: SampleSpec) -> Figure:
    """Images in false colour under one stretch, and means and spreads of all spectra.

    Args:
        real: (n, C, s, s) training images.
        made: synthetic ones by method.
        spec: what they hold.
    """
    rows, limits = {'real': real, **made}, stretch_limits(real, spec.wavelengths)
    bands = BandAxis(spec)
    x = bands.broken(bands.x)
    figure = Figure(figsize=(1.15 * SHOWN + 4.2, 1.25 * len(rows) + 0.6), layout='constrained')
    grid = figure.subplots(len(rows), SHOWN + 1, width_ratios=[1] * SHOWN + [2.6])
    moments = {name: _moments(image) for name, image in rows.items()}
    for row, (name, image) in enumerate(rows.items()):
        for column, axes in enumerate(grid[row, :SHOWN]):
            axes.imshow(false_colour(image[column], spec.wavelengths, limits), interpolation='nearest')
            axes.set_xticks([])
            axes.set_yticks([])
        grid[row, 0].set_ylabel(name.replace(' + ', '\n+ ').replace(' to ', '\nto '), fontsize=8)
        axes = grid[row, SHOWN]
        for source, colour in (('real', REAL), *(() if row == 0 else ((name, SYNTHETIC),))):
            mean, spread = (bands.broken(values) for values in moments[source])
            axes.plot(x, mean, color=colour, lw=1.1)
            axes.fill_between(x, mean - spread, mean + spread, color=colour, alpha=0.2, lw=0)
        bands.label(axes)
        axes.tick_params(labelsize=6, labelbottom=row == len(rows) - 1)
        if row < len(rows) - 1:
            axes.set_xlabel('')
    grid[0, SHOWN].set_title('spectra: mean and spread, real and synthetic', fontsize=8)
    return figure


def _moments(image: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation (C,) of all spectra."""
    spread, mean = torch.std_mean(image, dim=(0, 2, 3))
    return mean.numpy(), spread.numpy()
