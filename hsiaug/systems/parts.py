"""Generators within another, as its settings name them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from ..records import as_record
from ..samples import SampleSpec
from .base import Generator, make_generator


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
