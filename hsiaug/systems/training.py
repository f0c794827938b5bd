"""How systems that learn by gradient steps are trained, by the name of their generator."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from torch import Tensor

from ..engine import Run
from ..engine.data import require_finite_samples
from ..samples import Kind
from ..settings import checked_arguments
from .base import Generator, TrainingData, cannot_make, generator_class

LIGHTNINGS = {'bf16-mixed': 'bf16', '32-true': '32', 32: '32'}
"""Precisions as Lightning calls them."""
F = TypeVar('F', bound=Callable[..., Generator])


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
    """Function decorator: the training of the generator that is registered under a name.

    Args:
        name: of the generator.
        config: dataclass of the settings.
        quick: settings of a training of seconds.
        streams: whether it can read samples from a dataset that is too large for memory.
    """

    def decorate(train: F) -> F:
        _TRAINERS[name] = Trainer(config, train, quick or {}, streams)
        return train

    return decorate


def trainer_of(name: str) -> Trainer | None:
    """How a generator is trained; None for one that is fitted in closed form."""
    generator_class(name)
    return _TRAINERS.get(name)


def require_samples(who: str, data: TrainingData, labelled: bool = True) -> None:
    """Refuse what is no tensor, shapes that are not those of the spec, labels that are no class, and NaN.

    Args:
        who: learns from them.
        data: training data.
        labelled: whether every sample must have a label; otherwise ``y`` may be empty.
    """
    spec, what = data.spec, 'spectra' if data.spec.size is None else 'images'
    for side in (data.x, data.y):
        if not isinstance(side, Tensor):
            raise TypeError(f'{who}: {what} and {spec.target_key}s must be tensors, found {type(side).__name__}')
    x, y = (len(data.x), *spec.image_shape), (len(data.x), *spec.target_shape)
    unfit = data.x.shape != x or (data.y.shape != y and (labelled or len(data.y) > 0))
    if unfit and (len(data.x) or data.source is None):
        image, target = (', '.join(map(str, ('N', *shape[1:]))) for shape in (x, y))
        raise ValueError(
            f'{who}: {what} must be ({image}) with {spec.target_key}s ({target}), found {tuple(data.x.shape)} and '
            f'{tuple(data.y.shape)} of kind {spec.kind!r}'
        )
    if len(data.y) and data.y.is_floating_point():
        raise TypeError(f'{who}: {spec.target_key}s must be whole numbers, found {data.y.dtype}')
    if foreign := data.y[spec.foreign(data.y)].unique().tolist():
        raise ValueError(
            f'{who}: {spec.target_key}s hold the values {foreign[:8]}, but the {spec.num_classes} classes are 0 to '
            f'{spec.num_classes - 1} and the ignore index is {spec.ignore_index}; map them to classes or to the ignore '
            'index'
        )
    parts = 'pixels or bands' if spec.size is None else 'patches or bands'
    require_finite_samples(data.unlabelled, f'unlabelled {what}', parts)
    require_finite_samples(data.x, what, parts)


def require_images(who: str, data: TrainingData, *kinds: Kind) -> None:
    """Refuse data of other kinds, or none at all, and what :func:`require_samples` refuses."""
    spec = data.spec
    if spec.kind not in kinds:
        raise ValueError(f'{who} learns data of kind {" or ".join(map(repr, kinds))}, found {spec.kind!r}')
    require_samples(who, data)
    if len(data.x) == 0 and data.source is None:
        raise ValueError(f'{who} needs training images, found none')
    if len(data.unlabelled) and data.unlabelled.shape[1:] != spec.image_shape:
        raise ValueError(f'{who}: unlabelled images must be (M, {spec.image_shape}), found {data.unlabelled.shape}')
