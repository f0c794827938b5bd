"""The floors of the house: a room imports from lower ones, no file imports in a circle, a system knows no other."""

from __future__ import annotations

import ast
import pkgutil
import re
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

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


def imports(module: str, lazy: bool = True) -> Iterator[str]:
    """The package's modules that a module imports; without ``lazy`` at import time only."""
    file = MODULES[module]
    tree = ast.parse(file.read_text())
    nodes = list(ast.walk(tree)) if lazy else [n for top in tree.body for n in at_import(top)]
    for node in nodes:
        if not isinstance(node, ast.ImportFrom) or not node.level:
            continue
        parts = module.split('.')
        base = parts if file.name == '__init__.py' else parts[:-1]
        base = base[: len(base) - node.level + 1] + (node.module.split('.') if node.module else [])
        for alias in node.names:
            name = '.'.join([*base, alias.name])
            yield name if name in MODULES else '.'.join(base)


def at_import(node: ast.stmt) -> Iterator[ast.AST]:
    """Statements that run when a module is imported, type checking and functions aside."""
    if isinstance(node, ast.If) and 'TYPE_CHECKING' in ast.dump(node.test):
        return
    if not isinstance(node, ast.FunctionDef | ast.ClassDef):
        yield from ast.walk(node)


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
    graph = {module: {other for other in imports(module, lazy=False) if other != module} for module in MODULES}
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
    """Each row of the table names files of the system and what they define, or public names of the package."""
    rows = [line for line in readme.read_text().splitlines() if line.startswith('|')][2:]
    assert len(rows) >= 5
    for row in rows:
        place = row.split('|')[2]
        for file, names in re.findall(r'`([\w/]+\.py)`: ((?:`[\w.]+`(?:, )?)+)', place):
            source = (readme.parent / file).read_text()
            for name in re.findall(r'`([\w.]+)`', names):
                for part in name.split('.'):
                    assert re.search(rf'^\s*(class|def) {part}\b|^\s*{part}\b.*[:=]', source, re.M), f'{file}: {name}'
        for dotted in re.findall(r'`(hsiaug\.[\w.]+)`', place):
            assert pkgutil.resolve_name(dotted) is not None


def test_every_package_of_a_system_has_a_readme() -> None:
    packages = {path.parent.name for path in (ROOT / 'systems').glob('*/__init__.py')}
    assert {readme.parent.name for readme in READMES} == packages


def test_the_readme_of_the_benchmarks_names_each_script_once() -> None:
    folder = ROOT.parent / 'benchmarks'
    named = re.findall(r'^\| `(\w+\.py)`', (folder / 'README.md').read_text(), re.M)
    commands = {path.name for path in folder.glob('*.py') if "if __name__ == '__main__'" in path.read_text()}
    assert sorted(named) == sorted(commands)
