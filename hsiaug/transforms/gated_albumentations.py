"""Base class of hsiaug's transforms for albumentations, with a probability set by a ratio and its own random stream.

https://albumentations.ai/docs/ (version 2.0.8, the last one under the MIT licence)
"""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable, Set
from typing import Any, ClassVar

import albumentations as A
import numpy as np
import torch
from albumentations.core.type_definitions import Targets
from torch.utils.data import get_worker_info

from ..ratio import Schedule
from ..samples import SampleSpec
from .probability import GatedByRatio

_BITS = 62


class GatedTransform(GatedByRatio, A.DualTransform):  # type: ignore[misc]
    """A transform of image and target whose probability follows a ratio; subclasses define how they change.

    All randomness comes from torch's global generator, which differs in every worker and epoch and follows
    ``torch.manual_seed``. In a pipeline seeded with ``Compose(seed=...)`` or ``set_random_state``, the transform has
    its own stream instead: repeatable in the main process, different in every worker and epoch, and independent of the
    other transforms, which albumentations gives one common stream. With probability 0, nothing is drawn.
    """

    _targets = (Targets.IMAGE, Targets.MASK)
    changes: ClassVar[tuple[str, ...]]
    """Targets that can change."""
    needed: Set[str]
    """Targets of every call."""
    allowed: Set[str]
    """Those that a call may have among all that belong to an image."""

    def __init__(self, ratio: float | Schedule | None = None, p: float | None = None) -> None:
        self._set_probability(ratio, p)
        self._stream: tuple[int, np.random.Generator] | None = None
        super().__init__(p=self.probability.value)

    @property
    def targets(self) -> dict[str, Callable[..., Any]]:
        """What can change, for albumentations, which asks for a function of each; see :meth:`apply_with_params`."""
        apply: Callable[..., Any] = self.apply
        return dict.fromkeys(self.changes, apply)

    def add_targets(self, additional_targets: dict[str, str]) -> None:
        """Know masks, and labels, under other names.

        Raises:
            TypeError: for a second image.
        """
        if images := sorted(name for name, kind in additional_targets.items() if kind == 'image'):
            raise TypeError(
                f'{type(self).__name__}: a sample has one image, found further images {images}; for pairs of dates '
                f'use hsiaug.transforms.{type(self).__name__} on batches, with BitemporalAugmentation for the geometry'
            )
        super().add_targets(additional_targets)

    def _target_of(self, key: str) -> str:
        return self._additional_targets.get(key, key)

    def _require_float32(self, image: np.ndarray, spec: SampleSpec | None, owner: str) -> None:
        if image.dtype != np.float32:
            raise TypeError(
                f'{type(self).__name__}: found an image of dtype {image.dtype}, expected float32 in the unit of the '
                f'{owner} ({(spec and spec.unit) or "unknown"}); convert images before the pipeline'
            )

    def get_params_dependent_on_data(self, params: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
        """Check that the targets of a call change together.

        Raises:
            ValueError: if one that is needed is missing, or another would stay as it was while the image does not.
        """
        found = {self._target_of(key) for key, value in data.items() if value is not None}
        if not self.needed <= found or found & {*super().targets, *self.changes} - self.allowed:
            raise ValueError(
                f'{type(self).__name__}: its samples have {sorted(self.needed)}, found {sorted(data)}; call the '
                'pipeline with these (or name them in additional_targets) and nothing that would stay as it was while '
                'the image changes'
            )
        return {}

    def apply_with_params(self, params: dict[str, Any], *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Change all targets of a call by one draw."""
        for key, value in kwargs.items():
            if self._target_of(key) in ('image', 'mask') and not isinstance(value, np.ndarray | None):
                raise TypeError(
                    f'{type(self).__name__}: a numpy array is expected as {key!r}, found {type(value).__name__}; make '
                    'tensors at the end of the pipeline (ToTensorV2)'
                )
        # Not one by one through albumentations, which gives 0-d arrays a dimension and never returns from text.
        change = self._change(kwargs['image'], params['draw'])
        return {
            key: change[target](value) if value is not None and (target := self._target_of(key)) in change else value
            for key, value in kwargs.items()
        }

    def _change(self, image: np.ndarray, draw: int) -> dict[str, Callable[[Any], Any]]:
        """How each target changes with an image and the seed of a draw."""
        raise NotImplementedError

    def set_random_seed(self, seed: int | None) -> None:
        """Take a stream of our own from a seed, or torch's global generator where it is None."""
        super().set_random_seed(seed)
        self._seeded, self._stream = seed is not None, None

    def set_random_state(self, random_generator: np.random.Generator, py_random: random.Random) -> None:
        """Take a stream of our own from a generator."""
        super().set_random_state(random_generator, py_random)
        self._seeded, self._stream = True, None

    def _random_bits(self) -> int:
        if not self._seeded:
            return int(torch.randint(2**_BITS, (), device='cpu'))
        worker = get_worker_info()
        place = worker.seed if worker else 0  # a worker's seed is new in every epoch, unless the worker lives on
        if self._stream is None or self._stream[0] != place:
            # Siblings have generators in the same state; our own name leads the stream away from theirs.
            entropy = [int(self.random_generator.integers(2**_BITS)), place, zlib.crc32(repr(self).encode())]
            self._stream = place, np.random.default_rng(entropy)
        return int(self._stream[1].integers(2**_BITS))

    def should_apply(self, force_apply: bool = False) -> bool:
        """Whether this sample is gated."""
        if self.p <= 0 or self.p >= 1 or force_apply:
            return self.p > 0
        return self._random_bits() < self.p * 2**_BITS

    def get_params(self) -> dict[str, Any]:
        """``draw``, the seed of one draw for all targets of this call."""
        return {'draw': self._random_bits()}

    @classmethod
    def is_serializable(cls) -> bool:
        """No: what samples come from cannot be written down. ``A.from_dict`` asks for the transform."""
        return False

    def to_dict_private(self) -> dict[str, Any]:
        """Name and description, without what samples come from."""
        name = {'__class_fullname__': self.get_class_fullname(), '__name__': type(self).__name__}
        return {**name, 'p': self.p, 'description': repr(self)}
