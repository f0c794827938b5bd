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
    """The file that is meant.

    Args:
        name: a file; or the name of a configuration that comes with the package, with or without folder and ending,
            such as ``audebert2018`` or ``configs/audebert2018.yaml``.

    Raises:
        FileNotFoundError: if it is neither, with the names.
    """
    path = Path(name)
    if path.is_file():
        return path
    ours = path.suffix in ('', '.yaml') and path.parent in (Path(), Path('configs')) and path.stem in config_names()
    if not ours:
        raise FileNotFoundError(f'no config file {name}; give a file, or one of {", ".join(config_names())}')
    return FOLDER / f'{path.stem}.yaml'


def published_settings(name: str) -> dict[str, Any]:
    """Settings of a generator in a configuration that comes with the package."""
    import yaml  # type: ignore[import-untyped]  # the command line starts without it

    found: dict[str, Any] = yaml.safe_load(find_config(name).read_text(encoding='utf-8'))['settings']
    return found


def with_config_files(arguments: Sequence[str]) -> list[str]:
    """Arguments of a command with the file for each name that ``--config`` gives.

    Raises:
        FileNotFoundError: for what is neither a file nor a name.
    """
    found, option = [], '--config'
    for before, argument in zip(['', *arguments[:-1]], arguments, strict=True):
        if argument.startswith(f'{option}='):
            argument = f'{option}={find_config(argument.removeprefix(f"{option}="))}'
        elif before == option:
            argument = str(find_config(argument))
        found.append(argument)
    return found


__all__ = ['FOLDER', 'config_names', 'find_config', 'published_settings', 'with_config_files']
