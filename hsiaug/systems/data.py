"""Training data of generators, made of the training part of a split or of any datasets, with their provenance."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import replace
from functools import reduce
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from .. import __version__
from ..datasets import ChangeDataset, PatchDataset, SceneDataset, SpectraDataset
from ..datasets.contract.wrapped import places_of, provenances_of, splits_of
from ..datasets.own.adapted import AdaptedDataset, adapt
from ..datasets.own.reading import IN_MEMORY, usual_workers
from ..datasets.own.sample_set import SampleSet, SampleSplit
from ..datasets.real.patches import read_coarse_windows, read_windows
from ..engine.data import Read
from ..functional.plain import plain_torch
from ..records import short_digest
from ..samples import Provenance, SampleSpec, require_compatible
from ..scenes import BitemporalScene, LabelledPatchSplit, Scene, Split
from ..scenes.patches import PARTS, PatchSplit
from ..scenes.windows import tile_corners
from ..seen import Places, SeenSamples
from .base import REGISTRY, generator_class, load
from .training import trainer_of
from .training_data import TrainingData, Unlabelled


@plain_torch()
def training_data(
    scene: Scene | SampleSet, split: Split | PatchSplit | SampleSplit, generator: str | None = None
) -> TrainingData:
    """The part of a split that a generator may see: training and validation samples, and their provenance.

    Args:
        scene: the scene, or samples of datasets.
        split: a split of pixels, for generators of spectra; into patches, for generators of image-mask pairs and, for a
            bitemporal scene, of pairs of dates with change masks; into labelled patches, for generators of these; or a
            split of samples of datasets. The split also determines the unlabelled samples.
        generator: registered name of the generator to be trained, which may read samples of datasets batch by batch;
            if None, all samples are held in memory.
    """
    if isinstance(scene, SampleSet):
        return _of_samples(scene, split, generator)
    assert not isinstance(split, SampleSplit)
    positions = None
    if isinstance(split, PatchSplit):
        corners, size, dataset = split.unlabelled, split.size, cast(Any, PatchDataset)
        if isinstance(split, LabelledPatchSplit):
            inside = tile_corners((split.size, split.size), (split.patch, split.patch))
            corners = np.unique((corners[:, None] + inside).reshape(-1, 2), axis=0)  # windows may overlap
            size, dataset = split.patch, SceneDataset
        elif isinstance(scene, BitemporalScene):
            dataset = ChangeDataset
        train, val = (dataset.from_scene(scene, split, part) for part in PARTS[:2])
        spec, unlabelled = train.spec, read_windows(scene, corners, size).reshape(-1, *train.image.shape[1:])
        (x, y), (val_x, val_y) = ((part.image, part.target) for part in (train, val))
    else:
        parts = {part: SpectraDataset(scene, split, part) for part in ('train', 'val', 'unlabelled')}  # type: ignore[arg-type]
        spec = parts['train'].spec
        (x, y), (val_x, val_y), (unlabelled, _) = (parts[part].tensors() for part in ('train', 'val', 'unlabelled'))
        if min(scene.shape) > 1:  # a spectral library is no image
            rows, columns = np.divmod(np.concatenate([split.train, split.unlabelled]), scene.shape[1])
            rows += 0 if scene.tile_rows is None else rows // scene.tile_rows
            positions = torch.from_numpy(np.stack([rows, columns], axis=1))
    provenance = Provenance(__version__, split.seed, {}, split.fingerprint, split.footprint())
    data = TrainingData(spec, x, y, unlabelled, val_x, val_y, provenance, positions=positions)
    if scene.coarse is None or not isinstance(split, PatchSplit) or isinstance(split, LabelledPatchSplit):
        return data
    coarse, val_coarse = (read_coarse_windows(scene, corners, split.size) for corners in (split.train, split.val))
    return replace(data, coarse=coarse, val_coarse=val_coarse)


def _of_samples(samples: SampleSet, split: Any, generator: str | None) -> TrainingData:
    """Training data of samples of datasets."""
    if generator is not None:
        require_use_of(samples.unlabelled, generator)
    train, val = (samples.part(split, part) if len(getattr(split, part)) else None for part in PARTS[:2])
    data = data_of(train, val, samples.unlabelled, generator=generator, in_memory=True if generator is None else None)
    assert data.provenance is not None
    return replace(data, provenance=replace(data.provenance, split=split.fingerprint, seed=split.seed))


@plain_torch()
def data_of(
    train: Any,
    val: Any = None,
    unlabelled: Any = None,
    *,
    generator: str | None = None,
    in_memory: bool | None = None,
    workers: int | None = None,
    progress: bool = False,
    **fields: Any,
) -> TrainingData:
    """What a generator learns from, out of any datasets: see :func:`~hsiaug.systems.fit.fit` for the arguments.

    The ``generator`` says which samples without labels are of use, and whether samples can be read batch by batch; for
    any generator, if None, the former are like labelled ones, and no sample is read so. ``fields`` are those of the
    spec, and ``size``.
    """
    uses: tuple[Unlabelled, ...] = ('alike',) if generator is None else generator_class(generator).unlabelled
    trainer = None if generator is None else trainer_of(generator)
    reading: dict[str, Any] = {'workers': workers, 'progress': progress}
    labelled = adapt(train, name=_named('train', train), **fields, **reading)
    spec = labelled.spec
    most = IN_MEMORY if in_memory is None else (1 << 62 if in_memory else 0)
    found = labelled.survey(most)
    if found.images is None and (trainer is None or not trainer.streams):
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
            stacklevel=5,
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
        return found.images, torch.empty(0) if found.targets is None else found.targets
    return torch.empty(0, *spec.image_shape), torch.empty((0, *spec.target_shape), dtype=torch.int64)


def _provenance(parts: list[AdaptedDataset], train: Any, val: AdaptedDataset | None) -> Provenance:
    """What has been seen: pixels of scenes, samples, and windows where these are known.

    Of synthetic samples among them, all that their generators have seen.
    """
    learnt = [part for part in parts if part is not val]
    digests = np.concatenate([part.digests().reshape(-1) for part in learnt])
    places = [places_of(part) for part in learnt]
    placed = None if any(place is None for place in places) else Places.joined(p for p in places if p is not None)
    samples = SeenSamples.of(digests, placed, None if val is None else val.digests().reshape(-1))
    made_by = [one for part in parts for one in provenances_of(part)]
    samples = reduce(SeenSamples.joined, [one.samples for one in made_by if one.samples is not None], samples)
    splits = [split for part in parts for split in splits_of(part)]
    own = {split.fingerprint: split.footprint() for split in splits}.values()
    footprints = list(dict.fromkeys([*own, *(seen for one in made_by for seen in one.footprints)]))
    seeds = {split.seed for split in splits}
    name = splits[0].fingerprint if len({split.fingerprint for split in splits}) == 1 else short_digest(
        [np.sort(digests).tolist(), [split.fingerprint for split in splits]]
    )  # fmt: skip
    return Provenance(
        __version__, seeds.pop() if len(seeds) == 1 else 0, {}, name,
        footprints[0] if footprints else None, tuple(footprints[1:]), samples,
    )  # fmt: skip


def require_use_of(unlabelled: Any, generator: str, settings: Mapping[str, Any] | None = None) -> None:
    """Refuse samples without labels that a generator cannot use, or warn where a setting is lacking.

    Raises:
        ValueError: if the generator cannot learn from them.
    """
    if unlabelled is None:
        return
    cls = generator_class(generator)
    if not cls.unlabelled:
        raise ValueError(
            f'{generator!r} cannot learn from samples without labels; leave unlabelled= out, or choose one that can: '
            f'{learning_from_unlabelled()}'
        )
    if lacking := None if settings is None else cls.overlooks_unlabelled(settings):
        warnings.warn(
            f'{generator!r} looks at samples without labels with the setting {lacking} only: unlabelled= is left aside',
            stacklevel=4,
        )


def learning_from_unlabelled() -> list[str]:
    """Names of the generators that can learn from samples without labels."""
    load()
    return sorted(name for name, cls in REGISTRY.items() if cls.unlabelled)
