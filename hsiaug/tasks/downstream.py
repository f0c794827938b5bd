"""Downstream models, and the settings among which real data choose."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import Any, ClassVar, TypeVar

from ..samples import Kind
from ..settings import POSITIVE, check_value

D = TypeVar('D', bound='Downstream')
Record = dict[str, Any]
"""JSON-ready."""


@dataclass(frozen=True)
class Downstream(ABC):
    """A downstream model, and candidates for its setting, among which real data alone decide.

    Args:
        name: name shown in tables.

    Attributes:
        kind: kind of samples that it works on.
    """

    kind: ClassVar[Kind]

    name: str

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name.strip():
            raise ValueError(f'downstream model: a name expected, found {self.name!r}')
        for steps in getattr(self, 'steps', ()):
            check_value(repr(self.name), 'steps', steps, int)

    @abstractmethod
    def candidates(self: D) -> list[D]:
        """Settings among which real data alone choose, each a model of one."""

    @abstractmethod
    def chosen(self) -> Record:
        """The chosen setting, of one of :meth:`candidates`."""

    @property
    def length(self) -> tuple[Downstream, int]:
        """The model without its number of optimiser steps, and that number; 0 where it has none."""
        config: Any = getattr(self, 'config', None)
        if not hasattr(config, 'steps'):
            return self, 0
        return replace(self, config=replace(config, steps=1)), config.steps  # type: ignore[call-arg]


@dataclass(frozen=True)
class Network(Downstream):
    """A downstream network of images.

    Args:
        name: name shown in tables.
        config: network and training.
        steps: numbers of optimiser steps to choose from; if empty, the config's own.
        learning_rates: learning rates to choose from; if empty, the config's own.
    """

    config: Any = None
    steps: tuple[int, ...] = ()
    learning_rates: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        for rate in self.learning_rates:
            check_value(f'network {self.name!r}', 'learning rate', rate, float, POSITIVE)

    def candidates(self: Any) -> list[Any]:
        """Every number of steps with every learning rate."""
        return [
            replace(self, config=replace(self.config, steps=steps, learning_rate=rate))
            for steps in self.steps or (self.config.steps,)
            for rate in self.learning_rates or (self.config.learning_rate,)
        ]

    def chosen(self) -> Record:
        """Steps and learning rate."""
        return {'steps': self.config.steps, 'learning_rate': self.config.learning_rate}
