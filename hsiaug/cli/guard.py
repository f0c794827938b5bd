"""What every command makes sure of: a device, a folder that can be written to, a clear end."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import torch

ROOM = 16 << 20
"""Bytes that a command wants free where it writes, before it begins."""


@contextmanager
def terminated_like_interrupted() -> Iterator[None]:
    """SIGTERM, which batch systems send before they kill, ends a command as Ctrl-C does."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    owner = os.getpid()

    def stop(number: int, _: object) -> None:
        if os.getpid() != owner:  # a forked worker has nothing to say
            os._exit(128 + number)
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before or signal.SIG_DFL)


def require_writable(folder: Path, room: int = 0) -> None:
    """Check that a folder can be written to, and has ``room`` for so many bytes, before any work is done.

    The folder need not exist. Nothing is left there, and it is not made: another process may be about to.
    """
    folder = folder.absolute()
    above = next(path for path in (folder, *folder.parents) if os.path.lexists(path))
    if not above.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(above))
    with ExitStack() as stack:
        place = above
        if above != folder:
            probe = stack.enter_context(tempfile.TemporaryDirectory(prefix='.hsiaug-', dir=above))
            place = Path(probe) / folder.relative_to(above)  # whose names must be possible, too
            place.mkdir(parents=True)
        with tempfile.TemporaryFile(dir=place) as file:
            file.write(b'\0' * (1 << 20))
            file.flush()
            os.fsync(file.fileno())
    free, wanted = shutil.disk_usage(above).free, ROOM + room
    if free < wanted:
        raise OSError(
            errno.ENOSPC,
            f'{os.strerror(errno.ENOSPC)}: {free / 2**20:,.0f} MiB are free, {wanted / 2**20:,.0f} MiB are needed',
            str(folder),
        )


def require_device(name: str, devices: int = 1, nodes: int = 1) -> str:
    """The device, checked before any work is done; ``'auto'`` is a GPU where there is one."""
    if min(devices, nodes) < 1:
        raise ValueError(f'devices and nodes must be at least 1, found {devices} and {nodes}')
    if name == 'auto':
        name = 'cuda' if torch.cuda.is_available() else 'cpu'
        if name == 'cuda':  # what nobody has named is said
            print(f'device: {name}, {torch.cuda.get_device_name()}', file=sys.stderr)
    try:
        device = torch.device(name)
        if device.type != 'cuda':  # which forked workers must find untouched
            torch.zeros(1, device=device).cpu()
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f'unknown device {name!r}; choose cpu, cuda, cuda:0, cuda:1, ...') from error
    if devices * nodes > 1 and device.index is not None:
        raise ValueError(f'device {name!r} is a single device; for several, choose --device {device.type}')
    wanted, found = max(devices, (device.index or 0) + 1), torch.cuda.device_count()
    if device.type == 'cuda' and wanted > found:
        raise ValueError(f'device {name!r} needs {wanted} GPUs, PyTorch finds {found}; choose fewer, or --device cpu')
    return name


def require_own(folder: Path, mark: str, what: str) -> None:
    """Refuse a folder that holds files, but not the ``mark`` that a command's own folders have from the beginning."""
    found = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    if found and mark not in found:
        others = ', '.join(found[:3])
        raise FileExistsError(f'{folder} exists and holds no {what} (found {others}); choose another folder')


def out_of_memory(error: RuntimeError) -> bool:
    """Whether PyTorch got no memory, on a GPU or the CPU."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)
