"""Memory of processes, and measurements in fresh processes; imports nothing that takes memory itself."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


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


def in_fresh_process(script: str, *options: object) -> dict[str, Any]:
    """JSON printed last by a script of this folder, run in its own process."""
    command = [sys.executable, str(Path(__file__).with_name(script)), *map(str, options)]
    run = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(run.stdout.splitlines()[-1])  # type: ignore[no-any-return]
