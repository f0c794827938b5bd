"""Writing a bank, shard by shard, on one or many devices, so that a killed run goes on where it was."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
import torch
from filelock import FileLock, Timeout
from lightning.fabric import Fabric
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import nn
from torch.utils.data import Dataset
from tqdm.auto import tqdm

from ..samples import Sample, SampleSource
from .bank import BANK_FILE, WRITING_FILE, BankError, Shard, SyntheticBank, checksum, shard_name
from .bank_plan import SHARD_BYTES, Plan, is_generator, make_plan, shard_tensors
from .labels import LabelPolicy

LOCK_FILE = '.bank.lock'
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

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
    root = Path(root)
    with _on_device(source, fabric):
        dataset, plan = make_plan(source, count, labels, seed, real_counts, prior, chunk, shard_bytes)
        lock = FileLock(root / LOCK_FILE, timeout=0)
        try:
            if not _on_rank_zero(fabric, lambda: _begin(root, plan, lock)):
                digests = _write_shards(root, plan, dataset, fabric, progress)
                _on_rank_zero(fabric, lambda: _finish(root, plan, digests))
        finally:
            lock.release()
    return SyntheticBank(root)


@contextmanager
def _on_device(source: object, fabric: Fabric | None) -> Iterator[None]:
    """Have a generator on the device of this process meanwhile."""
    if fabric is None or not isinstance(source, nn.Module) or not is_generator(source):
        yield
        return
    before = getattr(source, 'device', torch.device('cpu'))
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
    result, message = fabric.broadcast((result, None if failure is None else str(failure)))
    if failure is not None:
        raise failure
    if message is not None:
        raise BankError(f'process 0 of {fabric.world_size} refused: {message}')
    return cast(T, result)


# --- the folder -------------------------------------------------------------------------------------------------------


def _begin(root: Path, plan: Plan, lock: FileLock) -> bool:
    """Lock the folder and record the plan in it; True if it holds the finished bank already."""
    if _is_finished(root, plan):  # before the lock: a finished bank may lie where nothing can be written
        return True
    names = {path.name for path in root.iterdir()} if root.exists() else set()
    if not names & {BANK_FILE, WRITING_FILE} and (foreign := sorted(n for n in names if not n.startswith('.bank.'))):
        raise BankError(f'{root} is no bank and not empty (found {foreign[:8]}); choose another folder')
    root.mkdir(parents=True, exist_ok=True)
    try:
        lock.acquire()
    except Timeout:
        raise BankError(f'{root}: another process is writing this bank; wait for it or choose another folder') from None
    if _is_finished(root, plan):  # by another process, meanwhile
        return True
    if (root / WRITING_FILE).exists():
        plan.require_same(json.loads((root / WRITING_FILE).read_text()), root)
    for stale in root.glob('.*.tmp'):
        stale.unlink()
    free, missing = shutil.disk_usage(root).free, _missing_bytes(root, plan)
    if free < missing:
        raise BankError(
            f'{root}: the bank needs {_size(missing)} more, {_size(free)} are free; make room, choose another disk, or '
            'write fewer samples'
        )
    _write_whole(root / WRITING_FILE, json.dumps(plan.record(), indent=1).encode(), root, plan)
    return False


def _is_finished(root: Path, plan: Plan) -> bool:
    if not (root / BANK_FILE).exists():
        return False
    plan.require_same(SyntheticBank(root).record, root)
    return True


def _finish(root: Path, plan: Plan, digests: list[str]) -> None:
    """Write the record, with which the bank exists."""
    shards = []
    for number, digest in enumerate(digests):
        path = root / shard_name(number)
        shards.append(asdict(Shard(path.name, len(plan.rows(number)), path.stat().st_size, digest)))
    record = {**plan.record(), 'shards': shards}
    _write_whole(root / BANK_FILE, json.dumps(record, indent=1).encode(), root, plan)
    # Harmless where a kill leaves them: a bank with a record is finished.
    (root / WRITING_FILE).unlink()
    (root / LOCK_FILE).unlink(missing_ok=True)


def _missing_bytes(root: Path, plan: Plan) -> int:
    """Space that the shards still to be written need."""
    missing = [n for n in range(plan.num_shards) if not (root / shard_name(n)).exists()]
    return sum(len(plan.rows(number)) for number in missing) * plan.row_bytes() + len(missing) * 1024  # headers


def _size(count: int) -> str:
    return f'{count / 1e6:.1f} MB'


def _write_whole(path: Path, data: bytes, root: Path, plan: Plan) -> None:
    """Write a file of the bank whole or not at all, even if the machine loses power.

    Raises:
        BankError: if the disk is full; what is finished stays.
    """
    temporary = path.with_name(f'.{path.name}.tmp')
    try:
        with temporary.open('wb') as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno in _DISK_FULL:
            done = sum((root / shard_name(number)).exists() for number in range(plan.num_shards))
            raise BankError(
                f'{path.name} of {root} could not be written ({error.strerror}): {done} of {plan.num_shards} shards '
                f'are done, {_size(_missing_bytes(root, plan))} more are needed; make room and give the same command '
                'again, and it goes on from there'
            ) from error
        raise


# --- the shards -------------------------------------------------------------------------------------------------------


def _write_shards(root: Path, plan: Plan, dataset: Dataset[Sample], fabric: Fabric | None, progress: bool) -> list[str]:
    """Write what is missing, each process its own shards; returns the checksums of all."""
    rank, world = (0, 1) if fabric is None else (fabric.global_rank, fabric.world_size)
    digests = torch.zeros(plan.num_shards, 32, dtype=torch.int64)
    mine = range(rank, plan.num_shards, world)
    failure: Exception | None = None
    try:
        kept = [number for number in mine if _is_intact(root / shard_name(number), plan, number)]
        for number in kept:
            digests[number] = _as_row(checksum(root / shard_name(number)))
        bar = tqdm(total=len(mine), initial=len(kept), desc='bank', unit='shard', disable=not progress or rank > 0)
        with bar:
            for number in sorted(set(mine) - set(kept)):
                data = save(shard_tensors(dataset, plan, number))
                _write_whole(root / shard_name(number), data, root, plan)
                digests[number] = _as_row(hashlib.sha256(data).hexdigest())
                bar.update()
    except Exception as error:
        failure = error
    if fabric is not None and world > 1:  # the others must not wait for one that failed
        failed = fabric.all_reduce(torch.tensor(int(failure is not None), device=fabric.device), reduce_op='sum')
        digests = cast(Any, fabric.all_reduce(digests.to(fabric.device), reduce_op='sum')).cpu()
        if failure is None and failed:
            raise BankError(f'{root}: {int(cast(Any, failed))} of {world} processes failed; see their errors')
    if failure is not None:
        raise failure
    return [bytes(row).hex() for row in digests.tolist()]


def _as_row(digest: str) -> torch.Tensor:
    return torch.tensor(list(bytes.fromhex(digest)))


def _is_intact(path: Path, plan: Plan, number: int) -> bool:
    """Whether a shard is there with all its tensors."""
    try:
        with safe_open(path, framework='pt') as file:
            shapes = {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118
    except (FileNotFoundError, SafetensorError):
        return False
    return shapes == {key: (len(plan.rows(number)), *shape) for key, (_, shape) in plan.tensors().items()}
