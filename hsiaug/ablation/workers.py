"""Tasks in worker processes that end with their parent, however it ends."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import Connection, wait
from typing import Any

import torch


class WorkerDiedError(RuntimeError):
    """A worker process that something outside has ended."""


def run_in_processes(
    function: Callable[..., object],
    tasks: Sequence[tuple[Any, ...]],
    workers: int,
    start: Callable[..., object] | None = None,
    shared: tuple[Any, ...] = (),
) -> Iterator[Any]:
    """Call a function with each of the tasks' arguments, one thread each, and yield what it returns as it comes.

    The first failure ends all workers at once, so that hours of others don't hide it, and so do an interruption and the
    end of this process: no worker outlives it, even if it is killed. What a task has written until then stays.

    Args:
        function: at the top of a module.
        tasks: arguments.
        workers: processes.
        start: called once in each process before its first task.
        shared: arguments of ``start``.

    Raises:
        WorkerDiedError: if a worker dies, for example for lack of memory.
    """
    context = multiprocessing.get_context('spawn')  # forked torch threads and CUDA contexts do not survive
    # Nothing is ever sent: the system closes this end when the process ends, whatever ends it.
    listening, alive = context.Pipe(duplex=False)
    with listening, alive, ProcessPoolExecutor(workers, context, _begin, (listening, start, shared)) as pool:
        try:
            for future in as_completed([pool.submit(function, *task) for task in tasks]):
                yield future.result()
        except BaseException as error:
            alive.close()  # before the pool is left, which waits for its workers
            if isinstance(error, BrokenProcessPool):
                raise WorkerDiedError(
                    'a worker process has died; was it killed, for example for lack of memory? What is finished is '
                    'kept: run the same again, with fewer workers'
                ) from error
            raise


def _begin(listening: Connection, start: Callable[..., object] | None, shared: tuple[Any, ...]) -> None:
    """Set up a worker process. It watches its parent from the first moment: heavy imports may lie before it."""
    threading.Thread(target=_end_with_parent, args=(listening,), daemon=True).start()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes; the parent says what is to be done
    torch.set_num_threads(1)
    if start is not None:
        start(*shared)


def _end_with_parent(listening: Connection) -> None:
    parent = multiprocessing.parent_process()
    wait([listening, *([] if parent is None else [parent.sentinel])])
    os._exit(1)  # without clean-up: nobody is left who waits for it, and files are written whole or not at all


__all__ = ['WorkerDiedError', 'run_in_processes']
