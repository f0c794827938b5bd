"""Sources of synthetic samples."""

from __future__ import annotations

from torch.utils.data import Dataset

from .pool import Draw, LivePool, Source, SyntheticPool
from .stored import StoredPool


def as_pool(source: Source, draw: Draw | None = None) -> SyntheticPool:
    """A source, live or stored, and how it is drawn.

    Raises:
        TypeError: if it is neither a generator nor a dataset in the sample contract.
        ValueError: if it is empty, or the label policy lacks something.
    """
    draw = draw or Draw()
    if isinstance(source, Dataset):
        return StoredPool(source, draw)
    if not hasattr(source, 'sample'):
        raise TypeError(
            f'a source of synthetic samples is a generator, a bank or a dataset, found {type(source).__name__}; '
            'load a folder with Generator.from_pretrained or SyntheticBank.open'
        )
    return LivePool(source, draw)
