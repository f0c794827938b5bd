"""Common parts of the speed benchmarks: timing in blocks, interleaved pairs, a record of the machine."""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

import torch

from hsiaug.ablation.environment import command, environment
from hsiaug.records import write_json

T = TypeVar('T')


def options(about: str | None, pairs: int | None = None) -> argparse.ArgumentParser:
    """Options of a speed benchmark, ``pairs`` of blocks among them where there is a default."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--device', default='cpu')
    parser.add_argument('--threads', type=int, default=2)
    if pairs is not None:
        parser.add_argument('--pairs', type=int, default=pairs, help='blocks of each side')
    parser.add_argument('--out', type=Path, default=None, help='JSON file')
    return parser


def parsed(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """The command line; threads and torch's seed are set."""
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    return args


def milliseconds(step: Callable[[], object], iterations: int, device: str) -> float:
    """Wall time of one iteration, mean over a block."""
    start = time.perf_counter()
    for _ in range(iterations):
        step()
    if device != 'cpu':
        torch.cuda.synchronize()
    return (time.perf_counter() - start) / iterations * 1e3


def launches(step: Callable[[], object], device: str, iterations: int = 4) -> dict[str, Any]:
    """Load of one iteration on a GPU: kernels, their time, number and duration of driver calls."""
    step()
    with torch.profiler.profile() as profile:
        for _ in range(iterations):
            step()
        if device != 'cpu':
            torch.cuda.synchronize()
    events = profile.key_averages()
    kernels = [event for event in events if event.device_type != torch.autograd.DeviceType.CPU]
    calls = [event for event in events if event.key.startswith('cuda')]
    return {
        'kernels': sum(event.count for event in kernels) / iterations,
        'gpu_us': round(sum(event.self_device_time_total for event in kernels) / iterations, 1),
        'calls': {event.key: event.count / iterations for event in calls},
        'calls_us': {event.key: round(event.self_cpu_time_total / iterations, 1) for event in calls},
    }


def clocks(action: Callable[[], object]) -> tuple[float, float]:
    """Wall time of an action, and processor time of this process, in seconds."""
    wall, cpu = time.perf_counter(), time.process_time()
    action()
    return time.perf_counter() - wall, time.process_time() - cpu


def summary(values: list[float]) -> dict[str, float]:
    """Median and quartiles."""
    low, middle, high = statistics.quantiles(values, n=4)
    return {'median': round(middle, 4), 'q1': round(low, 4), 'q3': round(high, 4)}


def interleaved(blocks: Mapping[str, Callable[[], T]], rounds: int) -> dict[str, list[T]]:
    """Times returned by blocks run in turn, A B B A A B ..., so that a change of load affects all of them."""
    times: dict[str, list[T]] = {name: [] for name in blocks}
    order = list(blocks)
    for _ in range(rounds):
        for name in order:
            times[name].append(blocks[name]())
        order.reverse()
    return times


def ratios(first: list[float], second: list[float]) -> dict[str, float]:
    """Ratios of the second to the first in each round."""
    return summary([b / a for a, b in zip(first, second, strict=True)])


def paired(
    blocks: Mapping[str, Callable[[], float]], pairs: int, at_most: float | None = None, at_least: float | None = None,
    warm: bool = False,
) -> dict[str, Any]:  # fmt: skip
    """Milliseconds returned by two blocks, and the ratio of the second to the first in each pair, with its goal.

    Unless ``warm``, each is run once before, for allocators, threads and the choice of kernels.
    """
    if not warm:
        interleaved(blocks, 1)
    times = interleaved(blocks, pairs)
    found: dict[str, Any] = {f'ms_{name}': summary(of) for name, of in times.items()}
    ratio = ratios(*times.values())
    if at_most is not None:
        found |= {'goal': f'at most {at_most}', 'met': ratio['median'] <= at_most}
    if at_least is not None:
        found |= {'goal': f'at least {at_least}', 'met': ratio['median'] >= at_least}
    return {**found, 'ratio': ratio}


def machine(device: str = 'cpu', *packages: str) -> dict[str, Any]:
    """Conditions of the figures: command, hardware, threads, load, versions (also of ``packages``) and commit."""
    found = environment(device)
    return {
        'command': command(),
        **found,
        'device': found['hardware'] if device != 'cpu' else 'cpu',
        'threads': torch.get_num_threads(),
        'load_at_start': round(os.getloadavg()[0], 2),
        'matmul_precision': torch.get_float32_matmul_precision(),
        'versions': {**found['versions'], **{name: version(name) for name in packages}},
    }


def publish(result: dict[str, Any], out: Path | None) -> None:
    """Print a result, and write it as JSON if a file is given."""
    print(json.dumps(result, indent=2))
    if out is not None:
        write_json(out, result)
