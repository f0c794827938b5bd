"""Maps of detected changes: what models of a study find on test windows, next to the truth."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from torch import Tensor

from ..datasets.contract.batches import fetch
from ..datasets.contract.wrapped import places_of
from ..datasets.preview import false_colour, stretch_limits
from ..datasets.real.held import IGNORE
from ..metrics.scores import change_scores
from .figures import COLOURS

OUTCOMES = {
    'unchanged': '#222222',
    'detected': '#ffffff',
    'false alarm': COLOURS[1],
    'missed': COLOURS[5],
    'not tested': '#999999',
}
_ROWS = 4  # places shown where a place is a single window
_MOST = 400  # windows of a place shown


def plot_change_maps(test: Any, predicted: Mapping[str, Tensor], tile_rows: int | None = None) -> Figure:
    """Both dates, the true changes, and those that each model detects, of the place where most has changed.

    A place is a tile of the scene or an image of a dataset, such as a city, put together from its windows. Where places
    are single windows, or it is not known where windows lie, the four with most change are shown; of a place of very
    many windows, those around the one with most change. ``predicted`` holds uint8 masks (N, 1, H, W) of the test
    windows, by what the model learned from; ``tile_rows`` is the height of a tile in a scene of stacked tiles.
    """
    shape = len(test), *test.spec.target_shape
    for name, mask in predicted.items():
        if mask.shape != shape:
            raise ValueError(f'plot_change_maps: {name!r} has masks {tuple(mask.shape)}, the test windows {shape}')
    changed = test.class_pixels()[:, 1]
    number, corners = _where(test, tile_rows)
    places = _most_changed(changed, number, corners)
    rows = np.concatenate(places)
    windows = fetch(test, rows)
    at = np.split(np.arange(len(rows)), np.cumsum([len(place) for place in places])[:-1])
    columns = 3 + len(predicted)
    height, width = _mosaic(windows['mask'][at[0]], corners[places[0]]).shape[-2:]
    figure = Figure(figsize=(2.4 * columns, (2.4 * height / width + 0.1) * len(places) + 0.9), layout='constrained')
    grid = figure.subplots(len(places), columns, squeeze=False)
    limits = stretch_limits(windows['image'], test.spec.wavelengths)
    for row, place, here in zip(grid, places, at, strict=True):
        dates = _mosaic(windows['image'][here], corners[place])
        truth = _mosaic(windows['mask'][here], corners[place])[0]
        for axes, date in zip(row, dates, strict=False):
            axes.imshow(false_colour(date, test.spec.wavelengths, limits), interpolation='nearest')
        row[2].imshow(_outcomes(truth, truth), interpolation='nearest')
        for axes, mask in zip(row[3:], predicted.values(), strict=True):
            found = _mosaic(mask[place].long(), corners[place])[0]
            axes.imshow(_outcomes(found, truth), interpolation='nearest')
            f1 = change_scores(mask[place].long(), windows['mask'][here], test.spec.ignore_index).f1
            axes.set_xlabel(f'F1 {100 * f1:.1f} %', fontsize=9)
    for axes, title in zip(grid[0], ('date 1', 'date 2', 'changes', *predicted), strict=True):
        axes.set_title(title, fontsize=10, parse_math=False)
    for axes in grid.flat:
        axes.set(xticks=[], yticks=[])
    handles = [Patch(facecolor=colour, edgecolor='#999999', label=name) for name, colour in OUTCOMES.items()]
    figure.legend(handles=handles, loc='outside lower center', ncols=len(handles), frameon=False, fontsize=9)
    return figure


def _where(test: Any, tile_rows: int | None) -> tuple[np.ndarray, np.ndarray]:
    """(N,) number of the place of each window, and (N, 2) their corners there; each its own where it is not known."""
    if (split := getattr(test, 'split', None)) is not None:
        corners = split.windows('test')
        return corners[:, 0] // (tile_rows or split.shape[0]), corners
    known = places_of(test)
    if known is None or not (known.box[:, 1::2] - known.box[:, ::2] == test.spec.size).all():  # on the ground, perhaps
        return np.arange(len(test)), np.zeros((len(test), 2), dtype=np.int64)
    return np.unique(known.key, return_inverse=True)[1], known.box[:, ::2].astype(np.int64)


def _most_changed(changed: np.ndarray, place: np.ndarray, corners: np.ndarray) -> list[np.ndarray]:
    """Windows of the place with most change, or of several places of one window each."""
    names, where = np.unique(place, return_inverse=True)
    order = np.argsort(-np.bincount(where, weights=changed), kind='stable')
    windows = [np.flatnonzero(where == k) for k in order]
    count = min(_ROWS, len(names)) if len(windows[0]) == 1 else 1
    if len(windows[0]) > _MOST:
        first = windows[0]
        away = np.abs(corners[first] - corners[first[changed[first].argmax()]]).max(axis=1)
        windows[0] = np.sort(first[np.argsort(away, kind='stable')[:_MOST]])
    return windows[:count]


def _mosaic(windows: Tensor, corners: np.ndarray) -> Tensor:
    """(..., h, w) picture of (n, ..., H, W) windows in their places; gaps are NaN, of masks :data:`IGNORE`."""
    rows, columns = (corners - corners.min(axis=0)).T.tolist()
    height, width = windows.shape[-2:]
    fill = float('nan') if windows.is_floating_point() else IGNORE
    picture = torch.full((*windows.shape[1:-2], max(rows) + height, max(columns) + width), fill, dtype=windows.dtype)
    for window, row, column in zip(windows, rows, columns, strict=True):
        picture[..., row : row + height, column : column + width] = window
    return picture


def _outcomes(found: Tensor, truth: Tensor) -> np.ndarray:
    """(h, w, 3) picture of detected changes next to the true ones, both (h, w); see :data:`OUTCOMES`."""
    outcome = torch.where(truth == 1, 3 - 2 * found, 2 * found)  # in the order of the colours
    outcome = outcome.where(truth <= 1, len(OUTCOMES) - 1)
    return np.array([to_rgb(colour) for colour in OUTCOMES.values()])[outcome.numpy()]
