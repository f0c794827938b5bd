"""Writing a bank, shard by shard, on one or many devices, so that a killed run resumes."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
import torch
from filelock import FileLock
from lightning.fabric import Fabric
from torch import nn
from torch.utils.data import Dataset

from ..progress import progress_bar
from ..samples import Sample, SampleSource, Traits
from .bank import SyntheticBank
from .bank_folder import LOCK_FILE, as_json, begin, require_place
from .bank_folder import write_whole as _write_whole
from .bank_plan import SHARD_BYTES, Plan, empty_shard, is_generator, make_plan, shard_tensors
from .bank_record import BANK_FILE, WRITING_FILE, BankError, Shard, checksum, shard_name
from .bank_shard import DIGEST_BYTES, ShardFile, map_shard
from .labels import LabelPolicy

Written = tuple[str, str]
"""Checksum of a shard, and of the checksums of its blocks, hexadecimal."""

T = TypeVar('T')


def write_bank(
    source: SampleSource | Dataset[Sample],
    count: int | None,
    root: str | os.PathLike[str],
    *,
    labels: LabelPolicy = 'real',
    seed: int = 0,
    real_counts: np.ndarray | None = None,
    prior: np.ndarray | None = None,
    chunk: int | None = None,
    shard_bytes: int = SHARD_BYTES,
    fabric: Fabric | None = None,
    progress: bool = False,
) -> SyntheticBank:
    """Write samples into a bank, or go on with one whose writing was cut short.

    Sample i of a generator's bank is sample i of ``SyntheticDataset(source, count, seed, labels, ...)`` to the bit,
    however many devices of one kind write it. Finished shards are kept and the rest is drawn, so that the same call
    after a kill gives the same files as one without. A finished bank of the same call is just opened.

    Args:
        source: a generator, or a map-style dataset in the sample contract with a ``spec``.
        count: number of samples; None takes all of a dataset.
        root: folder of the bank; new, empty, or of the same call.
        labels: classes of a generator's samples (:data:`~hsiaug.datasets.labels.LabelPolicy`).
        seed: of a generator's labels and noise.
        real_counts: (K,) real samples per class; the generator's training frequencies if None.
        prior: (K,) class prior for ``labels='prior'``.
        chunk: samples drawn at once; 1024 spectra, or as many images as 64 MiB hold, if None.
        shard_bytes: about how large a shard is; shards hold whole chunks.
        fabric: a launched Fabric, whose processes share the folder and divide the shards, each on its own device;
            None writes in this process, on the generator's device.
        progress: show a progress bar with the remaining time.

    Returns:
        the bank, opened.

    Raises:
        BankError: if the source is empty or breaks the sample contract, the folder holds something else, another
            process is writing, or the disk is full.
    """
    root = Path(root).expanduser().absolute()

    def prepare() -> tuple[Dataset[Sample], Plan]:
        require_place(root)
        return make_plan(source, count, labels, seed, real_counts, prior, chunk, shard_bytes)

    with ExitStack() as stack:
        _together(fabric, lambda: stack.enter_context(_on_device(source, fabric)), root)
        dataset, plan = _together(fabric, prepare, root)
        _require_same_plans(fabric, plan, root)
        lock = FileLock(root / LOCK_FILE, timeout=0)
        try:
            if not _on_rank_zero(fabric, lambda: _begin(root, plan, lock)):
                written = _together(fabric, lambda: _write_shards(root, plan, dataset, fabric, progress), root)
                everything = _gathered(fabric, plan, written)
                _on_rank_zero(fabric, lambda: _finish(root, plan, everything))
        finally:
            lock.release()
    return SyntheticBank(root)


@contextmanager
def _on_device(source: object, fabric: Fabric | None) -> Iterator[None]:
    """Have a generator on the device of this process meanwhile."""
    if fabric is None or not isinstance(source, nn.Module) or not is_generator(source):
        yield
        return
    before = Traits.of(source).device
    source.to(fabric.device)
    try:
        yield
    finally:
        source.to(before)


def _on_rank_zero(fabric: Fabric | None, action: Callable[[], T]) -> T:
    """Run an action in one process. Its result or its refusal reaches all, so that none is left waiting."""
    if fabric is None or fabric.world_size == 1:
        return action()
    result, failure = None, None
    if fabric.global_rank == 0:
        try:
            result = action()
        except Exception as error:
            failure = error
    with _gone(fabric, failure):
        result, message = fabric.broadcast((result, None if failure is None else str(failure)))
    if failure is not None:
        raise failure
    if message is not None:
        raise BankError(f'process 0 of {fabric.world_size} refused: {message}')
    return cast(T, result)


def _together(fabric: Fabric | None, action: Callable[[], T], root: Path) -> T:
    """Run an action in every process. If one fails all do, so that none waits for it.

    Raises:
        BankError: in the processes that did not fail themselves.
    """
    if fabric is None or fabric.world_size == 1:
        return action()
    failure: Exception | None = None
    try:
        result = action()
    except Exception as error:
        failure = error
    with _gone(fabric, failure):
        mine = torch.tensor(int(failure is not None), device=fabric.device)
        failed = int(cast(Any, fabric.all_reduce(mine, reduce_op='sum')))
    if failure is not None:
        raise failure
    if failed:
        raise BankError(f'{root}: {failed} of {fabric.world_size} processes failed; see their errors')
    return result


@contextmanager
def _gone(fabric: Fabric, failure: Exception | None) -> Iterator[None]:
    """Say what it means that processes cannot speak; the failure of this one goes first."""
    try:
        yield
    except RuntimeError as error:
        raise failure or BankError(
            f'one of {fabric.world_size} processes ended without a word ({error}); finished shards stay, the same '
            'command continues from there'
        ) from error


def _require_same_plans(fabric: Fabric | None, plan: Plan, root: Path) -> None:
    """Refuse processes that would write shards of different banks into one folder."""
    if fabric is None or fabric.world_size == 1:
        return
    first = _on_rank_zero(fabric, plan.record)

    def compare() -> None:
        if differences := plan.differences(first):
            raise BankError(
                f'{root}: process {fabric.global_rank} was asked for another bank (here) than process 0 (there):\n  '
                + '\n  '.join(differences)
            )

    _together(fabric, compare, root)


def _gathered(fabric: Fabric | None, plan: Plan, written: dict[int, Written]) -> list[Written]:
    """Checksums of all shards, from all processes."""
    if fabric is None or fabric.world_size == 1:
        return [written[number] for number in range(plan.num_shards)]
    table = torch.zeros(plan.num_shards, 2 * DIGEST_BYTES, dtype=torch.int64)
    for number, digests in written.items():
        table[number] = torch.tensor(list(bytes.fromhex(''.join(digests))))
    with _gone(fabric, None):
        table = cast(Any, fabric.all_reduce(table.to(fabric.device), reduce_op='sum')).cpu()
    rows = [bytes(row) for row in table.tolist()]
    return [(row[:DIGEST_BYTES].hex(), row[DIGEST_BYTES:].hex()) for row in rows]


def _begin(root: Path, plan: Plan, lock: FileLock) -> bool:
    """Lock the folder and record the plan in it; True if it holds the finished bank already."""
    if begin(root, plan, lock):
        return True
    _write_whole(root / WRITING_FILE, as_json(plan.record()), root, plan)
    return False


def _finish(root: Path, plan: Plan, written: list[Written]) -> None:
    """Write the record, with which the bank exists."""
    shards = []
    for number, (digest, blocks) in enumerate(written):
        path = root / shard_name(number)
        if not path.exists():
            raise BankError(f'{path}, which another process wrote, is not there; do all processes share this folder?')
        shards.append(asdict(Shard(path.name, len(plan.rows(number)), path.stat().st_size, digest, blocks)))
    _write_whole(root / BANK_FILE, as_json({**plan.record(), 'shards': shards}), root, plan)
    # Harmless where a kill leaves them: a bank with a record is finished.
    (root / WRITING_FILE).unlink()
    (root / LOCK_FILE).unlink(missing_ok=True)


# --- the shards -------------------------------------------------------------------------------------------------------


def _write_shards(
    root: Path, plan: Plan, dataset: Dataset[Sample], fabric: Fabric | None, progress: bool
) -> dict[int, Written]:
    """Write those of this process that are missing; the checksums of all of its own."""
    rank, world = (0, 1) if fabric is None else (fabric.global_rank, fabric.world_size)
    mine = range(rank, plan.num_shards, world)
    written = {}
    for number in mine:
        if (kept := _kept(root / shard_name(number), plan, number)) is not None:
            written[number] = kept
    shown, memory = progress and rank == 0, empty_shard(plan)
    with progress_bar(shown, total=len(mine), initial=len(written), desc='bank', unit='shard') as advance:
        for number in sorted(set(mine) - set(written)):
            file = ShardFile(shard_tensors(dataset, plan, number, memory), plan.name_of(number))
            _write_whole(root / shard_name(number), file.write, root, plan)
            written[number] = file.digests
            advance(1)
    return written


def _kept(path: Path, plan: Plan, number: int) -> Written | None:
    """Checksums of a shard of an earlier call; None, and a warning, for one that is not what was written then."""
    if not path.exists():
        return None
    try:
        shard = map_shard(path, plan.tensors(), len(plan.rows(number)))
        if shard.tables is None:
            problem: str | None = f'{path.name} was written by a version that noted no checksums beside it'
        elif shard.name != plan.name_of(number):
            problem = f'{path.name} belongs to another bank or place'
        else:
            altered = next(shard.altered(), None)
            problem = altered and f'{path.name}: {altered}'
        if problem is None:
            return checksum(path), cast(str, shard.root)
    except (BankError, OSError) as error:
        problem = str(error)
    warnings.warn(f'{path.parent}: {problem}; this shard is drawn again', stacklevel=2)
    return None
