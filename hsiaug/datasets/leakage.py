"""Whether an evaluation holds what a generator has seen, for any dataset."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from ..samples import LeakageError, Provenance, require_unseen
from .contract import in_contract
from .survey import digests_of_dates, read
from .wrapped import Layer, look_through, places_of, provenances_of, splits_of

Use = Literal['val', 'test']


def require_unseen_samples(source: Any, dataset: Any, use: Use = 'test') -> str:
    """Refuse a source of synthetic samples for an evaluation that shares samples with what its generator has seen.

    Images are told by their content, whatever their files are called; pixels of scenes by their places. Windows that
    overlap are told where both sides know which image, file or ground they are cut from: tiles that
    :func:`~hsiaug.datasets.adapt` cuts, and :class:`~hsiaug.datasets.GeoSamples`.

    Args:
        source: a generator, a bank, a dataset of synthetic samples, or a provenance.
        dataset: real samples that a model is judged on.
        use: ``'test'``, or ``'val'``: choices of the generator may have been made on validation samples, too.

    Returns:
        what was compared, and what cannot be known, in a sentence.

    Raises:
        LeakageError: naming how many samples are shared, and the first of them.
        ValueError: if there are no samples to evaluate on.
    """
    if not len(dataset):
        raise ValueError(f'{type(dataset).__name__}, to evaluate on, is empty; check its folder, split or subset')
    known = (source,) if isinstance(source, Provenance) else provenances_of(source)
    if not known:
        return 'The source does not say what its generator has seen: nothing can be compared.'
    for provenance in known if use == 'test' else ():
        for split in splits_of(dataset):
            require_unseen(provenance, split.scene, split.test)
    recorded = [one.samples for one in known if one.samples is not None]
    if not recorded:
        return 'The generator has no record of samples: only pixels of scenes were compared.'
    digests, places = digests_of(dataset), places_of(dataset)
    for samples in recorded:
        shared = np.flatnonzero(samples.shared(digests, places, use == 'test'))
        if len(shared):
            raise LeakageError(
                f'the generator has seen {len(shared)} of {len(digests)} {use} samples, wholly or in part, the first '
                f'of them {shared[:5].tolist()}; train it on other samples, or evaluate on samples that it has not seen'
            )
    if places is None or not all(samples.placed for samples in recorded):
        return (
            f'None of {len(digests)} samples was seen as it is. Whether windows overlap cannot be known: one side does '
            'not say which images its samples are cut from.'
        )
    return f'None of {len(digests)} samples was seen, nor a window that overlaps one.'


def digests_of(dataset: Any) -> np.ndarray:
    """(N, d) uint64 digests of the images of all samples, one per date; read where they are not known yet."""
    if (known := _digests(look_through(dataset))) is not None:
        return known
    name = type(dataset).__name__
    found = [
        digests_of_dates(in_contract(read(dataset, row, name), f'{name}: sample {row}', labelled=False)['image'])
        for row in range(len(dataset))
    ]
    return np.array(found, dtype=np.uint64).reshape(len(found), -1)


def _digests(layer: Layer) -> np.ndarray | None:
    """Those that are known without reading samples."""
    if callable(known := getattr(layer.dataset, 'digests', None)):
        found = np.asarray(known())
        return found if layer.rows is None else found[layer.rows]
    if not layer.inner or not layer.as_is:
        return None
    parts = [_digests(inner) for inner in layer.inner]
    if any(part is None for part in parts):
        return None
    joined: np.ndarray = np.concatenate(parts)  # type: ignore[arg-type]
    return joined if layer.order is None else joined[layer.order]


__all__ = ['digests_of', 'require_unseen_samples']
