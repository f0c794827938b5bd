"""Structure of a dataset, seen through subsets, concatenations and other wrappers of real or synthetic data."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import ConcatDataset, DataLoader, Dataset, IterableDataset, Subset
from torchgeo.datasets import GeoDataset, UnionDataset

from ...samples import Provenance, SampleSpec, SpecMismatchError, class_counts, require_compatible, target_of
from ...seen import Places
from .batches import CONTRACT, NoSamplesError, kind_of, require_sample

T = TypeVar('T')
EXAMINED = 16
"""Samples of a dataset that are read to learn what it holds where it does not say so, or to check what it says."""
_DEEPEST = 16
"""Depth to which nested wrappers are searched."""


@dataclass(frozen=True, eq=False)
class Layer:
    """A dataset, and those from which it takes its samples.

    Args:
        dataset: any dataset.
        rows: (n,) samples in use; None for all.
        inner: wrapped datasets; empty for a dataset with samples of its own.
        as_is: whether samples of ``inner`` pass unchanged, as through a ``Subset``; otherwise the wrapper may have
            altered them.
        order: (n,) position of each sample among those of all ``inner`` datasets; None for the same order.
    """

    dataset: Any
    rows: np.ndarray | None = None
    inner: tuple[Layer, ...] = ()
    as_is: bool = True
    order: np.ndarray | None = None

    def all(self) -> Iterator[Layer]:
        """This layer and all inner ones."""
        yield self
        for layer in self.inner:
            yield from layer.all()


def look_through(dataset: Any, rows: np.ndarray | None = None, above: tuple[int, ...] = ()) -> Layer:
    """The layers of a dataset, of which some or all rows are used, within wrappers with these ids.

    ``Subset`` (also from ``random_split``), ``ConcatDataset`` and torchgeo's ``UnionDataset`` pass samples unchanged.
    Any other object with datasets among its attributes is a wrapper too, but may alter samples.
    """
    if id(dataset) in above or len(above) > _DEEPEST:
        return Layer(dataset, rows)
    above = (*above, id(dataset))
    if isinstance(dataset, Subset):
        if (chosen := np.asarray(dataset.indices)).dtype == bool:  # which torch takes for rows 0 and 1
            raise ValueError('Subset: row numbers are expected as indices, found a mask; give numpy.flatnonzero(mask)')
        chosen = chosen.astype(np.int64)
        return Layer(dataset, rows, (look_through(dataset.dataset, chosen if rows is None else chosen[rows], above),))
    if isinstance(dataset, ConcatDataset):
        if rows is None:
            return Layer(dataset, None, tuple(look_through(part, None, above) for part in dataset.datasets))
        rows, ends = rows % max(len(dataset), 1), np.array(dataset.cumulative_sizes)
        numbers = np.searchsorted(ends, rows, side='right')
        within = rows - np.append(0, ends)[numbers]
        inner = tuple(look_through(part, within[numbers == n], above) for n, part in enumerate(dataset.datasets))
        return Layer(dataset, rows, inner, order=np.argsort(np.argsort(numbers, kind='stable')))
    if isinstance(dataset, UnionDataset):  # indexed by position: the samples in use are unknown
        return Layer(dataset, rows, tuple(look_through(part, None, above) for part in dataset.datasets))
    return Layer(dataset, rows, tuple(look_through(part, None, above) for part in _datasets_in(dataset)), as_is=False)


def _datasets_in(holder: Any) -> Iterator[Any]:
    for value in getattr(holder, '__dict__', {}).values():
        value = list(value.values()) if isinstance(value, Mapping) else value
        for item in value if isinstance(value, list | tuple) and len(value) <= _DEEPEST else (value,):
            says = isinstance(item, Dataset) or isinstance(getattr(item, 'spec', None), SampleSpec)
            if says and item is not holder and not hasattr(item, 'sample'):  # a generator is not a dataset
                yield item


# --- what the layers say --------------------------------------------------------------------------------------------


def spec_of(dataset: Any) -> SampleSpec | None:
    """Spec of the samples of a dataset: its own ``spec``, or that of the datasets that it wraps.

    A wrapper that may alter samples is trusted with classes and unit; bands and size are those of its first sample.

    Raises:
        SpecMismatchError: if the datasets of a ``ConcatDataset`` do not match.
    """
    layer = dataset if isinstance(dataset, Layer) else look_through(dataset)
    own = getattr(layer.dataset, 'spec', None)
    if isinstance(own, SampleSpec):
        return own
    found = [spec for inner in layer.inner if (spec := spec_of(inner)) is not None]
    if not found or (not layer.as_is and len(layer.inner) > 1):  # for example, images of one and masks of the other
        return None
    for other in found[1:]:
        require_compatible(found[0], other, ('the first dataset', 'another'), 'datasets that are put together')
    return found[0] if layer.as_is else _as_seen(found[0], layer.dataset)


def _as_seen(spec: SampleSpec, wrapper: Any) -> SampleSpec | None:
    """A spec with the classes, bands and size after a wrapper."""
    if isinstance(wrapper, GeoDataset) or not (hasattr(wrapper, '__len__') and len(wrapper)):
        return None
    sample = wrapper[0]
    require_sample(sample, type(wrapper).__name__)
    kind = kind_of(sample)
    if kind is None:
        return None
    names = class_names_of(wrapper)
    shape = tuple(sample['image'].shape)
    bands = shape[-1 if kind == 'spectrum' else -3]
    return replace(
        spec,
        kind=kind,
        bands=bands,
        classes=spec.classes if names is None else names,
        size=None if kind == 'spectrum' else (shape[-2], shape[-1]),
        wavelengths=spec.wavelengths if bands == spec.bands else None,
        ignore_index=spec.ignore_index if target_of(kind) == 'mask' else None,
    )


def class_names_of(dataset: Any) -> tuple[str, ...] | None:
    """Class names in label order, from the attribute ``classes`` of torchgeo's datasets; None if there is none.

    In torchgeo, ``classes`` may also be raster values or tables of their meaning, which are not names in label order.

    Raises:
        SpecMismatchError: if concatenated datasets name their classes differently.
    """
    layer = dataset if isinstance(dataset, Layer) else look_through(dataset)
    own = getattr(layer.dataset, 'classes', None)
    if isinstance(own, list | tuple | np.ndarray) and len(own) > 1:
        return tuple(map(str, own)) if all(isinstance(name, str) for name in own) else None
    found = [names for inner in layer.inner if layer.as_is and (names := class_names_of(inner)) is not None]
    for other in found[1:]:
        if other != found[0]:
            raise SpecMismatchError(
                f'datasets that are put together do not match: classes {list(found[0])} in one, {list(other)} in '
                'another; convert both to the same classes in the same order'
            )
    return found[0] if found else None


def provenances_of(dataset: Any) -> tuple[Provenance, ...]:
    """Known provenances of synthetic samples: of a generator, a bank, or all datasets in a wrapper."""
    mixed = _distinct(dataset, 'sources', lambda found: hasattr(found, 'pools'))  # of a mixture, without importing it
    inside = [one for sources in mixed for pool in sources.pools for one in pool.provenances]
    return (*_distinct(dataset, 'provenance', lambda found: isinstance(found, Provenance)), *inside)


def splits_of(dataset: Any) -> tuple[Any, ...]:
    """Known splits that samples of a dataset come from."""
    return _distinct(dataset, 'split', lambda found: hasattr(found, 'scene') and hasattr(found, 'test'))


def _distinct(dataset: Any, name: str, fits: Callable[[Any], bool]) -> tuple[Any, ...]:
    """An attribute of all layers that have it, each object once."""
    found = (getattr(layer.dataset, name, None) for layer in look_through(dataset).all())
    return tuple({id(one): one for one in found if fits(one)}.values())


# --- what the layers say of their samples ---------------------------------------------------------------------------


def gathered(
    dataset: Any, own: Callable[[Layer], T | None], join: Callable[[list[T]], T], of_each: bool = True
) -> T | None:
    """Facts about the samples of a dataset, known without reading them; None if unknown.

    A layer knows them for its ``own`` samples in use, or joins those of its inner datasets; ``of_each`` sample, or of
    all together.
    """

    def known(layer: Layer) -> T | None:
        if (found := own(layer)) is not None:
            return found
        parts = [known(inner) for inner in layer.inner] if layer.as_is else []
        whole = [part for part in parts if part is not None]
        if not parts or len(whole) < len(parts):
            return None
        joined: Any = join(whole)
        return joined if layer.order is None or not of_each else joined[layer.order]

    return known(look_through(dataset))


def of_rows(layer: Layer, name: str) -> Any:
    """Result of a method of the dataset of a layer, for the samples in use; None if there is none."""
    method = getattr(layer.dataset, name, None)
    found = method() if callable(method) else None
    return found if found is None or layer.rows is None else found[layer.rows]


def labels_of(dataset: Any) -> Tensor | None:
    """(N,) int64 labels, if the dataset knows them without reading samples; else None."""
    return gathered(dataset, _own_labels, torch.cat)


def _own_labels(layer: Layer) -> Tensor | None:
    known = getattr(layer.dataset, 'labels', None)
    known = known() if callable(known) else known
    if not isinstance(known, Tensor) or known.shape != (len(layer.dataset),) or known.is_floating_point():
        return None
    return known if layer.rows is None else known[torch.from_numpy(layer.rows)]


def places_of(dataset: Any) -> Places | None:
    """Windows of an image, a file or the ground from which samples are cut; None if unknown."""
    return gathered(dataset, lambda layer: of_rows(layer, 'places'), Places.joined)


def counts_of(dataset: Any) -> np.ndarray | None:
    """(K,) samples per class (for masks: pixels) among the samples in use; None if unknown."""
    return gathered(dataset, _own_counts, lambda parts: np.sum(parts, axis=0), of_each=False)


def _own_counts(layer: Layer) -> np.ndarray | None:
    own = getattr(layer.dataset, 'class_counts', None)
    own = np.asarray(own() if callable(own) else own)
    if layer.rows is None and own.ndim == 1 and own.dtype.kind in 'iuf':  # other libraries use the name for tables
        return own
    if layer.rows is None or not isinstance(spec := getattr(layer.dataset, 'spec', None), SampleSpec):
        return None
    if (pixels := of_rows(layer, 'class_pixels')) is not None:
        return np.asarray(pixels.sum(axis=0))
    labels = labels_of(layer.dataset)
    return None if labels is None else class_counts(labels[torch.from_numpy(layer.rows)], spec.num_classes)


def epoch_followers(dataset: Any) -> tuple[Any, ...]:
    """The datasets with ``set_epoch``: this one, or the outermost inner ones."""

    def followers(layer: Layer) -> Iterator[Any]:
        if hasattr(layer.dataset, 'set_epoch'):
            yield layer.dataset
        else:
            for inner in layer.inner:
                yield from followers(inner)

    return tuple(followers(look_through(dataset)))


# --- what can be mixed ----------------------------------------------------------------------------------------------


def is_xarray(value: Any, name: str) -> bool:
    """Whether a value is an ``xarray.DataArray`` or ``xarray.Dataset``, by name; xarray need not be installed."""
    return any(f'{cls.__module__.partition(".")[0]}.{cls.__name__}' == f'xarray.{name}' for cls in type(value).__mro__)


def in_place_of_xarray(value: Any) -> str | None:
    """What to give instead of something of xarray that holds no samples by number; None for anything else."""
    if is_xarray(value, 'DataArray'):
        found, array = f'an xarray.DataArray of dimensions {tuple(value.dims)} is one image', 'array'
    elif is_xarray(value, 'Dataset'):
        held = ', '.join(f'{name} {tuple(one.dims)}' for name, one in value.data_vars.items())
        image = next((name for name, one in value.data_vars.items() if one.ndim == 3), 'image')
        found, array = f'an xarray.Dataset holds arrays by name ({held or "here none"})', f'dataset[{image!r}]'
    else:
        return None
    return (
        f'{found}; give hsiaug.adapt({array}, size=...), of three dimensions with a wavelength coordinate, with labels '
        f'hsiaug.adapt(DataArrayImage({array}, mask, classes), size=...) of hsiaug.datasets'
    )


def require_map_style(dataset: Any, owner: str) -> None:
    """Check that samples of a dataset can be accessed by number.

    Raises:
        TypeError: if it cannot, saying what to do instead.
    """
    if (instead := in_place_of_xarray(dataset)) is not None:
        raise NoSamplesError(f'{owner}: a map-style dataset expected, {CONTRACT}; {instead}')
    inner = look_through(dataset)
    while inner.inner and inner.as_is:
        inner = inner.inner[0]
    name = type(dataset).__name__
    if isinstance(inner.dataset, GeoDataset):
        why = f'{name} is indexed by place and time. Take its samples with a sampler by hsiaug.datasets.GeoSamples'
    elif isinstance(dataset, type):
        why = f'{dataset.__name__} is a class: make a dataset of it'
    elif isinstance(dataset, Mapping):
        why = f'{name} holds {list(dataset)[:8]} by name: give one of them'
    elif isinstance(dataset, DataLoader):
        why = f'{name} gives batches'
    elif isinstance(inner.dataset, IterableDataset) or not (
        hasattr(dataset, '__len__') and hasattr(dataset, '__getitem__')
    ):
        why = f'{name} has no samples by number'
    else:
        return
    raise NoSamplesError(
        f'{owner}: a map-style dataset expected, {CONTRACT}; {why}. To mix, give the batches of its '
        'loader to hsiaug.SyntheticMix, or wrap its datamodule in hsiaug.MixedDataModule'
    )
