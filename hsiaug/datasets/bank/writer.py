"""Writing of banks, shard by shard, on one or many devices, so that an interrupted run can resume."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
import torch.distributed as dist
from filelock import FileLock
from lightning.fabric import Fabric
from torch import nn
from torch.utils.data import Dataset

from ...progress import progress_bar
from ...records import write_json, written_whole
from ...samples import Sample, SampleSource, Traits
from ..pools.labels import LabelPolicy
from .folder import LOCK_FILE, begin, keeps_finished, require_place
from .plan import SHARD_BYTES, empty_shard, is_generator, make_plan, shard_tensors
from .reader import SyntheticBank
from .record import BANK_FILE, WRITING_FILE, BankError, BankRecord, Shard, shard_name
from .shard import map_shard, write_shard

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
    """Write samples to a bank, or continue writing an unfinished one.

    Sample i of a generator's bank is bit for bit sample i of ``SyntheticDataset(source, count, seed, labels, ...)``,
    however many devices of one kind write it. If writing is interrupted, repeat the call: finished shards are kept, and
    the files are the same as without interruption. If the bank of the call is finished, it is just opened.

    Args:
        source: a generator, or a map-style dataset in the sample contract with a ``spec``.
        count: number of samples; None takes all of a dataset.
        root: folder of the bank; new, empty, or of the same call.
        labels: class frequencies of a generator's samples (:data:`~hsiaug.datasets.LabelPolicy`).
        seed: seed of a generator's labels and noise.
        real_counts: (K,) real samples per class; if None, the generator's training frequencies.
        prior: (K,) class prior for ``labels='prior'``.
        chunk: number of samples drawn at once; if None, 1024 spectra, or as many images as fit in 64 MiB.
        shard_bytes: approximate size of a shard, which holds whole chunks.
        fabric: a launched Fabric whose processes share the folder and divide the shards, each on its own device; if
            None, this process writes, on the generator's device.
        progress: show a progress bar with the remaining time.

    Returns:
        the bank, opened.

    Raises:
        BankError: if the source is empty or violates the sample contract, the folder holds something else, another
            process is writing, or the disk is full.
    """
    root = Path(root).expanduser().absolute()
    processes = _Processes(fabric, root)

    def prepare() -> tuple[Dataset[Sample], BankRecord]:
        require_place(root)
        return make_plan(source, count, labels, seed, real_counts, prior, chunk, shard_bytes)

    with ExitStack() as stack:
        processes.all(lambda: stack.enter_context(_on_device(source, fabric)))
        dataset, plan = processes.all(prepare)
        processes.require_same(plan)
        lock = FileLock(root / LOCK_FILE, timeout=0)
        try:
            if not processes.all(lambda: begin(root, plan, lock), first=True):
                processes.all(lambda: _write_shards(plan, dataset, processes, progress))
                processes.all(lambda: _finish(root, plan), first=True)
        finally:
            lock.release()
    return SyntheticBank(root)


@contextmanager
def _on_device(source: object, fabric: Fabric | None) -> Iterator[None]:
    """Move a generator to the device of this process temporarily."""
    if fabric is None or not isinstance(source, nn.Module) or not is_generator(source):
        yield
        return
    before = Traits.of(source).device
    source.to(fabric.device)
    try:
        yield
    finally:
        source.to(before)


class _Processes:
    """The processes that write a bank together; if one fails, all do, so that none waits forever."""

    def __init__(self, fabric: Fabric | None, root: Path) -> None:
        self.root, self.fabric = root, fabric if fabric is not None and fabric.world_size > 1 else None
        self.rank, self.world = (0, 1) if self.fabric is None else (self.fabric.global_rank, self.fabric.world_size)

    def all(self, action: Callable[[], T], first: bool = False) -> T:
        """Run an action in every process or, if ``first``, in process 0 alone, whose result all get.

        Raises:
            BankError: in the processes that did not fail themselves, and where one has ended.
        """
        if self.fabric is None:
            return action()
        result: T | None = None
        failure: Exception | None = None
        try:
            if self.rank == 0 or not first:
                result = action()
        except Exception as error:
            failure = error
        found: list[Any] = [None] * self.world
        try:
            dist.all_gather_object(found, (failure and str(failure), result if first else None))
        except RuntimeError as error:
            raise failure or BankError(
                f'one of {self.world} processes ended unexpectedly ({error}); finished shards stay, the same command '
                'continues from there'
            ) from error
        if messages := [message for message, _ in found if message is not None]:
            raise failure or BankError(f'{self.root}: {len(messages)} of {self.world} processes failed: {messages[0]}')
        return cast(T, found[0][1] if first else result)

    def require_same(self, plan: BankRecord) -> None:
        """Refuse processes that would write shards of different banks into one folder."""

        def compare() -> None:
            if differences := plan.differences(there):
                raise BankError(
                    f'{self.root}: process {self.rank} was asked for another bank (here) than process 0 (there):\n  '
                    + '\n  '.join(differences)
                )

        there = self.all(plan.plan, first=True)
        self.all(compare)


def _finish(root: Path, plan: BankRecord) -> None:
    """Write the record, which completes the bank."""
    shards = []
    for number in range(plan.num_shards):
        path, count = root / shard_name(number), len(plan.rows(number))
        if not path.exists():
            raise BankError(f'{path}, which another process wrote, is not there; do all processes share this folder?')
        blocks = map_shard(path, plan.tensors(), count).root
        shards.append(asdict(Shard(path.name, count, path.stat().st_size, blocks)))
    with keeps_finished(root / BANK_FILE, plan):
        write_json(root / BANK_FILE, {**plan.plan(), 'shards': shards}, durable=True)
    # Harmless if a kill leaves them: a bank with a record is finished.
    (root / WRITING_FILE).unlink()
    (root / LOCK_FILE).unlink(missing_ok=True)


def _write_shards(plan: BankRecord, dataset: Dataset[Sample], processes: _Processes, progress: bool) -> None:
    """Write the missing shards of this process."""
    mine = range(processes.rank, plan.num_shards, processes.world)
    missing = [number for number in mine if not _is_there(processes.root / shard_name(number), plan, number)]
    shown, memory, done = progress and processes.rank == 0, empty_shard(plan), len(mine) - len(missing)
    with progress_bar(shown, total=len(mine), initial=done, desc='bank', unit='shard') as advance:
        for number in missing:
            path, tensors = processes.root / shard_name(number), shard_tensors(dataset, plan, number, memory)
            with keeps_finished(path, plan), written_whole(path, durable=True) as whole, whole.open('wb') as file:
                write_shard(file, tensors, plan.name_of(number))
            advance(1)


def _is_there(path: Path, plan: BankRecord, number: int) -> bool:
    """Whether an earlier call has written a shard; warns of an altered one."""
    if not path.exists():
        return False
    try:
        shard = map_shard(path, plan.tensors(), len(plan.rows(number)))
        if shard.tables is None:
            problem: str | None = f'{path.name} was written by a version that noted no checksums'
        elif shard.name != plan.name_of(number):
            problem = f'{path.name} belongs to another bank or place'
        else:
            altered = next(shard.altered(), None)
            problem = altered and f'{path.name}: {altered}'
        if problem is None:
            return True
    except (BankError, OSError) as error:
        problem = str(error)
    warnings.warn(f'{path.parent}: {problem}; this shard is drawn again', stacklevel=2)
    return False
