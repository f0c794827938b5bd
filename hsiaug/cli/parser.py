"""The command line's parser: settings, config files and messages; it imports nothing that a config names."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import is_dataclass
from itertools import pairwise
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

import yaml  # type: ignore[import-untyped]
from jsonargparse import (
    ArgumentError,
    ArgumentParser,
    DefaultHelpFormatter,
    Namespace,
    auto_parser,
    get_loader,
    set_loader,
    set_parsing_settings,
)
from jsonargparse._common import parsing_settings  # what set_parsing_settings sets, to set it back

from ..named_configs import near, read_yaml
from ..settings import not_finite
from . import DESCRIPTION, EXAMPLES
from .config import read_config
from .data import CLASSES
from .listing import without_markup


class Formatter(DefaultHelpFormatter):
    """A help whose usage is one line, without Python's names of types."""

    def add_usage(self, usage: str | None, actions: Iterable[Any], *args: Any, **settings: Any) -> None:
        """The command and what it needs; all options are explained below."""
        self._prog = self._prog.replace(' [options]', '') + ' [options]'
        super().add_usage(usage, [action for action in actions if not action.option_strings], *args, **settings)

    def _expand_help(self, action: Any) -> str:
        text = without_markup(super()._expand_help(action))
        for pattern, words in TYPED:
            text = re.sub(pattern, words, text)
        return text


class Parser(ArgumentParser):
    """A parser whose errors are raised, for one line that says them."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **{'exit_on_error': False, 'formatter_class': Formatter, **settings})
        self.nested: list[tuple[str, list[str], Any]] = []
        """Option, keys and value of arguments of two keys or more within a mapping, see :func:`apart_nested`."""

    def completed(self, given: Namespace) -> Namespace:
        """What was given, with nested values in their mappings; all else stays."""
        found = given.clone()
        for option, keys, value in self.nested:
            found[option] = with_nested(found[option], keys, value, f'--{option}')
        return found

    def dump(self, cfg: Namespace, *args: Any, **settings: Any) -> str:
        """What ``--print_config`` prints."""
        return str(super().dump(self.completed(cfg), *args, **settings))

    def format_help(self, *args: Any, **settings: Any) -> str:
        """The help, with an example."""
        text = without_markup(super().format_help(*args, **settings))
        example = EXAMPLES.get((self.prog or '').split()[-1])
        return text + (f'\nexample:\n  {example}\n' if example else '')


TYPED = (
    (r'^Path to a configuration file\.', 'a YAML file, or one of hsiaug list configs.'),
    (r'default: \(([^()]*?),?\)\)$', r'default: [\1])'),
    (r'Literal\[([^\]]*)\]', r'\1'),
    (r'(?:dict|Mapping)\[str,\s+\w+\]', 'mapping'),
    (r'tuple\[([^\[\]]+),\s+\.\.\.\]', r'list of \1'),
    (r'tuple\[(\w+),\s+\1\]', r'two of \1'),
    (r'Optional\[([^\[\]]*)\]', r'\1 or null'),
    (r'Union\[([^\[\]]*)\]', r'\1'),
    (r'(?:,|\s+\|)\s+null\b', ' or null'),
    (r'\bPath\b', 'path'),
    (r'\bNone\b', 'null'),
)
"""What Python's annotations are called on a command line."""


INSTEAD = {
    '--scene': 'give the cube as --scene.path, labels as --scene.labels',
    '--split': 'give a strategy as --split.strategy',
}
"""What may be meant by a text that is given where a config file of many fields is expected."""
CONFIGS = ('.yaml', '.yml', '.json')


def make_parser(commands: Mapping[str, Callable[..., None]]) -> ArgumentParser:
    """The parser of some commands."""
    return auto_parser(dict(commands), prog='hsiaug', description=DESCRIPTION, parser_class=Parser)


