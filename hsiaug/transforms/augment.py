"""Augmentation of batches of real samples by a generator."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from ..datasets.contract.batches import require_sample
from ..datasets.mixing.checks import ClassNumbers
from ..datasets.mixing.columns import cast_like, put_rows
from ..datasets.pools.synthetic import require_drawable
from ..datasets.shared import world
from ..ratio import Schedule
from ..samples import SampleSpec, SpecMismatchError
from ..streams import ALTERATIONS, ALTERED, as_seed, stream_seed
from .probability import MixProbability

_TARGETS = ('mask', 'label')


class SampleAugmenter(Protocol):
    """A generator that can alter real samples."""

    spec: SampleSpec

    def augment(self, batch: dict[str, Any], seed: int | None = None) -> dict[str, Any]:
        """The batch with its samples altered; masks follow by nearest neighbour."""
        ...


class GeneratorAugmentation(nn.Module):
    """Lets a generator alter some samples of a batch, image and target together. Takes and returns a dictionary.

    For example, super-resolution shows the model other ground sampling distances
    (:class:`~hsiaug.systems.msrresgan.MSRResGAN`). The batch keeps its size and order. The altered samples are chosen
    at random; their number is exact over the epoch, by cumulative rounding. Put the module before normalisation, as the
    generator expects the dataset's unit. In eval mode, batches pass unchanged.

    Draws depend only on seed, epoch, step and rank. Call :meth:`set_epoch` at the beginning of an epoch. ``altered``
    counts altered samples; position and count are part of the state dict, so that a resumed training continues where it
    stopped. The generator is not a submodule: its weights are not in ``parameters()``, and it follows the batch's
    device.

    Args:
        generator: a generator with an ``augment`` method, for samples of any kind.
        ratio: altered samples per unaltered one: a sample is altered with probability ratio/(1+ratio). A number, or a
            schedule, see :meth:`set_epoch`.
        p: the altered fraction; give either this or ``ratio``.
        seed: seed of all draws.

    Raises:
        TypeError: if the generator cannot alter samples.
        ValueError: if not exactly one of ``ratio`` and ``p`` is given, or it is out of range.
    """

    def __init__(
        self, generator: SampleAugmenter, ratio: float | Schedule | None = None, p: float | None = None, seed: int = 0
    ) -> None:
        super().__init__()
        self.probability = MixProbability('GeneratorAugmentation', ratio, p)
        self.augmenter, self.seed = Augmenter('GeneratorAugmentation', generator), as_seed(seed)
        spec = self.augmenter.spec
        self._numbers = ClassNumbers(spec.num_classes, spec.ignore_index, spec.classes, spec.target_key)
        self.epoch = self.step = self._seen = self.altered = 0

    def set_epoch(self, epoch: int) -> None:
        """Begin an epoch: its own draws and ratio."""
        self.epoch, self.step, self._seen = epoch, 0, 0
        self.probability.set_epoch(epoch)

    @torch.no_grad()
    def forward(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """Alter some samples of a batch.

        Args:
            batch: samples that match the generator's spec; it is not changed. Other keys are kept.

        Raises:
            SpecMismatchError: if images come without their masks or labels, in another layout, or with other classes.
        """
        require_sample(batch, 'GeneratorAugmentation', stacked=True)
        if not self.training:
            return dict(batch)
        size = len(batch['image'])
        share, rank = self.probability.value, world()[0]
        before, after = (math.floor(seen * share + 1e-9) for seen in (self._seen, self._seen + size))
        self.step, self._seen, self.altered = self.step + 1, self._seen + size, self.altered + after - before
        if before == after:
            return dict(batch)
        self._require_target(batch)
        self._numbers.require(batch, 'real')
        draw = (self.seed, self.epoch, self.step, rank)
        order = np.random.default_rng(stream_seed(*draw, ALTERED)).permutation(size)
        rows = torch.from_numpy(np.sort(order[: after - before]))
        part = {key: batch[key][rows.to(batch[key].device)] for key in ('image', *_TARGETS) if key in batch}
        part['image'] = part['image'].to(torch.float32)
        changed = self.augmenter.on(batch['image'].device).augment(part, stream_seed(*draw, ALTERATIONS))
        cast = {key: cast_like(changed[key], batch[key], key, 'GeneratorAugmentation') for key in part}
        return {**batch, **{key: put_rows(batch[key], rows, cast[key]) for key in part}}

    def _require_target(self, batch: Mapping[str, Any]) -> None:
        spec, image = self.augmenter.spec, batch['image']
        if spec.target_key not in batch:
            raise SpecMismatchError(
                f'GeneratorAugmentation: the generator alters samples of kind {spec.kind!r} with {spec.target_key!r}, '
                f'the batch has {sorted(batch)}; give both, since the target must be altered with its image'
            )
        expected = (len(image), *image.shape[-2:])
        if spec.kind == 'segmentation' and tuple(batch['mask'].shape) != expected:
            raise SpecMismatchError(
                f'GeneratorAugmentation: masks {expected} are needed beside images {tuple(image.shape)}, found '
                f'{tuple(batch["mask"].shape)}'
            )

    def get_extra_state(self) -> Tensor:
        """(4,) int64: epoch, step, samples seen in the epoch, samples altered in all."""
        return torch.tensor([self.epoch, self.step, self._seen, self.altered], device='cpu')

    def set_extra_state(self, state: Tensor) -> None:
        """The inverse of :meth:`get_extra_state`."""
        self.epoch, self.step, self._seen, self.altered = state.tolist()
        self.probability.set_epoch(self.epoch)

    def extra_repr(self) -> str:
        """Probability and generator, without its weights."""
        return f'{self.probability}, generator={self.augmenter}'


class Augmenter:
    """A generator that alters samples, of some kinds or any, checked and kept out of the modules that hold it.

    Raises:
        TypeError: if the generator cannot alter samples, or not of these kinds.
    """

    def __init__(self, owner: str, generator: SampleAugmenter, kinds: tuple[str, ...] | None = None) -> None:
        if not callable(getattr(generator, 'augment', None)):
            raise TypeError(
                f'{owner}: {type(generator).__name__} has no augment and cannot alter samples; generators that make '
                "new samples go into SyntheticMix; 'msrresgan' is one that alters samples"
            )
        self.owner, self.generator, self.spec = owner, generator, generator.spec
        if kinds is not None and self.spec.kind not in kinds:
            raise TypeError(
                f'{owner}: the generator alters samples of kind {self.spec.kind!r}, expected one of {kinds}; use '
                'hsiaug.transforms.GeneratorAugmentation, on batches'
            )

    def on(self, device: torch.device) -> SampleAugmenter:
        """The generator, on a device.

        Raises:
            RuntimeError: if it is on a GPU in a data-loader worker.
        """
        require_drawable(self.generator)
        if isinstance(self.generator, nn.Module) and getattr(self.generator, 'device', device) != device:
            self.generator.to(device)
        return self.generator

    @torch.no_grad()
    def altered(self, image: Tensor, seed: int) -> tuple[Tensor, Tensor]:
        """Altered images, and (n, H*W) int64 flat indices of where each of their pixels has its class from.

        A mask that numbers the pixels goes with the images: masks of any number, dtype and layout can follow later.
        Images are (n, C, H, W) in the generator's unit and any floating dtype, which they keep.

        Raises:
            TypeError: if pixels of other samples are among them, which have no place here.
        """
        height, width = image.shape[-2:]
        first = 1 + max(self.spec.num_classes, self.spec.ignore_index or 0)  # numbers of pixels are no classes
        numbers = first + torch.arange(height * width, device=image.device).view(height, width)
        batch = {'image': image.to(torch.float32), 'mask': numbers.repeat(len(image), 1, 1)}
        altered = self.on(image.device).augment(batch, seed)
        places = altered['mask'].flatten(1).to(image.device) - first
        if (places < 0).any():
            raise TypeError(
                f'{self.owner}: {type(self.generator).__name__} brings in pixels of other samples with their classes, '
                'which masks cannot follow here; use hsiaug.transforms.GeneratorAugmentation, a module from dict to '
                'dict, on batches, or mix its samples'
            )
        return cast_like(altered['image'], image, 'image', self.owner), places

    def __repr__(self) -> str:
        return f'<{type(self.generator).__name__}: alters {self.spec.kind} samples>'
