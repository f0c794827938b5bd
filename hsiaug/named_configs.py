"""Configurations by name: ``configs/`` of a checkout, which an installed package holds as ``hsiaug/configs``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

_PACKAGE = Path(__file__).parent
# An installed package has its own; next to it may lie a folder of that name that is somebody else's.
FOLDER = _PACKAGE / 'configs' if (_PACKAGE / 'configs').is_dir() else _PACKAGE.parent / 'configs'


def config_names() -> list[str]:
    """Names of the configurations that come with the package."""
    return sorted(path.stem for path in FOLDER.glob('*.yaml'))


def find_config(name: str) -> Path:
    """The file that is meant: a file, or a configuration that comes with the package.

    The latter by its name, with or without folder and ending, such as ``audebert2018`` or
    ``configs/audebert2018.yaml``.
    """
    path = Path(name).expanduser()
    if path.is_file():
        return path
    ours = path.suffix in ('', '.yaml') and path.parent in (Path(), Path('configs')) and path.stem in config_names()
    if not ours:
        raise FileNotFoundError(f'no config file {name}; give a file, or one of {", ".join(config_names())}')
    return FOLDER / f'{path.stem}.yaml'


def published_config(name: str) -> dict[str, Any]:
    """A configuration that comes with the package, as data."""
    import yaml  # type: ignore[import-untyped]  # the command line starts without it

    found: dict[str, Any] = yaml.safe_load(find_config(name).read_text(encoding='utf-8'))
    return found


def published_settings(name: str) -> dict[str, Any]:
    """Settings of a generator in such a configuration."""
    found: dict[str, Any] = published_config(name)['settings']
    return found


def with_config_files(arguments: Sequence[str]) -> list[str]:
    """Arguments of a command with the file for each name that ``--config`` gives."""
    found, option = [], '--config'
    for before, argument in zip(['', *arguments[:-1]], arguments, strict=True):
        if argument.startswith(f'{option}='):
            argument = f'{option}={find_config(argument.removeprefix(f"{option}="))}'
        elif before == option:
            argument = str(find_config(argument))
        found.append(argument)
    return found
