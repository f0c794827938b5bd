"""What a dataset is made of: one look through subsets, concatenations and other wrappers of real or synthetic data."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import ConcatDataset, DataLoader, Dataset, IterableDataset, StackDataset, Subset
from torchgeo.datasets import GeoDataset, UnionDataset

from ...samples import Provenance, SampleSpec, SpecMismatchError, class_counts, require_compatible, target_of
from ...seen import Places
from .batches import CONTRACT, NoSamplesError, kind_of, require_sample

T = TypeVar('T')
_DEEPEST = 16
"""Wrappers in wrappers that are looked through."""


@dataclass(frozen=True, eq=False)
class Layer:
    """A dataset, and those that it takes its samples from.

    Args:
        dataset: any.
        rows: (n,) which of its samples are used; None for all of them.
        inner: what it wraps; empty for a dataset that holds samples of its own.
        as_is: the samples of ``inner`` pass as they are, as through a ``Subset``; otherwise the wrapper may have
            altered them.
        order: (n,) where each is among those of ``inner``, one dataset after the other; None for the same order.
    """

    dataset: Any
    rows: np.ndarray | None = None
    inner: tuple[Layer, ...] = ()
    as_is: bool = True
    order: np.ndarray | None = None

    def all(self) -> Iterator[Layer]:
        """This layer and all within."""
        yield self
        for layer in self.inner:
            yield from layer.all()


def look_through(dataset: Any, rows: np.ndarray | None = None, above: tuple[int, ...] = ()) -> Layer:
    """The layers of a dataset of which some rows, or all, are used, within wrappers with these ids.

    ``Subset`` (``random_split`` too), ``ConcatDataset`` and torchgeo's ``UnionDataset`` pass samples as they are. Any
    other object that keeps datasets in its attributes is a wrapper as well, but may alter what it passes.
    """
    if id(dataset) in above or len(above) > _DEEPEST:
        return Layer(dataset, rows)
    above = (*above, id(dataset))
    if isinstance(dataset, Subset):
        chosen = np.asarray(dataset.indices, dtype=np.int64)
        return Layer(dataset, rows, (look_through(dataset.dataset, chosen if rows is None else chosen[rows], above),))
    if isinstance(dataset, ConcatDataset):
        if rows is None:
            return Layer(dataset, None, tuple(look_through(part, None, above) for part in dataset.datasets))
        rows, ends = rows % max(len(dataset), 1), np.array(dataset.cumulative_sizes)
        numbers = np.searchsorted(ends, rows, side='right')
        within = rows - np.append(0, ends)[numbers]
        inner = tuple(look_through(part, within[numbers == n], above) for n, part in enumerate(dataset.datasets))
        return Layer(dataset, rows, inner, order=np.argsort(np.argsort(numbers, kind='stable')))
    if isinstance(dataset, UnionDataset):  # indexed by place: which samples are used is not known
        return Layer(dataset, rows, tuple(look_through(part, None, above) for part in dataset.datasets))
    held = list(dataset.datasets.values()) if isinstance(dataset, StackDataset) and isinstance(
        dataset.datasets, Mapping
    ) else list(_datasets_in(dataset))  # fmt: skip
    return Layer(dataset, rows, tuple(look_through(part, None, above) for part in held), as_is=False)


def _datasets_in(holder: Any) -> Iterator[Any]:
    for value in getattr(holder, '__dict__', {}).values():
        for item in value if isinstance(value, list | tuple) and len(value) <= _DEEPEST else (value,):
            says = isinstance(item, Dataset) or isinstance(getattr(item, 'spec', None), SampleSpec)
            if says and item is not holder and not hasattr(item, 'sample'):  # a generator is no dataset
                yield item


# --- what the layers say --------------------------------------------------------------------------------------------


def spec_of(dataset: Any) -> SampleSpec | None:
    """What the samples of a dataset are, by its own ``spec`` or those of the datasets that it wraps.

    A wrapper that may alter samples is trusted with classes and unit; bands and size are those of its first sample.

    Raises:
        SpecMismatchError: if datasets that are put together in a ``ConcatDataset`` do not fit together.
    """
    layer = dataset if isinstance(dataset, Layer) else look_through(dataset)
    own = getattr(layer.dataset, 'spec', None)
    if isinstance(own, SampleSpec):
        return own
    found = [spec for inner in layer.inner if (spec := spec_of(inner)) is not None]
    if not found or (not layer.as_is and len(layer.inner) > 1):  # images of one and masks of another, for example
        return None
    for other in found[1:]:
        require_compatible(found[0], other, ('the first dataset', 'another'), 'datasets that are put together')
    return found[0] if layer.as_is else _as_seen(found[0], layer.dataset)


def _as_seen(spec: SampleSpec, wrapper: Any) -> SampleSpec | None:
    """A spec with the classes, bands and size that a wrapper left."""
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
    """Class names in label order, by the attribute ``classes`` that torchgeo's datasets have; None where it says none.

    torchgeo also calls values of a raster ``classes``, and tables of what they mean; those are no names in label order.

    Raises:
        SpecMismatchError: if datasets that are put together name their classes differently.
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
    """Where synthetic samples come from, as far as it is known: a generator, a bank, or all that a wrapper holds."""
    mixed = _distinct(dataset, 'sources', lambda found: hasattr(found, 'pools'))  # of a mixture, not to import it
    inside = [one for sources in mixed for pool in sources.pools for one in pool.provenances]
    return (*_distinct(dataset, 'provenance', lambda found: isinstance(found, Provenance)), *inside)