def parse(
    commands: Mapping[str, Callable[..., None]], arguments: Sequence[str]
) -> tuple[Callable[..., None], dict[str, Any]]:
    """The command that is meant, and what it is called with.

    No value names a class that is imported: a config file is data, whoever wrote it.

    Raises:
        ArgumentError: for arguments that do not fit.
        ValueError: for nothing (null) where a value is needed, or a number that is NaN or infinite, but for the stored
            value that means "no measurement".
    """
    with _imports_nothing():
        parser = make_parser(commands)
        for value in (argument.partition('=')[2] or argument for argument in arguments):
            if value.endswith(('.yaml', '.yml')) and Path(value).is_file():
                # before jsonargparse, which spells out what aliases repeat
                what = f'{value} is not a config file of hsiaug {arguments[0]}'
                if not isinstance(found := read_config(Path(value), what), dict):
                    raise ValueError(f'{what}: options by name were expected, found {found!r:.80}')
        for option, value in pairwise('='.join(arguments).split('=')):
            if option in INSTEAD and not value.startswith(('-', '{')) and Path(value).suffix not in CONFIGS:
                raise ValueError(f'{option} {value}: a YAML file of its fields was expected; {INSTEAD[option]}')
        command = subparser(parser, arguments[0])
        arguments = apart_nested(command, with_flags(command, arguments))
        try:
            given = parser.parse_args(arguments)
        except ArgumentError as error:
            if (named := re.search(r"Importing '([^']+)' is not allowed", str(error))) is None:
                raise ArgumentError(None, plainly(str(error), command)) from None
            raise ValueError(
                f'{named[1]!r} is not imported: options and config files of hsiaug are data and cannot name classes; '
                'give the fields themselves, as --print_config shows them'
            ) from None
        name = given.subcommand
        given[name] = expand_home(command.completed(given[name]))
        if empty := list(nulls(given[name], commands[name])):
            raise ValueError(f'{", ".join(empty)} must have a value, found null; leave it out for its default')
        if wrong := [path for path in not_finite(given[name].as_dict(), '') if not path.endswith('.nodata')]:
            raise ValueError(f'{", ".join(path.lstrip(".") for path in wrong)} must be finite, found NaN or infinity')
        made: Namespace = parser.instantiate(given)[name]
    made.pop('config', None)
    return commands[name], dict(made.items())


def plainly(said: str, command: Parser) -> str:
    """What jsonargparse says of an argument: the option, what was expected in the words of the help, what was found."""
    said = re.sub(r"Problem with given class_path '[^']*': ", '', ' '.join(said.split()))
    name = (command.prog or '').split()[-1]
    if unknown := re.search(r"does not accept option '([^']+)'|unrecognized arguments: ([^\s=]+)", said):
        known = [option.lstrip('-') for action in command._actions for option in action.option_strings]
        meant = near((unknown[1] or unknown[2]).lstrip('-').replace('-', '_'), known).replace("'", "'--", 1)
        if unknown[1]:
            meant = meant or 'is the config file for another command? '
            return f'hsiaug {name} has no option {unknown[1]!r}; {meant}See hsiaug {name} --help'
        if any(unknown[2] == f'--{action.dest}' for action in command._actions if not action.option_strings):
            meant = f'leave out {unknown[2]}, and give only its value; '
        return f'{said}; {meant}see hsiaug {name} --help'
    if needed := re.search(r'arguments are required: (.+)', said):
        return f'{needed[1].replace(f"{name}.", "")} must be given, such as: {EXAMPLES.get(name, name)}'

    def of_several(found: re.Match[str]) -> str:
        key, types, reasons, value = found.groups()
        inner = [one for one in re.split(r'(?:^| )- ', reasons) if one and not one.startswith('Expected a ')]
        return f'--{key}: {inner[0].removeprefix("--")}' if inner else expected(key, types, value)

    said = re.sub(_OF_ONE, lambda found: expected(*found.groups()), said)
    before = ''
    while before != said:  # those within others first
        before, said = said, re.sub(_OF_SEVERAL, of_several, said)
    own = {option for action in command._actions for option in action.option_strings}
    return re.sub(r'^--[\w.]+(?=: )', lambda found: found[0] if found[0] in own else found[0][2:], said)


_PLAIN = '((?:(?!Does not validate).)*?)'
_OF_SEVERAL = (
    rf'Parser key "([\w.]+)": Does not validate against any of the Union subtypes Subtypes: \[{_PLAIN}\] '
    rf"Errors: {_PLAIN} Given value type: <class '\w+'> Given value: {_PLAIN}(?= - Expected a|$)"
)
_OF_ONE = r'Parser key "([\w.]+)": Expected a (.+?)\. Got value: (.*?)(?= - Expected a|$)'


def expected(key: str, types: str, value: str) -> str:
    """What a value of an option should be."""
    said = typed(types)
    choices = re.findall(r"'(\w+)'", said)
    more = near(value, choices)
    if said.startswith('mapping'):
        more = f'give single values as --{key}.NAME'
    if key in CLASSES:
        more = f'name its class as --{key}.class_path, its arguments as --{key}.init_args.NAME'
    return f'--{key}: {"one of " * bool(choices)}{said} expected, found {value}' + (more and f'; {more.rstrip()}')


