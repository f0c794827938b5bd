"""Content of a bank: the plan that determines every byte, and the checked samples of a shard."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from ...samples import Sample, SampleSource, SampleSpec, Traits, joined_provenance
from ...settings import check_value
from ...streams import as_seed
from ..contract.batches import fetch
from ..contract.samples import value_problem
from ..contract.wrapped import provenances_of, spec_of
from ..pools.labels import LabelPolicy, per_class
from ..pools.synthetic import SyntheticDataset, default_chunk, draw_samples
from ..real.held import class_fractions
from .record import FORMAT, FRACTIONS, BankError, BankRecord, layout_bytes, numpy_dtype

SHARD_BYTES = 64 << 20


def make_plan(
    source: SampleSource | Dataset[Sample],
    count: int | None,
    labels: LabelPolicy = 'real',
    seed: int = 0,
    real_counts: np.ndarray | None = None,
    prior: np.ndarray | None = None,
    chunk: int | None = None,
    shard_bytes: int = SHARD_BYTES,
) -> tuple[Dataset[Sample], BankRecord]:
    """The samples of a bank as a map-style dataset, and its plan; arguments as for ``write_bank``.

    Raises:
        BankError: if the source is empty or has no spec, or an argument does not fit it.
    """
    spec = getattr(source, 'spec', None) if is_generator(source) else spec_of(source)
    if not isinstance(spec, SampleSpec):
        raise BankError(f'{type(source).__name__} has no spec; give it a SampleSpec as its attribute spec')
    traits = Traits.of(source)
    provenance = traits.provenance
    try:
        if provenance is None and (known := provenances_of(source)):  # of what a subset or another wrapper holds
            provenance = joined_provenance({f'number {k}': one for k, one in enumerate(known)})
        seed = as_seed(seed)
        chunk = check_value('a bank', 'chunk', default_chunk(spec) if chunk is None else chunk, int)
        shard_bytes = check_value('a bank', 'shard_bytes', shard_bytes, int)
        count = check_value('a bank', 'count', count, int | None)
        if count is not None and count >= 1 << 63:
            raise ValueError(f'a bank: count must be below 2^63, found {count}')
        for name, shares in (('real_counts', real_counts), ('prior', prior)):
            if shares is not None:
                per_class(shares, spec.classes, f'{name}: expected a number')
    except (ValueError, TypeError) as error:
        raise BankError(str(error)) from error
    dataset: Dataset[Sample]
    drawn: dict[str, Any]
    if is_generator(source):
        if count is None:
            raise BankError('a generator needs a count of at least 1, found None')
        generator = cast(SampleSource, source)
        try:
            # Chunks are requested in order, so one is kept.
            dataset = SyntheticDataset(generator, count, seed, labels, real_counts, prior, chunk, cache_chunks=1)
        except (ValueError, TypeError) as error:  # no label policy, or one without a required argument
            raise BankError(f'labels {labels!r} do not fit this generator: {error}') from error
        drawn = {
            'device': traits.device.type,
            'seed': seed,
            'labels': labels
            if isinstance(labels, str)
            else {name: value if type(value) in (int, float) else float(value) for name, value in labels.items()},
            'label_counts': dataset.counts.tolist(),
        }
    else:
        dataset, size = cast('Dataset[Sample]', source), len(cast(Any, source))
        count = size if count is None else count
        if not 1 <= count <= size:
            raise BankError(f'{count} samples were asked for, from a dataset of {size}; a bank holds at least one')
        if labels != 'real' or seed != 0 or real_counts is not None or prior is not None:
            raise BankError('labels, seed, real_counts and prior are for generators; a dataset is copied as it is')
        drawn = dict.fromkeys(('device', 'seed', 'labels', 'label_counts'))
    soft = getattr(dataset, 'soft_labels', None)
    soft = bool('label_prob' in dataset[0] if soft is None else soft)
    plan = BankRecord(
        format=FORMAT,
        spec=spec,
        provenance=provenance,
        source={'type': type(source).__name__, 'sha256': _fingerprint(source, count)},
        **drawn,
        soft_labels=soft,
        count=count,
        chunk=chunk,
        shard_size=chunk,
    )
    row_bytes = layout_bytes(plan.tensors())
    return dataset, replace(plan, shard_size=chunk * max(1, round(shard_bytes / (chunk * row_bytes))))


def is_generator(source: object) -> bool:
    """Whether samples are drawn from a source, rather than copied."""
    return hasattr(source, 'sample') and not isinstance(source, Dataset)


def _fingerprint(source: Any, count: int) -> str:
    """SHA-256 of a generator's settings and state, or of the first and last sample of a source without a state."""
    digest = hashlib.sha256(json.dumps(Traits.of(source).settings, sort_keys=True, default=repr).encode())
    if not is_generator(source):
        state = fetch(source, np.array([0, count - 1]))
    else:
        state = source.state_dict() if isinstance(source, nn.Module) else draw_samples(source, 1, None, 0)
    for name, value in sorted(state.items()):
        if isinstance(value, Tensor):
            digest.update(f'{name} {value.dtype} {tuple(value.shape)}'.encode())
            digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def empty_shard(plan: BankRecord) -> dict[str, Tensor]:
    """Memory for the samples of any shard.

    It is memory of numpy, which requests huge pages; with torch's, page faults would cost more than the copy.
    """
    rows = len(plan.rows(0))
    return {
        key: torch.from_numpy(np.empty((rows, *shape), numpy_dtype(dtype)))
        for key, (dtype, shape) in plan.tensors().items()
    }


def shard_tensors(dataset: Any, plan: BankRecord, number: int, memory: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Samples of a shard, drawn chunk by chunk, checked, and put into ``memory`` (:func:`empty_shard`).

    Raises:
        BankError: if a sample breaks the sample contract.
    """
    rows = plan.rows(number)
    tensors = {key: values[: len(rows)] for key, values in memory.items()}
    for first in range(rows.start, rows.stop, plan.chunk):
        chunk = range(first, min(first + plan.chunk, rows.stop))
        drawn = fetch(dataset, np.arange(chunk.start, chunk.stop))
        batch = {key: value.cpu() for key, value in drawn.items() if isinstance(value, Tensor)}
        require_contract(batch, plan.spec, plan.soft_labels, chunk)
        if plan.spec.target_key == 'mask':
            batch[FRACTIONS] = class_fractions(batch['mask'], plan.spec)
        for key, values in tensors.items():
            values[first - rows.start : first - rows.start + len(chunk)] = batch[key]
    return tensors


def require_contract(batch: Mapping[str, Tensor], spec: SampleSpec, soft_labels: bool, rows: range) -> None:
    """Check stacked tensors on the CPU, of the samples numbered by ``rows``, against the sample contract.

    Raises:
        BankError: saying what was found and what the contract demands.
    """
    where, expected = f'samples {rows.start} to {rows.stop - 1}', spec.layout(soft_labels)
    if set(batch) != set(expected):
        raise BankError(
            f'{where} have the tensors {sorted(batch)}, a bank of kind {spec.kind!r} holds {sorted(expected)}; '
            'drop or add what differs in the dataset'
        )
    for key, (dtype, shape) in expected.items():
        value = batch[key]
        if value.dtype != dtype or value.shape != (len(rows), *shape):
            raise BankError(
                f'{where}: {key} is {value.dtype} with shape {tuple(value.shape[1:])} per sample, expected {dtype} '
                f'with {shape}; convert it in the dataset'
            )
        if (problem := value_problem(key, value, spec, rows.start)) is not None:
            raise BankError(f'{where}: {problem}')