def splits_of(dataset: Any) -> tuple[Any, ...]:
    """The splits that samples of a dataset come from, as far as they are known."""
    return _distinct(dataset, 'split', lambda found: hasattr(found, 'scene') and hasattr(found, 'test'))


def _distinct(dataset: Any, name: str, fits: Callable[[Any], bool]) -> tuple[Any, ...]:
    """An attribute of all layers that have it, each object once."""
    found = (getattr(layer.dataset, name, None) for layer in look_through(dataset).all())
    return tuple({id(one): one for one in found if fits(one)}.values())


# --- what the layers say of their samples ---------------------------------------------------------------------------


def gathered(
    dataset: Any, own: Callable[[Layer], T | None], join: Callable[[list[T]], T], of_each: bool = True
) -> T | None:
    """What is known of the samples of a dataset without reading them; None where it is not.

    A layer knows something of its ``own`` samples that are used, or what is joined of the datasets that it passes on;
    ``of_each`` sample, or of all together.
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
    """What a method of a layer's dataset gives, of the samples that are used; None where it has none or gives none."""
    method = getattr(layer.dataset, name, None)
    found = method() if callable(method) else None
    return found if found is None or layer.rows is None else found[layer.rows]


def labels_of(dataset: Any) -> Tensor | None:
    """(N,) int64 labels that the dataset knows without reading samples; None where it does not."""
    return gathered(dataset, _own_labels, torch.cat)


def _own_labels(layer: Layer) -> Tensor | None:
    known = getattr(layer.dataset, 'labels', None)
    known = known() if callable(known) else known
    if not isinstance(known, Tensor) or known.shape != (len(layer.dataset),):
        return None
    return known if layer.rows is None else known[torch.from_numpy(layer.rows)]


def places_of(dataset: Any) -> Places | None:
    """Windows of an image, a file or the ground that samples are cut from; None where a dataset does not know them."""
    return gathered(dataset, lambda layer: of_rows(layer, 'places'), Places.joined)


def counts_of(dataset: Any) -> np.ndarray | None:
    """(K,) samples per class (for masks: pixels) of the samples that are used; None where it is not known."""
    return gathered(dataset, _own_counts, lambda parts: np.sum(parts, axis=0), of_each=False)


def _own_counts(layer: Layer) -> np.ndarray | None:
    own = getattr(layer.dataset, 'class_counts', None)
    own = np.asarray(own() if callable(own) else own)
    if layer.rows is None and own.ndim == 1 and own.dtype.kind in 'iuf':  # other libraries have tables of that name
        return own
    if layer.rows is None or not isinstance(spec := getattr(layer.dataset, 'spec', None), SampleSpec):
        return None
    if (pixels := of_rows(layer, 'class_pixels')) is not None:
        return np.asarray(pixels.sum(axis=0))
    labels = labels_of(layer.dataset)
    return None if labels is None else class_counts(labels[torch.from_numpy(layer.rows)], spec.num_classes)


def epoch_followers(dataset: Any) -> tuple[Any, ...]:
    """The datasets that have ``set_epoch``: this one, or the outermost ones that it wraps."""

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
    return any(f'{cls.__module__.partition(".")[0]}.{cls.__name__}' == f'xarray.{name}' for cls in type(value).mro())


def in_place_of_xarray(value: Any) -> str | None:
    """What to give instead of something of xarray that holds no samples by number; None for anything else."""
    if is_xarray(value, 'DataArray'):
        return (
            f'an xarray.DataArray of dimensions {tuple(value.dims)} is one image; give hsiaug.adapt(array, size=...), '
            'with labels hsiaug.adapt(DataArrayImage(array, mask, classes), size=...) of hsiaug.datasets'
        )
    if not is_xarray(value, 'Dataset'):
        return None
    held = ', '.join(f'{name} {tuple(one.dims)}' for name, one in value.data_vars.items())
    image = next((name for name, one in value.data_vars.items() if one.ndim == 3), 'image')
    return (
        f'an xarray.Dataset holds arrays by name ({held or "here none"}); give the one that is the image, of three '
        f'dimensions with a wavelength coordinate, such as hsiaug.adapt(dataset[{image!r}], size=...), and with labels '
        f"hsiaug.adapt(DataArrayImage(dataset[{image!r}], dataset['labels'], classes), size=...) of hsiaug.datasets"
    )


def require_map_style(dataset: Any, owner: str) -> None:
    """Check that a dataset can be asked for its samples by number.

    Raises:
        TypeError: if it can't, saying what can be done with it instead.
    """
    if (instead := in_place_of_xarray(dataset)) is not None:
        raise NoSamplesError(f'{owner}: a map-style dataset expected, {CONTRACT}; {instead}')
    inner = look_through(dataset)
    while inner.inner and inner.as_is:
        inner = inner.inner[0]
    name = type(dataset).__name__
    if isinstance(inner.dataset, GeoDataset):
        why = f'{name} is indexed by place and time. Take its samples with a sampler by hsiaug.datasets.GeoSamples'
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
