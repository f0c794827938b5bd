"""Common parts of the benchmark commands: data folder, options, running a study, reporting."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TypeVar

from hsiaug.ablation import Arm, Study
from hsiaug.cli import ablate
from hsiaug.cli.guard import require_device

S = TypeVar('S')


def data_root() -> Path:
    """The folder of the real scenes."""
    if 'HSIAUG_DATA' not in os.environ:
        raise SystemExit('HSIAUG_DATA is unset; it names the folder of the real scenes')
    return Path(os.environ['HSIAUG_DATA'])


def available(
    names: Iterable[str], readers: Mapping[str, Callable[[Path], S]], root: Path
) -> dict[str, Callable[[], S]]:
    """Functions that open the scenes found, by name; prints which are missing."""
    found: dict[str, Callable[[], S]] = {}
    for name in names:
        try:
            readers[name](root)
        except FileNotFoundError as error:
            print(f'{name}: not there, left out ({error})')
            continue
        found[name] = partial(readers[name], root)
    if not found:
        raise SystemExit(f'no scene found in {root}; HSIAUG_DATA names the folder that holds {", ".join(names)}')
    return found


def afforded(
    arms: Iterable[Arm], few: Mapping[str, tuple[float, ...]] | None, seeds: Mapping[str, int] | None = None
) -> tuple[Arm, ...]:
    """The ``few`` affordable arms, each at its ratios and with its number of seeds; all arms if None."""
    if few is None:
        return tuple(arms)
    return tuple(
        replace(arm, ratios=few[arm.name], seeds=(seeds or {}).get(arm.name)) for arm in arms if arm.name in few
    )


def options(
    about: str | None, name: str, scales: Iterable[str] = (), quick: str = '3 seeds', seeds: tuple[int, int] = (10, 3),
    device: str | None = None,
) -> argparse.ArgumentParser:  # fmt: skip
    """Options of a benchmark.

    Args:
        about: what the benchmark measures.
        name: name of its run folders, to which the scale or ``quick`` is added.
        scales: available scales, including quick and small.
        quick: description of a quick run.
        seeds: default numbers of seeds, normally and in a quick run.
        device: default device, if there is a choice; with scales ``'auto'``.
    """
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--quick', action='store_true', help=f'no basis for claims: {quick}')
    parser.add_argument('--seeds', type=int, default=None, help=f'default: {seeds[0]}, quick {seeds[1]}')
    ending = '-<scale>' if scales else '[-quick]'
    parser.add_argument('--out', type=Path, default=None, help=f'run folder (default: runs/{name}{ending})')
    parser.add_argument('--workers', type=int, default=2)
    parser.set_defaults(name=name, usual=seeds, scale=None, device='cpu', engine='process')
    if scales:
        parser.add_argument('--scale', choices=list(scales), default='small')
    if scales or device:
        parser.add_argument('--device', default=device or 'auto', help='auto takes a GPU where there is one')
        parser.add_argument('--engine', choices=['process', 'ray'], default='process')
    return parser


def parsed(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """The command line with all defaults filled in."""
    args = parser.parse_args()
    args.device = require_device(args.device)
    scaled = args.scale is not None
    args.quick = args.quick or args.scale == 'quick'
    args.scale = 'quick' if args.quick else args.scale
    args.seeds = args.seeds or args.usual[args.quick]
    ending = f'-{args.scale}' if scaled else '-quick' if args.quick else ''
    args.out = (args.out or Path(f'runs/{args.name}{ending}')).absolute()
    return args


def run_and_report(plan: Study, out: Path, args: argparse.Namespace) -> None:
    """Run a study, draw its samples, write the report and print the table."""
    ablate.run_and_report(plan, out, args.workers, args.engine, args.device)
