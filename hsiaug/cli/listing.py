"""``hsiaug list``."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator
from typing import Any, Literal

from docstring_parser import parse as parse_docstring  # which jsonargparse reads help texts with

from ..named_configs import FOLDER, config_names, near

What = Literal['generators', 'tasks', 'benchmarks', 'configs']


def list(what: What, name: str | None = None) -> None:  # as it is typed
    """List generators, tasks, benchmarks or configs; show the settings of a generator or the text of a config.

    Args:
        what: generators, tasks, benchmarks (public scenes known by name) or configs.
        name: name of one of them, to see more about it; --name may be left out.
    """
    found = dict(_LISTS[what]())
    if name is None:
        width = max(map(len, found))
        print('\n'.join(f'{one:{width}}  {about}' for one, about in found.items()))
        return
    if name not in found:
        raise ValueError(f'{name!r} is not one of the {what}; {near(name, found)}choose from {", ".join(found)}')
    if what == 'configs':  # as it is, for a file of one's own
        print((FOLDER / f'{name}.yaml').read_text(encoding='utf-8'), end='')
        return
    print(f'{name}: {found[name]}')
    if what == 'generators':
        print('\n'.join(_settings(name)))


def _generators() -> Iterator[tuple[str, str]]:
    from ..systems import REGISTRY, load

    load()
    yield from ((name, _first(REGISTRY[name])) for name in sorted(REGISTRY))


def _tasks() -> Iterator[tuple[str, str]]:
    from ..tasks import TASKS

    for kind, task in TASKS.items():
        yield kind, f'{_first(type(task))} Models: {", ".join(task.models)}. Measured: {", ".join(task.metrics)}.'


def _benchmarks() -> Iterator[tuple[str, str]]:
    from ..scenes.registry import BENCHMARK_SCENES

    for name, scene in BENCHMARK_SCENES.items():
        yield name, f'{scene.title}: {scene.sensor}, {scene.bands} bands, {len(scene.classes)} classes; {scene.url}'


def _configs() -> Iterator[tuple[str, str]]:
    for name in config_names():
        with (FOLDER / f'{name}.yaml').open(encoding='utf-8') as file:
            yield name, file.readline().lstrip('# ').strip()


_LISTS: dict[str, Callable[[], Iterator[tuple[str, str]]]] = {
    'generators': _generators, 'tasks': _tasks, 'benchmarks': _benchmarks, 'configs': _configs,
}  # fmt: skip


def _settings(name: str) -> Iterator[str]:
    """Settings of a generator, each with its type, its default and what it is."""
    from ..systems import generator_class
    from ..systems.training import trainer_of

    trainer = trainer_of(name)
    cls: Any = generator_class(name)
    maker = cls if trainer is None else trainer.config
    found = [p for one in (cls, maker) for p in parse_docstring(inspect.getdoc(one) or '').params]
    about = {p.arg_name: plain(p.description or '') for p in found}
    parameters = [p for p in inspect.signature(maker).parameters.values() if p.name != 'spec']
    yield '\nsettings:' if parameters else '\nno settings'
    for parameter in parameters:
        default = '' if parameter.default is parameter.empty else f' = {parameter.default!r}'
        annotation = parameter.annotation
        kind = annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)
        yield f'  {parameter.name}: {plain(kind)}{default}'
        if said := about.get(parameter.name):
            yield f'      {said}'
    yield f"\nexample: hsiaug train --generator {name} --settings '{{...}}' --out runs/{name}"


def _first(documented: object) -> str:
    return plain((inspect.getdoc(documented) or '').split('\n\n')[0])


def plain(text: str) -> str:
    """Text of a docstring without its markup, in one line."""
    return ' '.join(without_markup(text).split())


def without_markup(text: str) -> str:
    """Text without roles of cross-references, marks of code, and names of Python's classes."""
    text = re.sub(r':\w+:`~?(?:[\w.]+\.)?([\w]+)`', r'\1', text)
    return re.sub(r"<class\s+'(?:[\w.]+\.)?(\w+)'>", lambda m: m[1].lower(), text).replace('``', '')
