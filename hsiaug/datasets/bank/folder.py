"""The folder of a bank during writing: its content, free space, and the state after a disk error."""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from ...records import read_json, write_json
from .reader import SyntheticBank
from .record import BANK_FILE, WRITING_FILE, BankError, BankRecord
from .shard import shard_bytes

LOCK_FILE = '.bank.lock'
_SHARD = re.compile(r'shard-(\d{5,12})\.safetensors')
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def names_place(place: Path) -> Iterator[None]:
    """Name the file or folder that could not be written.

    Raises:
        BankError: for an OSError.
    """
    try:
        yield
    except OSError as error:
        raise BankError(f'{place} cannot be written ({error.strerror or error}); choose another folder') from error


@contextmanager
def keeps_finished(file: Path, plan: BankRecord) -> Iterator[None]:
    """Report how much of a bank is finished if one of its files cannot be written.

    Raises:
        BankError: for an OSError; finished shards are kept.
    """
    try:
        yield
    except OSError as error:
        root = file.parent
        with names_place(root):
            done, needed = len(present(root, plan)), size_text(missing_bytes(root, plan))
        remedy = 'make room' if error.errno in _DISK_FULL else 'repair that'
        raise BankError(
            f'{file.name} of {root} could not be written ({error.strerror or error}): {done} of {plan.num_shards} '
            f'shards are done, {needed} more are needed; {remedy} and give the same command again, and it continues '
            'from there'
        ) from error


def require_place(root: Path) -> None:
    """Check that a bank can be written to a folder, or is there, without writing anything.

    Raises:
        BankError: if the folder holds something else, or nothing can be written there.
    """
    with names_place(root):
        names = {path.name for path in root.iterdir()} if root.exists() else set()
        if BANK_FILE in names:  # its folder may be read-only
            return
        foreign = sorted(name for name in names if not name.startswith('.bank.'))
        if WRITING_FILE not in names and foreign:
            raise BankError(f'{root} is not a bank and not empty (found {foreign[:8]}); choose another folder')
        above = _nearest(root)
        if not above.is_dir():
            raise BankError(f'{root} cannot be a folder: {above} is a file; choose another folder')
        if not os.access(above, os.W_OK | os.X_OK):
            raise BankError(f'{root} cannot be written: {above} is read-only; choose another folder')


def begin(root: Path, plan: BankRecord, lock: FileLock) -> bool:
    """Lock the folder for a plan and record the plan there; True if it already holds the finished bank.

    Raises:
        BankError: if the folder holds something else, another process is writing, or there is too little space.
    """
    if is_finished(root, plan):  # before the lock, since the folder of a finished bank may be read-only
        return True
    require_place(root)
    file = root / WRITING_FILE
    with names_place(root):
        if not file.exists():
            _require_space(root, plan)  # before the folder is made
        root.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire()
        except Timeout:
            raise BankError(
                f'{root}: another process is writing this bank; wait for it or choose another folder'
            ) from None
        if is_finished(root, plan):  # by another process in the meantime
            return True
        if file.exists():
            plan.require_same(read_json(file, 'the plan of a bank', BankError), root)
        for stale in root.glob('.*.tmp'):
            stale.unlink()
        _require_space(root, plan)
        with keeps_finished(file, plan):
            write_json(file, plan.plan(), durable=True)
    return False


def _require_space(root: Path, plan: BankRecord) -> None:
    free, missing = shutil.disk_usage(_nearest(root)).free, missing_bytes(root, plan)
    if free < missing:
        raise BankError(
            f'{root}: the bank needs {size_text(missing)} more, {size_text(free)} are free; make room, choose another '
            'disk, or write fewer samples'
        )


def _nearest(path: Path) -> Path:
    """A path, or its nearest existing parent."""
    return next(place for place in (path, *path.parents) if place.exists())


def is_finished(root: Path, plan: BankRecord) -> bool:
    """Whether a folder holds the bank of a plan.

    Raises:
        BankError: if it holds the bank of another.
    """
    with names_place(root):
        if not (root / BANK_FILE).exists():
            return False
    plan.require_same(SyntheticBank(root).record, root)
    return True


def present(root: Path, plan: BankRecord) -> list[int]:
    """Numbers of the existing shards."""
    numbers = (int(found[1]) for path in root.glob('shard-*') if (found := _SHARD.fullmatch(path.name)))
    return [number for number in numbers if number < plan.num_shards]


def missing_bytes(root: Path, plan: BankRecord) -> int:
    """Approximate size of the shards still to be written."""
    first, last = (shard_bytes(plan.tensors(), len(plan.rows(number))) for number in (0, plan.num_shards - 1))
    there = present(root, plan)
    return first * (plan.num_shards - 1) + last - sum(last if n == plan.num_shards - 1 else first for n in there)


def size_text(count: int) -> str:
    """A readable number of bytes."""
    return f'{count / 1e6:.1f} MB'
