"""Command line: what needs no heavy import is answered here, at once; the commands are in ``hsiaug.cli.commands``."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Sequence

DESCRIPTION = 'Synthetic hyperspectral samples, mixed into real training at a ratio, and the gain measured honestly.'
COMMANDS = {
    'demo': 'Mix synthetic spectra into the simulated scene at several ratios, and answer whether that helps.',
    'train': 'Train a generator on the training part of a scene, or of a dataset. Run it again to resume it.',
    'sample': 'Draw samples from a trained generator into a bank, or look after a bank. Run it again to resume it.',
    'evaluate': 'Measure how near synthetic samples come to real ones, of a trained generator or of a bank.',
    'ratio': 'Choose a ratio on folds of the training area. Run it again to resume it.',
    'ablate': 'Measure how much synthetic samples help a model, and at which ratio. Run it again to resume it.',
    'report': 'Draw the report of a study again.',
    'reproduce': "Make a paper's tables and figures again, next to the published numbers. Run it again to resume it.",
    'list': 'List generators, tasks, benchmarks or configs; of one generator its settings, of a config its text.',
    'completion': 'Print a script that lets a shell complete commands, options and their choices.',
}
"""Commands, each with the first line of its help."""
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
"""What is typed, for the help of each command."""


def main(args: Sequence[str] | None = None) -> None:
    """Entry point. What a user can cause is one line on standard error and exit status 2, not a traceback."""
    arguments = list(sys.argv[1:] if args is None else args)
    first = arguments[0] if arguments else '--help'
    if first in ('-h', '--help'):
        print(usage())
    elif first == '--version':
        from .. import __version__

        print(f'hsiaug {__version__}')
    elif first in COMMANDS:
        from .commands import run

        run(arguments)
    else:
        near = difflib.get_close_matches(first, COMMANDS, 1)
        hint = f'did you mean {near[0]!r}? ' if near else ''
        print(f'hsiaug: unknown command {first!r}; {hint}choose from {", ".join(COMMANDS)}', file=sys.stderr)
        raise SystemExit(2)


def usage() -> str:
    """The help of ``hsiaug`` itself."""
    width = max(map(len, COMMANDS)) + 2
    lines = ['usage: hsiaug [-h] [--version] COMMAND ...', '', DESCRIPTION, '', 'commands:']
    lines += [f'  {name:{width}}{said}' for name, said in COMMANDS.items()]
    lines += ['', "'hsiaug COMMAND --help' explains a command; every command takes --config FILE."]
    return '\n'.join(lines)
