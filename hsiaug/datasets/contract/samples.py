"""The sample contract: conversion of samples of other datasets, and values that violate it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...samples import WAVELENGTH_TOLERANCE_NM, Kind, Sample, SampleSpec, target_of
from ...scenes.change import require_change_values
from ...scenes.wavelengths import to_nanometres
from .batches import as_tensor, is_array, kind_of, require_sample


def in_contract(sample: Any, where: str, kind: Kind | None = None, labelled: bool = True) -> Sample:
    """``image`` float32 and ``mask`` or ``label`` int64 of a sample with torchgeo's keys, in the contract's layout.

    Two dates may be ``image1`` and ``image2``, a mask (H, W) or (1, H, W). All other keys are left out. If not given,
    the kind follows from the layout.

    Raises:
        TypeError: if it is not a dictionary with an image.
        ValueError: if its target is missing, or its layout is not one of the contract.
    """
    if isinstance(sample, Mapping) and 'image' not in sample and {'image1', 'image2'} <= set(sample):
        pair = [_numbers(sample, key, where) for key in ('image1', 'image2')]
        if pair[0].shape != pair[1].shape:
            both = ' and '.join(str(tuple(date.shape)) for date in pair)
            raise ValueError(f'{where}: its two dates must have the same shape and dtype, found {both}')
        sample = {**sample, 'image': torch.stack(pair)}
    if isinstance(sample, Mapping):  # Hugging Face returns lists
        lists = {key: _numbers(sample, key, where) for key in ('image', 'mask') if isinstance(sample.get(key), list)}
        sample = {**sample, **lists}
    require_sample(sample, where)
    image = as_tensor(sample['image'])
    if image.is_complex():
        raise ValueError(f'{where}: real numbers are expected in its image, found {image.dtype}')
    if image.ndim not in (1, 3, 4) or (image.ndim == 4 and len(image) != 2):
        raise ValueError(
            f'{where}: an image (C,), (C, H, W) or, of two dates, (2, C, H, W) is expected, found {tuple(image.shape)}'
        )
    found: Sample = {'image': image.to(torch.float32)}
    if not labelled:
        return found
    key = target_of(kind) if kind is not None else next((k for k in ('label', 'mask') if k in sample), None)
    if key is None or key not in sample:
        wanted = "neither 'mask' nor 'label'" if key is None else f'no {key!r}'
        raise ValueError(
            f'{where} has {wanted}, only {sorted(map(str, sample))}; give samples without one as unlabelled='
        )
    target = _numbers(sample, key, where)
    if target.is_floating_point() and not torch.equal(target, target.round()):
        found_too = 'NaN; give such pixels the ignore index' if target.isnan().any() else 'fractions'
        raise ValueError(f'{where}: whole numbers are expected in its {key}, found {target.dtype} with {found_too}')
    as_number = target.numel() == 1 and target.ndim == 1
    if as_number or (image.ndim == 3 and target.ndim == 3 and len(target) == 1):
        target = target[0]
    elif image.ndim == 4 and target.ndim == 2:
        target = target[None]
    found[key] = target.to(torch.int64)
    if kind_of(found) is None or (kind is not None and kind_of(found) != kind):
        shapes = {name: tuple(value.shape) for name, value in found.items()}
        raise ValueError(
            f'{where}: {shapes} is in no layout of {"the sample contract" if kind is None else f"kind {kind!r}"}: '
            'image (C,) or (C, H, W) with label (), image (C, H, W) with mask (H, W), image (2, C, H, W) with mask '
            '(1, H, W)'
        )
    if key == 'mask' and found['mask'].shape[-2:] != image.shape[-2:]:
        raise ValueError(
            f'{where}: its mask has {tuple(target.shape)}, its image {tuple(image.shape)}; sides must agree, and '
            'bands come first'
        )
    return found


def _numbers(sample: Mapping[str, Any], key: str, where: str) -> Tensor:
    """The tensor of a number, an array or a list of them."""
    value = sample[key]
    try:
        array = np.array(value) if isinstance(value, list) else value
    except ValueError:  # of lists of several lengths
        array = None
    if not is_array(array):
        hint = '; give its number, counted from 0 in classes' if key == 'label' else ''
        raise ValueError(
            f'{where}: numbers are expected as its {key}, found {type(value).__name__} {value!r:.60}{hint}'
        )
    return as_tensor(array)


def as_centres(value: Any) -> tuple[float, ...] | None:
    """Band centres in nm; None of what is something else, such as names of bands."""
    try:
        centres = to_nanometres(np.asarray(value, dtype=np.float64))
    except (TypeError, ValueError):
        return None
    return None if centres is None else tuple(centres.tolist())


def wavelengths_of(sample: Mapping[str, Any], where: str) -> tuple[float, ...] | None:
    """Band centres in nm from ``wavelength`` of a sample; None if missing.

    Raises:
        ValueError: if its two dates have different ones.
    """
    values = np.asarray(next((sample[key] for key in ('wavelength', 'wavelengths') if key in sample), None))
    if values.ndim > 1:
        if not (values == values[:1]).all():
            raise ValueError(f'{where}: its two dates have different wavelengths; bring both to the same bands')
        values = values[0]
    return as_centres(values)


def require_same_wavelengths(first: tuple[float, ...], other: tuple[float, ...], where: str) -> None:
    """Refuse a sample whose band centres differ from those of the first.

    Raises:
        ValueError: naming the band that is farthest away.
    """
    if len(first) != len(other):
        raise ValueError(f'{where} has {len(other)} wavelengths, the first sample {len(first)}')
    gaps = np.abs(np.subtract(first, other))
    if (worst := int(gaps.argmax())) is not None and gaps[worst] > WAVELENGTH_TOLERANCE_NM:
        raise ValueError(
            f'{where}: its wavelength of band {worst} is {other[worst]:g} nm, that of the first sample {first[worst]:g}'
            ' nm; resample all to the same bands'
        )


def value_problem(key: str, values: Tensor, spec: SampleSpec, first: int) -> str | None:
    """Fault in (n, ...) values of a tensor against the sample contract; ``first`` is the number of the first sample."""
    if values.is_floating_point():
        # Values that are not finite show in the sum, in a tenth of the time; large finite ones rarely do so, too.
        if torch.isfinite(values.sum()) or (finite := torch.isfinite(values).reshape(len(values), -1).all(dim=1)).all():
            return None
        bad = first + int(finite.to(torch.uint8).argmin())
        what = f'NaN or infinite values in {key}'
        if len(values) == 1:
            return f'sample {bad} holds {what}'
        return f'{int((~finite).sum())} of {len(values)} samples hold {what}, the first is sample {bad}'
    if values.numel() == 0:
        return None
    if spec.kind == 'change':
        spec = replace(spec, classes=spec.classes[:2])
    low, high = values.aminmax()
    if low >= 0 and high < spec.num_classes:
        return None
    if not (wrong := spec.foreign(values)).any():
        return None
    bad = first + int(wrong.reshape(len(wrong), -1).any(dim=1).to(torch.uint8).argmax())
    return f'{key} of sample {bad} holds {values[wrong].unique().tolist()[:8]}, expected {spec.allowed_labels}'


def require_values(batch: Mapping[str, Tensor], spec: SampleSpec, who: str, first: int = 0) -> None:
    """Check that values of stacked real samples are finite, and labels classes or the ignore index.

    Raises:
        ValueError: naming the first faulty sample, and what to do.
    """
    for key, values in batch.items():
        if (problem := value_problem(key, values, spec, first)) is None:
            continue
        if values.is_floating_point():
            hint = 'fill them' + (', and give their pixels the ignore index' if spec.target_key == 'mask' else '')
        else:
            hint = 'give ignore_index= where such pixels do not count, more classes= where they are classes'
            if spec.kind == 'change':
                require_change_values(values.unique().numpy(), who, spec.ignore_index)
        raise ValueError(f'{who}: {problem}; {hint}')
