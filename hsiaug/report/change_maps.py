"""Maps of detected changes: what models of a study find on test windows, next to the truth."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from torch import Tensor

from ..datasets import ChangeDataset
from ..datasets.patches import IGNORE
from ..datasets.preview import false_colour, stretch_limits
from ..metrics.change import change_scores
from .figures import COLOURS

OUTCOMES = {
    'unchanged': '#222222',
    'detected': '#ffffff',
    'false alarm': COLOURS[1],
    'missed': COLOURS[5],
    'not tested': '#999999',
}
_ROWS = 4  # places shown where a place is a single window


def plot_change_maps(test: ChangeDataset, predicted: Mapping[str, Tensor], tile_rows: int | None = None) -> Figure:
    """Both dates, the true changes, and those that each model detects, of the place where most has changed.

    A place is a tile of the scene, such as a city, put together from its windows, or the whole image. Where tiles are
    single windows, the four with most change are shown.
    """
    if test.split is None:
        raise ValueError('plot_change_maps: windows without a split have no place; read them with from_scene')
    for name, mask in predicted.items():
        if mask.shape != test.mask.shape:
            raise ValueError(
                f'plot_change_maps: {name!r} has masks {tuple(mask.shape)}, the test windows {tuple(test.mask.shape)}'
            )
    corners = test.split.windows('test')
    places = _most_changed(test, corners[:, 0] // (tile_rows or test.split.shape[0]))
    columns = 3 + len(predicted)
    shape = _mosaic(test.mask[places[0]], corners[places[0]]).shape
    height = 2.4 * shape[-2] / shape[-1]
    figure = Figure(figsize=(2.4 * columns, (height + 0.1) * len(places) + 0.9), layout='constrained')
    grid = figure.subplots(len(places), columns, squeeze=False)
    limits = stretch_limits(test.image[np.concatenate(places)], test.spec.wavelengths)
    for row, place in zip(grid, places, strict=True):
        dates, truth = _mosaic(test.image[place], corners[place]), _mosaic(test.mask[place], corners[place])[0]
        for axes, date in zip(row, dates, strict=False):
            axes.imshow(false_colour(date, test.spec.wavelengths, limits), interpolation='nearest')
        row[2].imshow(_outcomes(truth, truth), interpolation='nearest')
        for axes, mask in zip(row[3:], predicted.values(), strict=True):
            found = _mosaic(mask[place].long(), corners[place])[0]
            axes.imshow(_outcomes(found, truth), interpolation='nearest')
            f1 = change_scores(mask[place].long(), test.mask[place], test.spec.ignore_index).f1
            axes.set_xlabel(f'F1 {100 * f1:.1f} %', fontsize=9)
    for axes, title in zip(grid[0], ('date 1', 'date 2', 'changes', *predicted), strict=True):
        axes.set_title(title, fontsize=10, parse_math=False)
    for axes in grid.flat:
        axes.set(xticks=[], yticks=[])
    handles = [Patch(facecolor=colour, edgecolor='#999999', label=name) for name, colour in OUTCOMES.items()]
    figure.legend(handles=handles, loc='outside lower center', ncols=len(handles), frameon=False, fontsize=9)
    return figure


def _most_changed(test: ChangeDataset, place: np.ndarray) -> list[np.ndarray]:
    """Windows of the place with most change, or of several places of one window each."""
    changed = (test.mask == 1).flatten(1).sum(dim=1).numpy()
    names, where = np.unique(place, return_inverse=True)
    order = np.argsort(-np.bincount(where, weights=changed), kind='stable')
    windows = [np.flatnonzero(where == k) for k in order]
    count = min(_ROWS, len(names)) if len(windows[0]) == 1 else 1
    return windows[:count]


def _mosaic(windows: Tensor, corners: np.ndarray) -> Tensor:
    """(..., h, w) picture of (n, ..., H, W) windows in their places; gaps are NaN, of masks :data:`IGNORE`."""
    rows, columns = (corners - corners.min(axis=0)).T.tolist()
    size = windows.shape[-1]
    fill = float('nan') if windows.is_floating_point() else IGNORE
    picture = torch.full((*windows.shape[1:-2], max(rows) + size, max(columns) + size), fill, dtype=windows.dtype)
    for window, row, column in zip(windows, rows, columns, strict=True):
        picture[..., row : row + size, column : column + size] = window
    return picture


def _outcomes(found: Tensor, truth: Tensor) -> np.ndarray:
    """(h, w, 3) picture of detected changes next to the true ones, both (h, w); see :data:`OUTCOMES`."""
    outcome = torch.where(truth == 1, 3 - 2 * found, 2 * found)  # in the order of the colours
    outcome = outcome.where(truth <= 1, len(OUTCOMES) - 1)
    return np.array([to_rgb(colour) for colour in OUTCOMES.values()])[outcome.numpy()]
