"""Groups of cells in worker processes, as several benchmarks run them."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from typing import Any

import torch
from tqdm.auto import tqdm


def _start_worker() -> None:
    torch.set_num_threads(1)


def run_in_workers(
    function: Callable[..., object], tasks: Sequence[tuple[Any, ...]], workers: int, desc: str, unit: str
) -> None:
    """Call a function with each of the tasks' arguments, one thread each, and show how many are done.

    After the first failure no further task is started, so that hours of others don't hide it.

    Args:
        function: at the top of a module; what it finds out it writes to a file.
        tasks: arguments.
        workers: processes.
        desc: what stands before the progress bar.
        unit: of the progress bar.
    """
    context = multiprocessing.get_context('spawn')  # forked torch threads and CUDA contexts do not survive
    with (
        tqdm(total=len(tasks), unit=unit, desc=desc, smoothing=0.05) as bar,
        ProcessPoolExecutor(workers, context, _start_worker) as pool,
    ):
        futures = [pool.submit(function, *task) for task in tasks]
        try:
            for future in as_completed(futures):
                future.result()
                bar.update()
        except BaseException:
            for future in futures:  # leaving the pool takes back what its shutdown was told to cancel
                future.cancel()
            pool.shutdown(wait=False)
            raise
