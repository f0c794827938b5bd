"""What the commands of the benchmarks have in common: the folder of data, options, running a study and reporting."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import TypeVar

from hsiaug.ablation import Study
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
    """How each scene that is there is opened, by name; says which are not."""
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


def options(about: str | None, name: str, scales: Iterable[str], quick: str = '3 seeds') -> argparse.ArgumentParser:
    """Options of a study at several scales, quick and small among them; the name is that of its run folders."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--quick', action='store_true', help=f'the scale quick: {quick}')
    parser.add_argument('--scale', choices=list(scales), default='small')
    parser.add_argument('--seeds', type=int, default=None, help='default: 10, quick 3')
    parser.add_argument('--out', type=Path, default=None, help=f'run folder (default: runs/{name}-<scale>)')
    parser.add_argument('--workers', type=int, default=2)
    parser.add_argument('--device', default='auto', help='auto takes a GPU where there is one')
    parser.set_defaults(name=name)
    return parser


def parsed(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """The command line with all defaults filled in."""
    args = parser.parse_args()
    args.device = require_device(args.device)
    args.scale = 'quick' if args.quick else args.scale
    args.seeds = args.seeds or (3 if args.scale == 'quick' else 10)
    args.out = args.out or Path(f'runs/{args.name}-{args.scale}')
    return args


def run_and_report(plan: Study, out: Path, args: argparse.Namespace) -> None:
    """Run a study, draw its samples, write the report and print the table."""
    ablate.run_and_report(plan, out, args.workers, getattr(args, 'engine', 'process'), args.device)
