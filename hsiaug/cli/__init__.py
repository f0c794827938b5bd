"""Command line: what needs no heavy import is answered here, at once; the commands are in ``hsiaug.cli.commands``."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence

from ..named_configs import near

DESCRIPTION = 'Mix synthetic hyperspectral samples into training at a chosen ratio, and measure honestly what you gain.'
COMMANDS = {
    'demo': 'Mix synthetic spectra into training on a simulated scene at several ratios, and report whether it helps.',
    'train': 'Train a generator on the training part of a scene or dataset. Repeat the command to resume.',
    'sample': 'Draw samples from a trained generator into a bank, or check a bank. Repeat the command to resume.',
    'evaluate': 'Measure how close the samples of a generator or bank are to real ones.',
    'ratio': 'Choose a ratio on folds of the training area. Repeat the command to resume.',
    'ablate': 'Measure how much synthetic samples help a model, and at which ratio. Repeat the command to resume.',
    'report': 'Redraw the report of a study.',
    'reproduce': "Reproduce a paper's tables and figures, next to the published numbers. Repeat the command to resume.",
    'list': 'List generators, tasks, benchmarks or configs; show the settings of a generator or the text of a config.',
    'completion': 'Print a shell script that completes commands, options and their choices.',
}
"""Commands, with the first line of their help."""
EXAMPLES = {
    'demo': 'hsiaug demo --out runs/demo',
    'train': 'hsiaug train --generator variability --scene.path cube.mat --scene.labels labels.mat --out runs/ours',
    'sample': 'hsiaug sample runs/ours --count 10000 --labels inverse --out runs/bank --preview',
    'evaluate': 'hsiaug evaluate runs/bank --real runs/ours',
    'ratio': 'hsiaug ratio runs/ours --gated',
    'ablate': 'hsiaug ablate --config verdict --scene.path cube.mat --scene.labels labels.mat --out runs/mine',
    'report': 'hsiaug report runs/mine',
    'reproduce': 'hsiaug reproduce audebert2018 --data data --scale small --out runs/audebert2018',
    'list': 'hsiaug list generators spectral_gan',
    'completion': 'hsiaug completion bash',
}
"""An example for the help of each command."""


def main(args: Sequence[str] | None = None) -> None:
    """Entry point. A user's mistake gives one line on standard error and exit status 2, not a traceback."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, 'reconfigure'):  # a terminal without UTF-8 shows ? for what it has not
            stream.reconfigure(errors='replace')
    try:
        try:
            _run(list(sys.argv[1:] if args is None else args))
        finally:
            sys.stdout.flush()
    except KeyboardInterrupt:  # also while PyTorch is imported, which takes seconds
        raise SystemExit(
            '\ninterrupted; repeat the command to start again, or to resume from what it has saved'
        ) from None
    except BrokenPipeError:  # of head, say, which has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit('hsiaug: the output is not read to its end') from None
    finally:
        if args is None:  # the process ends: another Ctrl-C ends it at once
            signal.signal(signal.SIGINT, lambda *_: os._exit(1))


def _run(arguments: list[str]) -> None:
    """Run a command, or say what there is."""
    first = arguments[0] if arguments else '--help'
    if first in ('-h', '--help', 'help'):
        print(usage())
    elif first == '--version':
        from .. import __version__

        print(f'hsiaug {__version__}')
    elif first in COMMANDS:
        from .commands import run

        run(arguments)
    else:
        what = f'options follow a command, found {first!r}' if first.startswith('-') else f'unknown command {first!r}'
        print(f'hsiaug: {what}; {near(first, COMMANDS)}choose from {", ".join(COMMANDS)}', file=sys.stderr)
        raise SystemExit(2)


def usage() -> str:
    """The help of ``hsiaug`` itself."""
    width = max(map(len, COMMANDS)) + 2
    lines = ['usage: hsiaug [-h] [--version] COMMAND ...', '', DESCRIPTION, '', 'commands:']
    lines += [f'  {name:{width}}{said}' for name, said in COMMANDS.items()]
    lines += ['', "'hsiaug COMMAND --help' explains a command; every command takes --config FILE."]
    return '\n'.join(lines)
