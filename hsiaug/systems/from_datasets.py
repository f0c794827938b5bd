"""Training data of a generator out of any datasets."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .. import __version__
from ..datasets.adapted import AdaptedDataset, adapt
from ..datasets.survey import IN_MEMORY, usual_workers
from ..datasets.wrapped import places_of, splits_of
from ..engine.data import Read
from ..functional.plain import plain_torch
from ..records import short_digest
from ..samples import Provenance, SampleSpec, require_compatible
from ..seen import Places, SeenSamples
from .base import TrainingData, Unlabelled

_NOTHING = torch.empty(0)


@plain_torch()
def data_of(
    train: Any,
    val: Any = None,
    unlabelled: Any = None,
    *,
    uses: tuple[Unlabelled, ...] = ('alike', 'pairs'),
    streams: bool = False,
    in_memory: bool | None = None,
    workers: int | None = None,
    progress: bool = False,
    **fields: Any,
) -> TrainingData:
    """What a generator learns from, out of any datasets: see :func:`~hsiaug.systems.fit.fit` for the arguments.

    ``uses`` says which samples without labels are of use, ``streams`` whether samples can be read batch by batch;
    ``fields`` are those of the spec, and ``size``.
    """
    reading: dict[str, Any] = {'workers': workers, 'progress': progress}
    labelled = adapt(train, name=_named('train', train), **fields, **reading)
    spec = labelled.spec
    most = IN_MEMORY if in_memory is None else (1 << 62 if in_memory else 0)
    found = labelled.survey(most)
    if found.images is None and not streams:
        size = len(labelled) * spec.sample_bytes
        raise ValueError(
            f'{labelled.name}: {len(labelled)} samples of {size / 1e9:.1f} GB, which this generator would have to hold '
            'in memory; say in_memory=True if that is meant, or give fewer samples'
        )
    absent = [spec.classes[k] for k in np.flatnonzero(found.pixels.sum(axis=0) == 0) if k != spec.ignore_index]
    if absent:
        raise ValueError(
            f'{labelled.name}: none of {len(found.pixels)} samples holds {absent[:8]}: what never occurs cannot be '
            'learnt; leave such classes out of classes= and number the others anew, or give one of them as '
            'ignore_index='
        )
    validating = None if val is None else adapt(val, name=_named('val', val), **fields, **reading)
    if validating is not None:
        require_compatible(spec, validating.spec, ('train', 'val'), 'samples of train and val')
    more = None if unlabelled is None else _unlabelled(unlabelled, spec, uses, fields, reading)
    parts = [part for part in (labelled, validating, more) if part is not None]
    if validating is not None and np.isin(validating.digests(), found.digests[found.digests != 0]).any():
        warnings.warn(
            f'{validating.name} holds samples that {labelled.name} holds too: what is chosen by them is chosen too '
            'favourably',
            stacklevel=4,
        )
    x, y = _tensors(labelled, most)
    val_x, val_y = (x[:0], y[:0]) if validating is None else _tensors(validating, 1 << 62)
    free = x[:0] if more is None else _tensors(more, most)[0]
    source, unlabelled_source = (
        Read(part, workers=usual_workers() if workers is None else workers)
        if part is not None and part.survey(most).images is None
        else None
        for part in (labelled, more)
    )
    return TrainingData(
        spec, x, y, free, val_x, val_y, _provenance(parts, train, validating), source=source,
        unlabelled_source=unlabelled_source,
    )  # fmt: skip


def _named(part: str, dataset: Any) -> str:
    return f'{part} ({type(dataset).__name__})'


def _unlabelled(
    dataset: Any, spec: SampleSpec, uses: tuple[Unlabelled, ...], fields: Mapping[str, Any], reading: Mapping[str, Any]
) -> AdaptedDataset:
    """Samples without labels, as the generator can use them."""
    name, size = _named('unlabelled', dataset), fields.get('size')
    size = spec.size if size is None and spec.size is not None else size
    adapted = adapt(dataset, size=size, spec=spec, name=name, labelled=False, **reading)
    kinds = ['alike'] if adapted.spec.kind == spec.kind else []
    kinds += ['pairs'] if adapted.spec.kind == 'change' and spec.kind == 'segmentation' else []
    shapes = {'spectrum': '(C,)', 'change': '(2, C, H, W)'}
    if not set(kinds) & set(uses):
        wanted = {'alike': f'{shapes.get(spec.kind, "(C, H, W)")} as in train', 'pairs': 'pairs of dates (2, C, H, W)'}
        raise ValueError(
            f'{name}: its images are {shapes.get(adapted.spec.kind, "(C, H, W)")}; this generator can learn from '
            f'{" or ".join(wanted[use] for use in uses)}'
        )
    return adapted


def _tensors(dataset: AdaptedDataset, most: int) -> tuple[Tensor, Tensor]:
    """Images and targets, empty where they are read later; without those whose one label does not count."""
    found, spec = dataset.survey(most), dataset.spec
    if found.images is not None and found.targets is not None and spec.target_key == 'label':
        counted = torch.from_numpy(found.pixels.any(axis=1))
        return (found.images, found.targets) if counted.all() else (found.images[counted], found.targets[counted])
    if found.images is not None:
        return found.images, _NOTHING if found.targets is None else found.targets
    return torch.empty(0, *spec.image_shape), torch.empty((0, *spec.target_shape), dtype=torch.int64)


def _provenance(parts: list[AdaptedDataset], train: Any, val: AdaptedDataset | None) -> Provenance:
    """What has been seen: pixels of scenes, samples, and windows where these are known."""
    learnt = [part for part in parts if part is not val]
    digests = np.concatenate([part.digests().reshape(-1) for part in learnt])
    places = [places_of(part) for part in learnt]
    placed = None if any(place is None for place in places) else Places.joined(p for p in places if p is not None)
    samples = SeenSamples.of(digests, placed, None if val is None else val.digests().reshape(-1))
    splits = [split for part in parts for split in splits_of(part)]
    footprints = list({split.fingerprint: split.footprint() for split in splits}.values())
    seeds = {split.seed for split in splits}
    name = splits[0].fingerprint if len({split.fingerprint for split in splits}) == 1 else short_digest(
        [np.sort(digests).tolist(), [split.fingerprint for split in splits]]
    )  # fmt: skip
    return Provenance(
        __version__, seeds.pop() if len(seeds) == 1 else 0, {}, name,
        footprints[0] if footprints else None, tuple(footprints[1:]), samples,
    )  # fmt: skip