def typed(said: str) -> str:
    """A type as Python writes it, as it is called on a command line."""
    for pattern, words in (
        (r"<class '([^']+)'>", r'\1'), (r'\b(?:[a-z]\w*\.)+', ''), (r'\bNoneType\b', 'null'), *TYPED,
        (r'^tuple$', 'list'), (r'^(list\b(?: of [\w |]+?)?)(?= or null|$)', r'\1 in brackets'),
        (r'^(dict|mapping)\b', r'mapping in braces'),
    ):  # fmt: skip
        said = re.sub(pattern, words, said)
    return said


def subparser(parser: ArgumentParser, command: str) -> Parser:
    """That of a command."""
    choices: Any = next(action.choices for action in parser._actions if action.dest == 'subcommand')
    found: Parser = choices[command]
    return found


def with_flags(command: Parser, arguments: Sequence[str]) -> list[str]:
    """Arguments with the value that jsonargparse wants for a bare flag such as ``--quick``."""
    flags = {
        one for action in command._actions if getattr(action, '_typehint', 0) is bool for one in action.option_strings
    }
    return [
        f'{one}=true' if one in flags and following not in ('true', 'false') else one
        for one, following in pairwise([*arguments, ''])
    ]


def apart_nested(command: Parser, arguments: Sequence[str]) -> list[str]:
    """Arguments without those of two keys or more within a mapping, which the command's parser takes as ``nested``.

    Of ``--settings.unmixing.endmembers=7`` jsonargparse would keep the one value, and of ``unmixing`` drop all others.
    """
    known = {option for action in command._actions for option in action.option_strings}
    left, values = list[str](), iter(arguments)
    for argument in values:
        option, equals, value = argument.partition('=')
        keys = option.split('.')
        of = next((at for at in range(len(keys) - 1, 0, -1) if '.'.join(keys[:at]) in known), 0)
        within = option not in known and of > 0 and len(keys) - of > 1
        said = value if equals else next(values, None) if within else None
        if not within or said is None:
            left.append(argument)
            continue
        with suppress(yaml.YAMLError):  # a text then, as it is everywhere
            said = read_yaml(said)
        command.nested.append(('.'.join(keys[:of]).removeprefix('--'), keys[of:], said))
    return left


def with_nested(found: Any, path: Sequence[str], value: Any, where: str) -> Any:
    """A mapping, or None, with a value within it; all else stays.

    Raises:
        ValueError: if there is something else on the way.
    """
    if not path:
        return value
    if not isinstance(found, Mapping | None):
        raise ValueError(f'{where} is {found!r}, which has no {path[0]!r}; give a mapping in its place')
    found, (key, *rest) = dict(found or {}), path
    return {**found, key: with_nested(found.get(key), rest, value, f'{where}.{key}')}


def expand_home(value: Any) -> Any:
    """A value, at any depth of which paths that begin with ``~/`` are expanded, wherever they were given."""
    if isinstance(value, Namespace):
        made: Any = Namespace
        return made({key: expand_home(one) for key, one in vars(value).items()})
    if isinstance(value, dict):
        return {key: expand_home(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(map(expand_home, value))
    if isinstance(value, str | Path) and str(value).startswith('~/'):
        return type(value)(Path(value).expanduser())
    return value


def nulls(given: Namespace, maker: Any) -> Iterator[str]:
    """Options that have no value, null in a config file, where what takes them wants one."""
    hints = get_type_hints(maker)
    for name, value in vars(given).items():
        hint = hints.get(name, Any)
        choices = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
        if value is None and Any not in choices and type(None) not in choices:
            yield name
        for inner in filter(is_dataclass, choices) if isinstance(value, Namespace) else ():
            yield from (f'{name}.{one}' for one in nulls(value, inner))


@contextmanager
def _imports_nothing() -> Iterator[None]:
    """Meanwhile jsonargparse imports nothing that a value names, but for the package's own dataclasses.

    It reads YAML as all of the package does.
    """
    before, plain = dict(parsing_settings), get_loader('yaml')

    def load(text: str) -> Any:
        found = read_yaml(text)
        names = isinstance(found, dict) and all(value is None for value in found.values())  # {a, b}: a text, perhaps
        return plain(text) if names else found

    set_parsing_settings(
        import_path_denylist=['*'], import_path_allowlist=['hsiaug'], instantiate_subclass_spec_in_any=False
    )
    set_loader('yaml', load, (yaml.YAMLError,))
    try:
        yield
    finally:
        set_loader('yaml', plain, (yaml.YAMLError,))
        parsing_settings.clear()
        parsing_settings.update(before)
