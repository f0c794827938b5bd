"""The folder of a bank while it is written: what may be there, what fits, and files that appear whole or not at all."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from filelock import FileLock, Timeout

from ..records import read_json
from .bank import SyntheticBank
from .bank_plan import Plan
from .bank_record import BANK_FILE, WRITING_FILE, BankError

LOCK_FILE = '.bank.lock'
_SHARD = re.compile(r'shard-(\d{5,12})\.safetensors')
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def require_place(root: Path) -> None:
    """Check that a bank can be written in a folder, or lies there, without writing anything.

    Raises:
        BankError: if the folder holds something else, or nothing can be written there.
    """
    with told(root):
        names = {path.name for path in root.iterdir()} if root.exists() else set()
        if BANK_FILE in names:  # it may lie where nothing can be written
            return
        foreign = sorted(name for name in names if not name.startswith('.bank.'))
        if WRITING_FILE not in names and foreign:
            raise BankError(f'{root} is no bank and not empty (found {foreign[:8]}); choose another folder')
        above = nearest(root)
        if not above.is_dir():
            raise BankError(f'{root} cannot be a folder: {above} is a file; choose another folder')
        if not os.access(above, os.W_OK | os.X_OK):
            raise BankError(f'{root} cannot be written: {above} is read-only; choose another folder')


@contextmanager
def told(root: Path) -> Iterator[None]:
    """Say which folder it was that could not be written.

    Raises:
        BankError: for an OSError.
    """
    try:
        yield
    except OSError as error:
        raise BankError(f'{root} cannot be written ({error.strerror or error}); choose another folder') from error


def begin(root: Path, plan: Plan, lock: FileLock) -> bool:
    """Lock the folder for a plan that fits it; True if it holds the finished bank already.

    Raises:
        BankError: if the folder holds something else, another process is writing, or there is too little space.
    """
    if is_finished(root, plan):  # before the lock: a finished bank may lie where nothing can be written
        return True
    require_place(root)
    with told(root):
        if not (root / WRITING_FILE).exists():
            _require_space(root, plan)  # before there is a folder
        root.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire()
        except Timeout:
            raise BankError(
                f'{root}: another process is writing this bank; wait for it or choose another folder'
            ) from None
        if is_finished(root, plan):  # by another process, meanwhile
            return True
        if (root / WRITING_FILE).exists():
            plan.require_same(read_json(root / WRITING_FILE, 'the plan of a bank', BankError), root)
        for stale in root.glob('.*.tmp'):
            stale.unlink()
        _require_space(root, plan)
    return False


def _require_space(root: Path, plan: Plan) -> None:
    free, missing = shutil.disk_usage(nearest(root)).free, missing_bytes(root, plan)
    if free < missing:
        raise BankError(
            f'{root}: the bank needs {size_text(missing)} more, {size_text(free)} are free; make room, choose another '
            'disk, or write fewer samples'
        )


def nearest(path: Path) -> Path:
    """A path, or the nearest above it that exists."""
    return next(place for place in (path, *path.parents) if place.exists())


def is_finished(root: Path, plan: Plan) -> bool:
    """Whether a folder holds the bank of a plan.

    Raises:
        BankError: if it holds the bank of another.
    """
    with told(root):
        if not (root / BANK_FILE).exists():
            return False
    plan.require_same(SyntheticBank(root).record, root)
    return True


def present(root: Path, plan: Plan) -> list[int]:
    """Numbers of the shards that are there."""
    numbers = (int(found[1]) for path in root.glob('shard-*') if (found := _SHARD.fullmatch(path.name)))
    return [number for number in numbers if number < plan.num_shards]


def missing_bytes(root: Path, plan: Plan) -> int:
    """Space that the shards still to be written need."""
    last = plan.num_shards - 1
    return last * plan.shard_bytes(0) + plan.shard_bytes(last) - sum(map(plan.shard_bytes, present(root, plan)))


def size_text(count: int) -> str:
    """A number of bytes, for people."""
    return f'{count / 1e6:.1f} MB'


def as_json(record: dict[str, Any]) -> Callable[[BinaryIO], object]:
    """What writes a record."""
    return lambda file: file.write(json.dumps(record, indent=1).encode())


def write_whole(path: Path, write: Callable[[BinaryIO], object], root: Path, plan: Plan) -> None:
    """Write a file of the bank whole or not at all, even if the machine loses power.

    Raises:
        BankError: if the disk is full or refuses; what is finished stays.
    """
    temporary = path.with_name(f'.{path.name}.tmp')
    try:
        with temporary.open('wb') as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        if not isinstance(error, OSError):
            temporary.unlink(missing_ok=True)
            raise
        with told(root):
            temporary.unlink(missing_ok=True)
            done = len(present(root, plan))
            needed = size_text(missing_bytes(root, plan))
        remedy = 'make room' if error.errno in _DISK_FULL else 'mend that'
        raise BankError(
            f'{path.name} of {root} could not be written ({error.strerror or error}): {done} of {plan.num_shards} '
            f'shards are done, {needed} more are needed; {remedy} and give the same command again, and it goes on from '
            'there'
        ) from error
