"""Samples as other datasets give them, brought into the sample contract, and the spec that they have."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..samples import WAVELENGTH_TOLERANCE_NM, Kind, Sample, SampleSpec, as_classes, target_of
from ..scenes.change import CHANGE_CLASSES, require_change_values
from ..scenes.wavelengths import given_centres, to_nanometres
from .batches import as_tensor, kind_of, require_sample
from .wrapped import class_names_of, spec_of


def in_contract(sample: Any, where: str, kind: Kind | None = None, labelled: bool = True) -> Sample:
    """``image`` float32 and ``mask`` or ``label`` int64 of a sample with torchgeo's keys, in the contract's layout.

    Two dates may be ``image1`` and ``image2``, a mask (H, W) or (1, H, W). All other keys are left out. The kind
    follows from the layout where it is not given.

    Raises:
        TypeError: if it is no dictionary with an image.
        ValueError: if it lacks its target, or is in no layout of the contract.
    """
    if isinstance(sample, Mapping) and 'image' not in sample and {'image1', 'image2'} <= set(sample):
        pair = [as_tensor(sample[key]) for key in ('image1', 'image2')]
        if pair[0].shape != pair[1].shape:
            both = ' and '.join(str(tuple(date.shape)) for date in pair)
            raise ValueError(f'{where}: its two dates must be alike, found {both}')
        sample = {**sample, 'image': torch.stack(pair)}
    require_sample(sample, where)
    image = as_tensor(sample['image'])
    if image.is_complex():
        raise ValueError(f'{where}: real numbers are expected in its image, found {image.dtype}')
    found: Sample = {'image': image.to(torch.float32)}
    if not labelled:
        if image.ndim not in (1, 3, 4) or (image.ndim == 4 and len(image) != 2):
            raise ValueError(f'{where}: (C,), (C, H, W) or (2, C, H, W) expected, found {tuple(image.shape)}')
        return found
    key = target_of(kind) if kind is not None else next((k for k in ('label', 'mask') if k in sample), None)
    if key is None or key not in sample:
        wanted = "neither 'mask' nor 'label'" if key is None else f'no {key!r}'
        raise ValueError(
            f'{where} has {wanted}, only {sorted(map(str, sample))}; give samples without one as unlabelled='
        )
    target = as_tensor(sample[key])
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
        raise ValueError(f'{where}: its mask has {tuple(target.shape)}, its image {tuple(image.shape)}; they must fit')
    return found


def wavelengths_of(sample: Mapping[str, Any], where: str) -> tuple[float, ...] | None:
    """Band centres in nm that a sample carries as ``wavelength``; None where it has none.

    Raises:
        ValueError: if its two dates have different ones.
    """
    found = next((sample[key] for key in ('wavelength', 'wavelengths') if key in sample), None)
    if found is None:
        return None
    values = np.asarray(found, dtype=np.float64)
    if values.ndim > 1:
        if not (values == values[:1]).all():
            raise ValueError(f'{where}: its two dates have different wavelengths; bring both to the same bands')
        values = values[0]
    centres = to_nanometres(values)
    return None if centres is None else tuple(centres.tolist())


def require_same_wavelengths(first: tuple[float, ...], other: tuple[float, ...], where: str) -> None:
    """Refuse a sample whose bands lie elsewhere than those of the first.

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


def infer_spec(dataset: Any, raw: Any, name: str, given: Mapping[str, Any]) -> SampleSpec:
    """What a dataset holds: by what is given first, its own spec, its attributes, and its first sample, ``raw``.

    Raises:
        ValueError: naming a field that has to be given.
    """
    given = {key: value for key, value in given.items() if value is not None}
    if 'classes' in given:
        given['classes'] = as_classes(given['classes'], name)
    for key in ('wavelengths', 'value_range'):
        if key in given:
            given[key] = tuple(given[key])
    sample = in_contract(raw, f'{name}: sample 0', given.get('kind'))
    kind = kind_of(sample)
    assert kind is not None
    shape = tuple(sample['image'].shape)
    bands, size = (shape[0], None) if kind == 'spectrum' else (shape[-3], (shape[-2], shape[-1]))
    if (
        len(given.get('wavelengths', ())) == bands
        and (centres := given_centres(given['wavelengths'], name)) is not None
    ):
        given['wavelengths'] = tuple(centres.tolist())
    carried = wavelengths_of(raw, f'{name}: sample 0')
    own = spec_of(dataset)
    if own is not None:
        carried = None if carried is None or own.wavelengths else carried
        changed = {**({'wavelengths': carried} if carried else {}), **given}
        return replace(own, kind=kind, bands=bands, size=size, **changed)
    known = {'wavelengths': carried, **_attributes(dataset, bands), **given, 'kind': kind, 'bands': bands, 'size': size}
    classes = known.pop('classes', None) or class_names_of(dataset)
    if classes is None and kind == 'change':
        classes = tuple(CHANGE_CLASSES.values())
    if classes is None:
        raise ValueError(
            f'{name} does not say which classes its {target_of(kind)}s mean (an attribute `classes` with their names '
            "in label order); give classes=['...', ...]"
        )
    return SampleSpec(classes=tuple(classes), **known)


def _attributes(dataset: Any, bands: int) -> dict[str, Any]:
    """Fields of a spec that a dataset has as attributes, where these can be what their names say."""
    found: dict[str, Any] = {}
    centres = getattr(dataset, 'wavelengths', None)
    if centres is not None and np.shape(centres) == (bands,) and (known := to_nanometres(centres)) is not None:
        found['wavelengths'] = tuple(known.tolist())
    for key, wanted in (('unit', str), ('ignore_index', int)):
        if isinstance(value := getattr(dataset, key, None), wanted):
            found[key] = value
    return found


def require_targets(target: Tensor, spec: SampleSpec, where: str) -> None:
    """Refuse labels that are neither a class nor the ignore index.

    Raises:
        ValueError: naming them and what to give.
    """
    values = target.unique()
    if not (wrong := values[spec.foreign(values)].tolist()):
        return
    if spec.kind == 'change':
        require_change_values(values.numpy(), where, spec.ignore_index)
    raise ValueError(
        f'{where}: its {spec.target_key} holds {wrong[:8]}, expected {spec.allowed_labels}; give ignore_index= where '
        'such pixels do not count, more classes= where they are classes'
    )
