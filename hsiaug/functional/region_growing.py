"""Growing of regions from labelled pixels to similar neighbours."""

from __future__ import annotations

import numpy as np
import torch
from scipy.sparse import coo_array
from scipy.sparse.csgraph import dijkstra
from torch import Tensor
from torch.nn.functional import normalize

_SMALLEST = 1e-9  # length of a step between equal spectra: a sparse matrix takes 0 for no step


def grow_regions(x: Tensor, positions: Tensor, seeds: int, reach: float) -> tuple[Tensor, Tensor]:
    """Assign each pixel to the nearest labelled one, along paths of adjacent pixels, if it is within reach.

    The length of a step is the spectral angle between its two pixels, relative to the median step of the image, so that
    a region ends at an edge, and sooner in noise. This is seeded region growing by shortest paths: Falcão et al., "The
    image foresting transform", IEEE TPAMI 2004, https://doi.org/10.1109/TPAMI.2004.1261076, with additive costs.

    The first ``seeds`` of the spectra (P, C) are labelled; positions are their (P, 2) rows and columns. Returns the
    (P,) int64 index of the labelled pixel, -1 if the path is longer than ``reach`` median steps, and the (P,) float64
    length of the path.
    """
    owner, path = np.full(len(x), -1), np.full(len(x), np.inf)
    row, column = positions.cpu().numpy().T
    width = int(column.max(initial=0)) + 2  # a column apart, so that no row runs into the next
    place = row * width + column
    order = np.argsort(place)
    ends = []
    for step in (1, width):
        found = order[np.searchsorted(place[order], place + step).clip(max=len(place) - 1)]
        start = np.flatnonzero(place[found] == place + step)
        ends.append((start, found[start]))
    start, end = np.concatenate(ends, axis=1)
    if seeds and len(start):
        unit = normalize(x.double().cpu(), dim=1)
        # By the chord, since the arc cosine of what is nearly 1 is noise.
        angle = 2 * torch.asin(((unit[start] - unit[end]).norm(dim=1) / 2).clamp(max=1)).numpy()
        length = np.maximum(angle / max(np.median(angle), _SMALLEST), _SMALLEST)
        graph = coo_array((length, (start, end)), shape=(len(x), len(x))).tocsr()
        options = {'directed': False, 'min_only': True, 'limit': reach, 'return_predecessors': True}
        path, _, owner = dijkstra(graph, indices=np.arange(seeds), **options)
        owner = np.where(np.isfinite(path), owner, -1)
    return torch.from_numpy(owner.astype(np.int64)), torch.from_numpy(path)
