"""``hsiaug completion``."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Literal


def completion(shell: Literal['bash', 'zsh']) -> None:
    """Print a shell script that completes commands, options and their choices.

    Save it as ~/.local/share/bash-completion/completions/hsiaug for bash, or as _hsiaug in a folder on the fpath of
    zsh.

    Args:
        shell: bash or zsh.
    """
    from .commands import FUNCTIONS
    from .parser import make_parser

    if find_spec('shtab') is None:
        raise ValueError("completion needs the package shtab; pip install 'hsiaug[completion]'")
    script = make_parser({f.__name__: f for f in FUNCTIONS}).get_completion_script(f'shtab-{shell}')
    # Most values are paths, which the options take as text: where nothing else is known, bash offers files.
    print(script.replace('complete -o bashdefault -F', 'complete -o bashdefault -o default -F'))
