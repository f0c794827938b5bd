"""Images and masks altered by a generator, in an albumentations pipeline.

https://albumentations.ai/docs/ (version 2.0.8, the last one under the MIT licence)
"""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable
from typing import Any

import albumentations as A
import numpy as np
import torch
from albumentations.core.type_definitions import Targets
from torch.utils.data import get_worker_info

from ..ratio import Schedule
from ..samples import SpecMismatchError
from .augment import Augmenter, SampleAugmenter
from .probability import MixProbability

_BITS = 62


class GeneratorAugmentation(A.DualTransform):  # type: ignore[misc]
    """Let a generator alter a sample: image and mask by the same draw.

    ``image`` is (H, W, C) float32 in the generator's unit; ``mask`` is (H, W) or (H, W, n) of any dtype, which it
    keeps, and goes in under other names as ``additional_targets={'truth': 'mask'}``. What else a call holds, as a class
    label, stays. Put it first in a ``Compose``, where images still have the size and unit of the generator's spec.

    Gate and draw take their randomness from torch's global generator, which differs in every worker and epoch and
    follows ``torch.manual_seed``. A pipeline seeded by ``Compose(seed=...)`` or ``set_random_state`` gets a stream of
    its own instead: repeatable in the main process, another in every worker and every epoch, and independent of the
    other transforms, to which albumentations gives one and the same. With probability 0 nothing is drawn.

    A pipeline is saved without the generator: ``A.from_dict(saved, nonserializable={'GeneratorAugmentation': it})``.

    Args:
        generator: with an ``augment``, of samples of kind ``'segmentation'`` or ``'scene'``; it runs sample by sample
            on the CPU, for which a batch-wise way may be faster.
        ratio: altered samples per unaltered one, so that a sample is altered with probability ratio/(1+ratio); a
            number, or a schedule that :meth:`set_epoch` follows.
        p: the fraction that is altered; give either this or ``ratio``.

    Raises:
        TypeError: if the generator cannot alter samples of these kinds.
        ValueError: if not exactly one of ``ratio`` and ``p`` is given, or it is out of range.
    """

    _targets = (Targets.IMAGE, Targets.MASK)

    def __init__(
        self, generator: SampleAugmenter, ratio: float | Schedule | None = None, p: float | None = None
    ) -> None:
        self.probability = MixProbability('GeneratorAugmentation', ratio, p)
        self.augmenter = Augmenter('GeneratorAugmentation', generator, ('segmentation', 'scene'))
        self._altered: tuple[np.ndarray, np.ndarray] | None = None
        self._stream: tuple[int, np.random.Generator] | None = None
        super().__init__(p=self.probability.value)

    @property
    def p(self) -> float:
        """Probability that a sample is altered in the current epoch."""
        return self.probability.value

    @p.setter
    def p(self, value: float) -> None:
        # The base class writes what was just read; anything else is the user's own constant.
        if value != self.probability.value:
            self.probability = MixProbability('GeneratorAugmentation', None, value)

    def set_epoch(self, epoch: int) -> None:
        """Follow a schedule of the ratio to an epoch, in data-loader workers too."""
        self.probability.set_epoch(epoch)

    # --- randomness -------------------------------------------------------------------------------------------------

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
            return int(torch.randint(2**_BITS, ()))
        worker = get_worker_info()
        place = worker.seed if worker else 0  # a worker's seed is new in every epoch, unless the worker lives on
        if self._stream is None or self._stream[0] != place:
            # Siblings have generators in the same state; our own name leads the stream away from theirs.
            entropy = [int(self.random_generator.integers(2**_BITS)), place, zlib.crc32(repr(self).encode())]
            self._stream = place, np.random.default_rng(entropy)
        return int(self._stream[1].integers(2**_BITS))

    def should_apply(self, force_apply: bool = False) -> bool:
        """Whether this sample is altered."""
        if self.p <= 0 or self.p >= 1 or force_apply:
            return self.p > 0
        return self._random_bits() < self.p * 2**_BITS

    def get_params(self) -> dict[str, Any]:
        """``draw``, the seed of one draw for all targets of this call."""
        return {'draw': self._random_bits()}

    # --- targets ----------------------------------------------------------------------------------------------------

    @property
    def targets(self) -> dict[str, Callable[..., Any]]:
        """What can be altered."""
        return {'image': self.apply, 'mask': self.apply_to_mask}

    def add_targets(self, additional_targets: dict[str, str]) -> None:
        """Know masks under other names.

        Raises:
            TypeError: for a second image.
        """
        if images := sorted(name for name, kind in additional_targets.items() if kind == 'image'):
            raise TypeError(
                f'GeneratorAugmentation: a sample has one image, found {images} as further ones; a generator alters '
                'one at a time'
            )
        super().add_targets(additional_targets)

    def get_params_dependent_on_data(self, params: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
        """Check that the targets of a call are those that a generator alters.

        Raises:
            ValueError: if the image is missing, or the mask that belongs to it, or there is a target that stayed as it
                was while the image was not.
            TypeError: if the image is not of dtype float32.
            SpecMismatchError: if a mask is of another size than the image.
        """
        kinds = {key: self._additional_targets.get(key, key) for key, value in data.items() if value is not None}
        found = set(kinds.values())
        needed = {'image', 'mask'} if self.augmenter.spec.kind == 'segmentation' else {'image'}
        if not needed <= found or found & set(super().targets) - {'image', 'mask'}:
            raise ValueError(
                f'GeneratorAugmentation: samples of kind {self.augmenter.spec.kind!r} have {sorted(needed)}, found '
                f'{sorted(data)}; call the pipeline with these (or name masks in additional_targets) and nothing that '
                'would keep its place while the image moves'
            )
        if data['image'].dtype != np.float32:
            unit = self.augmenter.spec.unit or 'unknown'
            raise TypeError(
                f'GeneratorAugmentation: found an image of dtype {data["image"].dtype}, expected float32 in the unit '
                f'of the generator ({unit}); convert images before the pipeline'
            )
        for mask in (data[key] for key, kind in kinds.items() if kind == 'mask'):
            if mask.shape[:2] != data['image'].shape[:2]:
                raise SpecMismatchError(
                    f'GeneratorAugmentation: found a mask of shape {mask.shape} beside an image of shape '
                    f'{data["image"].shape}; bring both to one size'
                )
        return {}

    def apply_with_params(self, params: dict[str, Any], *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Alter the image, and move every mask of the call alike."""
        image = torch.from_numpy(np.ascontiguousarray(np.moveaxis(kwargs['image'], -1, 0)))
        altered, places = self.augmenter.altered(image[None], params['draw'])
        self._altered = np.ascontiguousarray(np.moveaxis(altered[0].numpy(), 0, -1)), places[0].numpy()
        result: dict[str, Any] = super().apply_with_params(params, *args, **kwargs)
        self._altered = None
        return result

    def apply(self, img: np.ndarray, *args: Any, **params: Any) -> np.ndarray:
        """The altered image, (H, W, C) float32."""
        assert self._altered is not None
        return self._altered[0]

    def apply_to_mask(self, mask: np.ndarray, *args: Any, **params: Any) -> np.ndarray:
        """The mask, each pixel from where the image has it."""
        assert self._altered is not None
        return mask.reshape(len(self._altered[1]), -1)[self._altered[1]].reshape(mask.shape)

    # --- saved form -------------------------------------------------------------------------------------------------

    @classmethod
    def is_serializable(cls) -> bool:
        """No: a generator cannot be written down. ``A.from_dict`` asks for the transform."""
        return False

    def to_dict_private(self) -> dict[str, Any]:
        """Name and description, without the generator."""
        described = {'augmentation': repr(self.probability), 'generator': repr(self.augmenter)}
        name = {'__class_fullname__': self.get_class_fullname(), '__name__': 'GeneratorAugmentation'}
        return {**name, 'p': self.p, **described}

    def __repr__(self) -> str:
        """Probability and generator, without its weights."""
        return f'GeneratorAugmentation({self.probability}, generator={self.augmenter})'


__all__ = ['GeneratorAugmentation']
