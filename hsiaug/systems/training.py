"""Registry of the training functions of generators that learn by gradient descent."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from ..engine import Run
from ..settings import checked_arguments
from .base import Generator, TrainingData, cannot_make, generator_class

LIGHTNINGS = {'bf16-mixed': 'bf16', '32-true': '32', 32: '32'}
"""Precisions as Lightning calls them."""
F = TypeVar('F', bound='Callable[..., Generator]')


@dataclass(frozen=True)
class Trainer:
    """How a generator is trained."""

    config: type[Any]  # dataclass of the settings
    train: Callable[[TrainingData, Any, Run], Generator]  # a function of training data, such settings and a Run
    # settings of a training of seconds, for a first look at a study
    quick: Mapping[str, Any] = field(default_factory=dict)
    streams: bool = False  # whether it can read samples from a dataset that is too large for memory

    def settings(self, name: str, given: Mapping[str, Any]) -> Any:
        """The settings as the training's configuration."""
        where = cannot_make(name, given)
        checked = checked_arguments(self.config, self._with_precision(given), where)
        try:
            return self.config(**checked)
        except TypeError as error:  # of what is within settings
            raise ValueError(f'{where}: {error}') from error

    def _with_precision(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Settings with the precision where the training has it, which may be in one of its parts, and in our words."""
        settings = dict(given)
        if 'precision' not in settings or 'precision' in self.config.__dataclass_fields__:
            owner = settings
        else:
            parts = [name for name, part in vars(self.config()).items() if hasattr(part, 'precision')]
            if len(parts) != 1 or not isinstance(settings.get(parts[0], {}), Mapping):
                return settings
            owner = settings[parts[0]] = {'precision': settings.pop('precision'), **settings.get(parts[0], {})}
        if owner.get('precision') in LIGHTNINGS:
            owner['precision'] = LIGHTNINGS[owner['precision']]
        return settings


_TRAINERS: dict[str, Trainer] = {}


def trains(
    name: str, config: type[Any], quick: Mapping[str, Any] | None = None, streams: bool = False
) -> Callable[[F], F]:
    """Function decorator that registers the training function of a generator.

    Args:
        name: registered name of the generator.
        config: dataclass of the settings.
        quick: settings for a training that takes seconds.
        streams: whether the training can read samples of a dataset that does not fit in memory.
    """

    def decorate(train: F) -> F:
        _TRAINERS[name] = Trainer(config, train, quick or {}, streams)
        return train

    return decorate


def trainer_of(name: str) -> Trainer | None:
    """How a generator is trained; None for one that is fitted in closed form."""
    generator_class(name)
    return _TRAINERS.get(name)
