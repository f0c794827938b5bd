"""Configurations by name: ``configs/`` of a checkout, which an installed package holds as ``hsiaug/configs``.

And YAML as all of the package reads it: no key stands twice, 1e-4 is a number, and ``!config specdm.settings`` is what
the configuration of that name says under that key.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Sequence
from functools import cache
from pathlib import Path
from typing import Any

_TAG = '!config'

_PACKAGE = Path(__file__).parent
# An installed package has its own; next to it may lie a folder of that name that is somebody else's.
FOLDER = _PACKAGE / 'configs' if (_PACKAGE / 'configs').is_dir() else _PACKAGE.parent / 'configs'


def config_names() -> list[str]:
    """Names of the configurations that come with the package."""
    return sorted(path.stem for path in FOLDER.glob('*.yaml'))


def near(name: str, known: Collection[str]) -> str:
    """The question whether a known name was meant, or nothing."""
    found = difflib.get_close_matches(name, known, 1)
    return f'did you mean {found[0]!r}? ' if found else ''


def unknown(what: str, name: str, known: Collection[str]) -> str:
    """What to say of a name that is none of the known ones."""
    return f'unknown {what} {name!r}; {near(name, known)}choose from {sorted(known)}'


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
    found: dict[str, Any] = read_yaml(find_config(name).read_text(encoding='utf-8'))
    return found


def published_settings(name: str) -> dict[str, Any]:
    """Settings of a generator in such a configuration."""
    found: dict[str, Any] = published_config(name)['settings']
    return found


def read_yaml(text: str) -> Any:
    """What a text in YAML says.

    Raises:
        ValueError: for a key that stands twice, naming it and its lines, or an unknown name after ``!config``.
        yaml.YAMLError: for text that is not YAML.
    """
    import yaml  # type: ignore[import-untyped]  # the command line starts without it

    return yaml.load(text, _loader())


@cache
def _loader() -> Any:
    import yaml
    from jsonargparse._loaders_dumpers import get_yaml_default_loader  # which knows more numbers than YAML 1.1

    class Loader(get_yaml_default_loader()):  # type: ignore[misc]
        """Checks and completes what is read before anything is made of it."""

        def get_single_node(self) -> Any:
            node = super().get_single_node()
            return node if node is None else complete(node, set())

    def complete(node: Any, seen: set[int]) -> Any:
        """A node with those that it names in their places."""
        if node.tag == _TAG:
            return named(str(node.value))
        if id(node) in seen or isinstance(node, yaml.ScalarNode):
            return node
        seen.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            node.value = [complete(value, seen) for value in node.value]
            return node
        lines: dict[tuple[str, str], int] = {}
        for key, _ in node.value:
            line, known = key.start_mark.line + 1, (key.tag, str(key.value))
            if known in lines:
                raise ValueError(f'key {key.value!r} occurs twice, in lines {lines[known]} and {line}; leave one out')
            lines[known] = line
        node.value = [(key, complete(value, seen)) for key, value in node.value]
        return node

    def named(path: str) -> Any:
        """The node of a key in a configuration that comes with the package; of all of it without one."""
        name, *keys = path.split('.')
        if name not in config_names():
            raise ValueError(f'{_TAG} {path}: no configuration {name!r}; choose from {", ".join(config_names())}')
        loader = Loader((FOLDER / f'{name}.yaml').read_text(encoding='utf-8'))
        node = loader.get_single_node()
        for key in keys:
            node = next((value for known, value in getattr(node, 'value', ()) if known.value == key), None)
            if node is None:
                raise ValueError(f'{_TAG} {path}: the configuration {name!r} has no such key')
        return node

    return Loader


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
