"""Registry of generators: register one under a name, look it up, and make it, alone or as a part of another."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from ..records import as_record
from ..samples import SampleSpec
from ..settings import checked_arguments

if TYPE_CHECKING:
    from .base import Generator

G = TypeVar('G', bound='type[Generator]')
REGISTRY: dict[str, type[Generator]] = {}


def register(name: str) -> Callable[[G], G]:
    """Class decorator that registers a generator under the name used in config files and saved folders."""

    def decorate(cls: G) -> G:
        if name in REGISTRY:
            raise ValueError(f'a generator named {name!r} is registered already: {REGISTRY[name].__name__}')
        REGISTRY[name] = cls
        cls.type_name = name
        return cls

    return decorate


def generator_class(name: str) -> type[Generator]:
    """Look a generator class up by its registered name.

    Raises:
        ValueError: for an unknown name, with the choices.
    """
    from . import load  # the registry fills as modules are imported, heavy ones last

    if not isinstance(name, str):
        raise ValueError(f'the name of a generator was expected, found {name!r}')
    load(until=name)
    if name not in REGISTRY:
        raise ValueError(f'unknown generator {name!r}; choose from {sorted(REGISTRY)}')
    return REGISTRY[name]


def make_generator(
    name: str, spec: SampleSpec, settings: Mapping[str, Any], error: type[Exception] = ValueError
) -> Generator:
    """A generator by its registered name, unfitted.

    Raises:
        ValueError: or ``error``, for an unknown name or setting, or one that does not fit.
    """
    where = cannot_make(name, settings)
    try:
        cls = generator_class(name)
        return cls(spec, **checked_arguments(cls, settings, where, given=('spec',)))
    except Exception as reason:  # whatever networks say about numbers that they cannot be made with
        if type(reason) is error or (error is ValueError and isinstance(reason, error)):
            raise
        raise error(f'{where}: {reason}') from reason


def cannot_make(name: str, settings: Any) -> str:
    """The beginning of messages about a generator that cannot be made."""
    names = [str(key)[:40] for key in settings][:12] if isinstance(settings, Mapping) else type(settings).__name__
    return f'generator {name!r} cannot be made with settings {names}'


@dataclass(frozen=True)
class Part:
    """A generator within another, as its settings name it."""

    type: str
    settings: dict[str, Any]


def make_part(spec: SampleSpec, part: Mapping[str, Any]) -> Generator:
    """A generator within another, unfitted."""
    named = as_record(Part, part, 'a part of a generator')
    return make_generator(named.type, spec, named.settings)


def part_of(generator: Generator) -> dict[str, Any]:
    """How the settings of another generator name this one."""
    return asdict(Part(generator.type_name, generator.settings))
