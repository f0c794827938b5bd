"""Memory of processes, and measurements in fresh processes."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar('T')


def resident_mb(field: str = 'RssAnon') -> float:
    """Memory of this process in MB (10^6 bytes): ``RssAnon`` is anonymous, ``VmRSS`` all that is resident."""
    for line in Path('/proc/self/status').read_text().splitlines():
        if line.startswith(f'{field}:'):
            return int(line.split()[1]) * 1024 / 1e6
    raise OSError(f'/proc/self/status has no {field}; this benchmark needs Linux 4.5 or newer')


class Peak:
    """Highest memory while the block runs, and its seconds; by default anonymous memory of this process in MB."""

    def __init__(self, read: Callable[[], float] = resident_mb, interval: float = 0.003) -> None:
        self.read, self.interval = read, interval

    def __enter__(self) -> Peak:
        self.highest = self.read()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._start = time.perf_counter()
        self._thread.start()
        return self

    def _watch(self) -> None:
        while not self._done.wait(self.interval):
            self.highest = max(self.highest, self.read())

    def __exit__(self, *exception: object) -> None:
        self.seconds = time.perf_counter() - self._start
        self._done.set()
        self._thread.join()
        self.highest = max(self.highest, self.read())


def fresh_process() -> ProcessPoolExecutor:
    """A process that has only imported this one's modules."""
    return ProcessPoolExecutor(1, get_context('spawn'))


def in_fresh_process(measure: Callable[..., T], *args: Any) -> T:
    """What a module-level function returns in a process of its own."""
    with fresh_process() as process:
        return process.submit(measure, *args).result()
