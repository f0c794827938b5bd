"""The floors of the house: a room imports from lower ones, no file imports in a circle, a system knows no other."""

from __future__ import annotations

import ast
import inspect
import pkgutil
import re
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1] / 'hsiaug'
FLOORS = (
    ('samples', 'seen', 'ratio', 'evidence', 'records', 'json_lines', 'settings', 'streams', 'progress',
     'named_configs', 'workers', '__init__'),
    ('functional',), ('losses',), ('models',), ('scenes',), ('metrics',), ('datasets',),
    ('samplers',), ('transforms',), ('engine',), ('trainers',), ('systems',), ('datamodules',),
    ('tasks',), ('quality',), ('ablation',), ('report',), ('reproduce',), ('cli',), ('__main__',),
)  # fmt: skip
LEGACY = {'generators'}
"""Old names of what has moved, which nothing else imports."""
BUILT_ON = {('change_editing', 'two_stream_diffusion')}
"""Change editing is another use of the two-stream model, which paints its regions."""


def modules() -> dict[str, Path]:
    """Every module of the package and its file."""
    found = {}
    for file in sorted(ROOT.rglob('*.py')):
        parts = ['hsiaug', *file.relative_to(ROOT).with_suffix('').parts]
        found['.'.join(parts[:-1] if parts[-1] == '__init__' else parts)] = file
    return found


MODULES = modules()


@cache
def imports(module: str) -> tuple[str, ...]:
    """The package's modules that a module imports, at once, in a function or for type checkers."""
    return tuple(_imports(module))


def _imports(module: str) -> Iterator[str]:
    file = MODULES[module]
    for node in ast.walk(ast.parse(file.read_text())):
        if not isinstance(node, ast.ImportFrom) or not node.level:
            continue
        parts = module.split('.')
        base = parts if file.name == '__init__.py' else parts[:-1]
        base = base[: len(base) - node.level + 1] + (node.module.split('.') if node.module else [])
        for alias in node.names:
            name = '.'.join([*base, alias.name])
            yield name if name in MODULES else '.'.join(base)


def room(module: str) -> str:
    parts = module.split('.')
    return parts[1] if len(parts) > 1 else '__init__'


def floor(module: str) -> int:
    return next(level for level, rooms in enumerate(FLOORS) if room(module) in rooms)


@pytest.mark.parametrize('module', [m for m in MODULES if room(m) not in LEGACY])
def test_a_room_imports_from_lower_floors_only(module: str) -> None:
    wrong = [
        other for other in imports(module)
        if room(other) != room(module) and (room(other) in LEGACY or floor(other) > floor(module))
    ]  # fmt: skip
    assert not wrong, f'{module} imports upwards: {wrong}'


def test_no_file_imports_in_a_circle() -> None:
    graph = {module: {other for other in imports(module) if other != module} for module in MODULES}
    # A package runs before the modules inside it; what it imports of them is no circle.
    for module in graph:
        graph[module] = {o for o in graph[module] if not module.startswith(f'{o}.') and not o.startswith(f'{module}.')}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f'circular imports: {" -> ".join(error.args[1])}')


def test_no_package_of_datasets_imports_in_a_circle() -> None:
    graph: dict[str, set[str]] = {}
    for module in MODULES:
        if room(module) == 'datasets' and module.count('.') > 2:
            inside = {o.split('.')[2] for o in imports(module) if o.startswith('hsiaug.datasets.')}
            graph.setdefault(module.split('.')[2], set()).update(inside - {module.split('.')[2]})
    assert len(graph) == 7
    TopologicalSorter(graph).prepare()


def test_a_system_imports_no_other_system() -> None:
    systems = {path.name for path in (ROOT / 'systems').iterdir() if (path / '__init__.py').exists()}
    assert len(systems) >= 6
    crossings = {
        (one.split('.')[2], other.split('.')[2])
        for one in MODULES if one.startswith('hsiaug.systems.')
        for other in imports(one) if other.startswith('hsiaug.systems.')
    }  # fmt: skip
    assert {(a, b) for a, b in crossings if a != b and {a, b} <= systems} == BUILT_ON


def test_nothing_else_imports_a_system_by_name() -> None:
    systems = {path.name for path in (ROOT / 'systems').iterdir() if (path / '__init__.py').exists()}
    named = {
        (module, other)
        for module in MODULES if room(module) not in {'systems', *LEGACY}
        for other in imports(module)
        if other.startswith('hsiaug.systems.') and other.split('.')[2] in systems
    }  # fmt: skip
    assert not named


READMES = sorted((ROOT / 'systems').glob('*/README.md'))


@pytest.mark.parametrize('readme', READMES, ids=lambda path: path.parent.name)
def test_a_system_says_where_the_paper_is_and_what_it_names_exists(readme: Path) -> None:
    """Tables name files of the system and what these define; so does the text, and what is public in the package."""
    text, system = readme.read_text(), f'hsiaug.systems.{readme.parent.name}'
    assert len([line for line in text.splitlines() if line.startswith('|')]) >= 7
    defined: dict[str, Any] = {}
    for file in readme.parent.rglob('*.py'):
        defined |= vars(import_module(f'{system}.{file.relative_to(readme.parent).with_suffix("")}'.replace('/', '.')))
    for file, names in re.findall(r'`([\w/]+\.py)`: ((?:`[\w.]+`(?:, )?)+)', text):
        module = import_module(f'{system}.{file.removesuffix(".py").replace("/", ".")}')
        for name in re.findall(r'`([\w.]+)`', names):
            assert has(module, name), f'{file}: {name}'
    for name in re.findall(r'`([A-Z]\w+(?:\.\w+)?)(?:\(\))?`', text):
        assert name.split('.')[0] in defined, name
        assert '.' not in name or has(defined[name.split('.')[0]], name.split('.')[1]), name
    for dotted in re.findall(r'`(hsiaug\.[\w.]+)`', text):
        assert pkgutil.resolve_name(dotted) is not None
    for config in re.findall(r'`configs/(\w+\.yaml)`', text):
        assert (ROOT.parent / 'configs' / config).is_file(), config


def has(holder: Any, dotted: str) -> bool:
    """Whether a module or class has a name: a definition, a field, or what a class is made with."""
    first, _, rest = dotted.partition('.')
    found = getattr(holder, first, None)
    if found is None:
        return first in {*getattr(holder, '__annotations__', ()), *inspect.signature(holder).parameters}
    return not rest or has(found, rest)


def test_every_package_of_a_system_has_a_readme() -> None:
    packages = {path.parent.name for path in (ROOT / 'systems').glob('*/__init__.py')}
    assert {readme.parent.name for readme in READMES} == packages


def test_the_readme_of_the_benchmarks_names_each_script_once() -> None:
    folder = ROOT.parent / 'benchmarks'
    named = re.findall(r'^\| `(\w+\.py)`', (folder / 'README.md').read_text(), re.M)
    commands = {path.name for path in folder.glob('*.py') if "if __name__ == '__main__'" in path.read_text()}
    assert sorted(named) == sorted(commands)
