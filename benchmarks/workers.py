"""Groups of cells in worker processes, as several benchmarks run them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tqdm.auto import tqdm

from hsiaug.ablation.workers import run_in_processes


def run_in_workers(
    function: Callable[..., object], tasks: Sequence[tuple[Any, ...]], workers: int, desc: str, unit: str
) -> None:
    """Call a function with each of the tasks' arguments, one thread each, and show how many are done.

    The first failure ends all, so that hours of others don't hide it; workers end with this process.

    Args:
        function: at the top of a module; what it finds out it writes to a file.
        tasks: arguments.
        workers: processes.
        desc: what stands before the progress bar.
        unit: of the progress bar.
    """
    with tqdm(total=len(tasks), unit=unit, desc=desc, smoothing=0.05) as bar:
        for _ in run_in_processes(function, tasks, workers):
            bar.update()
