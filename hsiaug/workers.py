"""Tasks in worker processes that end with their parent, however it ends."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import partial
from multiprocessing.connection import Connection, wait
from typing import Any, Literal

import torch

from .samples import LeakageError
from .settings import check_value

Engine = Literal['process', 'ray']
Task = tuple[Any, ...]
Work = Callable[..., Iterator[int]]


class WorkerDiedError(RuntimeError):
    """A worker process that something outside has ended."""


def check_workers(who: str, workers: int, engine: Engine) -> None:
    """Check the number of workers and the engine."""
    check_value(who, 'engine', engine, Engine)
    check_value(who, 'workers', workers, int)


def run_tasks(
    work: Work,
    tasks: Sequence[Task],
    shared: Task = (),
    workers: int = 1,
    engine: Engine = 'process',
    device: str = 'cpu',
) -> Generator[int, None, None]:
    """Work through tasks, each on one thread, and yield how much is done as it comes.

    ``work`` is a generator function at the top of a module that yields 1 for each piece that it has recorded; it is
    called with the arguments of each task, after the ``shared`` ones, which a process receives once. A single worker
    works in this process; a task of the ``ray`` engine takes a GPU for itself where the device is one.
    """
    if engine == 'ray':
        yield from _on_ray(work, tasks, shared, workers, device)
    elif workers > 1:
        yield from run_in_processes(_pieces, tasks, workers, (work, *shared))
    else:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # as in a worker: sums over threads differ in the last bits
        try:
            for task in tasks:
                yield from work(*shared, *task)
        finally:
            torch.set_num_threads(threads)


def _pieces(work: Work, *arguments: Any) -> int:
    return sum(work(*arguments))


def _on_ray(work: Work, tasks: Sequence[Task], shared: Task, workers: int, device: str) -> Iterator[int]:
    try:
        import ray
    except ImportError as error:
        raise ImportError("engine 'ray' needs the extra: pip install 'hsiaug[ray]'") from error
    if not ray.is_initialized():
        ray.init(num_cpus=None if 'RAY_ADDRESS' in os.environ else workers, log_to_driver=False)

    @ray.remote(num_cpus=1, num_gpus=1 if device.startswith('cuda') else 0)  # type: ignore[untyped-decorator]
    def remote(common: Task, task: Task) -> int:
        torch.set_num_threads(1)
        return _pieces(work, *common, *task)

    common = ray.put(shared)
    waiting = [remote.remote(common, task) for task in tasks]
    while waiting:
        ready, waiting = ray.wait(waiting)
        yield from (int(n) for n in ray.get(ready))


@contextmanager
def naming(what: str) -> Iterator[None]:
    """Name the training or measurement in errors that are raised inside."""
    try:
        yield
    except LeakageError:
        raise
    except (ValueError, ArithmeticError) as error:
        raise ValueError(f'{what}: {error}') from error
    except RuntimeError as error:  # torch's; it may be a bug, so it stays one
        raise RuntimeError(f'{what}: {error}') from error


def run_in_processes(
    function: Callable[..., object], tasks: Sequence[Task], workers: int, shared: Task = ()
) -> Iterator[Any]:
    """Call a function with each of the tasks' arguments, one thread each, and yield what it returns as it comes.

    The ``shared`` arguments, which come first, are sent to each process once. The first failure ends all workers at
    once, so that hours of others don't hide it, and so do an interruption and the end of this process: no worker
    outlives it, even if it is killed. What a task has written until then stays.
    """
    context = multiprocessing.get_context('spawn')  # forked torch threads and CUDA contexts do not survive
    # Nothing is ever sent: the system closes this end when the process ends, whatever ends it.
    listening, alive = context.Pipe(duplex=False)
    with listening, alive, ProcessPoolExecutor(workers, context, _begin, (listening, function, shared)) as pool:
        try:
            with _ctrl_c_later():
                submitted = [pool.submit(_call, task) for task in tasks]
            for future in as_completed(submitted):
                yield future.result()
        except BaseException as error:
            alive.close()  # before the pool is left, which waits for its workers
            if isinstance(error, BrokenProcessPool):
                raise WorkerDiedError(
                    'a worker process has died; was it killed, for example for lack of memory? What is finished is '
                    'kept: run the same again, with fewer workers'
                ) from error
            raise


@contextmanager
def _ctrl_c_later() -> Iterator[None]:
    """Hold Ctrl-C back. Processes started meanwhile never hear it, not even in the seconds of their imports."""
    if not hasattr(signal, 'pthread_sigmask'):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


_function: Callable[..., object]
"""What a worker process is for."""


def _call(task: Task) -> object:
    return _function(*task)


def _begin(listening: Connection, function: Callable[..., object], shared: Task) -> None:
    """Set up a worker process. It watches its parent from the first moment: heavy imports may lie before it."""
    threading.Thread(target=_end_with_parent, args=(listening,), daemon=True).start()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes; the parent says what is to be done
    torch.set_num_threads(1)
    global _function
    _function = partial(function, *shared)


def _end_with_parent(listening: Connection) -> None:
    parent = multiprocessing.parent_process()
    wait([listening, *([] if parent is None else [parent.sentinel])])
    os._exit(1)  # without clean-up: nobody is left who waits for it, and files are written whole or not at all
