"""Interruptions between two steps: Ctrl-C and a termination request never leave a step half done."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Interrupt:
    """Whether somebody has asked the training to stop."""

    def __init__(self) -> None:
        self.asked, self._owner = False, os.getpid()

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """Note the request; a second one stops at once."""
        if os.getpid() != self._owner:  # a forked worker, whose parent ends it
            os._exit(128 + number)
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True


@contextmanager
def between_steps() -> Iterator[Interrupt]:
    """Turn SIGINT and SIGTERM into a request that the training answers when its step is done.

    Signals reach the main thread only; elsewhere nothing is changed. One that is ignored, as workers of a study ignore
    Ctrl-C, stays ignored.
    """
    request = Interrupt()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    numbers = (signal.SIGINT, signal.SIGTERM)
    heard = [number for number in numbers if signal.getsignal(number) != signal.SIG_IGN]
    before = {number: signal.signal(number, request) for number in heard}
    try:
        yield request
    finally:
        for number, handler in before.items():
            # None stands for a handler that was not set from Python, which cannot be put back.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
