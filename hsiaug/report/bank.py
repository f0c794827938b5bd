"""What is shown of a bank: its class counts, and a preview next to it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.data import Dataset

from ..datasets import SyntheticBank
from ..datasets.bank.export import ExportFormat
from ..datasets.bank.folder import names_place
from ..datasets.contract.batches import fetch, spread_rows
from ..datasets.preview import preview_grid
from ..samples import Sample, SampleSpec, require_compatible

_SHOWN = 2000  # samples of a side; of large images, as many as _SHOWN_BYTES hold
_SHOWN_BYTES = 64 << 20
_SHOWN_SHARDS = 8  # a shard without checksums of blocks is read whole when it is first touched
_PICTURES, _PANELS = 6, 12


def summary(bank: SyntheticBank) -> str:
    """Samples, their classes and the folder, in one line."""
    counts = bank.record['label_counts']
    classes = '' if counts is None else f', {dict(zip(bank.spec.classes, counts, strict=True))}'
    return f'{len(bank)} samples{classes}: {bank.root}'


def next_to(root: Path, ending: str) -> Path:
    """A path next to the folder of a bank, named after it. The folder itself holds nothing else."""
    root = root if root.name not in ('', '..') else root.resolve()
    return root.with_name(root.name + ending)


def export_place(root: Path, format: ExportFormat) -> Path:
    """Where the bank in a folder is exported to: ``<bank>.npz``, or the folder ``<bank>_<format>``."""
    return next_to(root, '.npz' if format == 'npz' else f'_{format}')


def preview_bank(bank: SyntheticBank, real: Dataset[Sample] | None = None) -> Path:
    """Draw samples of a bank, next to real ones where they are given, to ``<bank>_preview.png``; returns that path."""
    spec, side = bank.spec, None
    if real is not None:
        require_compatible(real.spec, spec)  # type: ignore[attr-defined]
        side = _tensors(real, spread_rows(len(real), _shown(spec)))  # type: ignore[arg-type]
    # Rows of a few shards, spread evenly.
    numbers = spread_rows(len(bank.shards), _SHOWN_SHARDS)
    each = -(-_shown(spec) // len(numbers))
    rows = [number * bank.shard_size + spread_rows(bank.shards[number].count, each) for number in numbers]
    split = f', split {bank.provenance.split}' if bank.provenance and bank.provenance.split else ''
    figure = preview_grid(
        side,
        _tensors(bank, np.concatenate(rows)),
        spec,
        min(spec.num_classes, _PANELS) if spec.size is None else _PICTURES,
        suptitle=f'{next_to(bank.root, "").name}: {len(bank)} samples of {bank.record["source"]["type"]}{split}',
    )
    path = next_to(bank.root, '_preview.png')
    with names_place(path):
        figure.savefig(path, dpi=120)
    return path


def _shown(spec: SampleSpec) -> int:
    return min(_SHOWN, max(_PICTURES, _SHOWN_BYTES // (4 * math.prod(spec.image_shape))))


def _tensors(dataset: Any, rows: np.ndarray) -> dict[str, Any]:
    batch = fetch(dataset, rows)
    return {key: batch[key] for key in ('image', 'label', 'mask') if key in batch}
