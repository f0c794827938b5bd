"""Mixing of synthetic images and masks into a batch inside kornia's AugmentationSequential.

https://kornia.readthedocs.io/en/latest/augmentation.container.html
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from kornia.augmentation import AugmentationSequential
from torch import Tensor

from ..datasets.mixing.columns import cast_like, put_rows
from ..datasets.mixing.sources import LabelPolicies, NamedSources, Ratios
from ..datasets.pools.pool import Draw
from ..datasets.shared import Kept
from ..samples import SpecMismatchError
from .gated_kornia import GatedAugmentation, Params

_FORWARD = AugmentationSequential.forward.__code__


class RandomSyntheticMix(GatedAugmentation):
    """Randomly replace samples of a batch by synthetic ones, image and mask together.

    Each sample is replaced independently, with kornia's convention for ``p``. Put it first, so that synthetic samples
    are normalised and augmented like real ones. Images are (B, C, H, W) in any floating dtype and on any device, with
    no assumed range; masks are (B, 1, H, W) or (B, H, W), as tensors or as a list of one mask per sample. Samples that
    are not replaced pass bit for bit, the reported transformation matrix is the identity, and
    ``aug(x, params=aug._params)`` replaces the same samples by the same synthetic ones. All randomness is drawn on the
    CPU from torch's global generator, so that a seed means the same on every device; with probability 0, nothing is
    drawn, and other augmentations keep their draws.

    Inside kornia, a label would silently keep its real value; batches and sources with labels, and sources of pairs of
    dates, are therefore refused. The source is not a submodule: its weights are not in ``parameters()`` or
    ``state_dict()``.

    Args:
        source: a generator (drawn live), a synthetic dataset, a bank or its folder, or any dataset in the sample
            contract, with samples of the kind ``'segmentation'``; or several of them by name.
        ratio: synthetic samples per real one: each sample is replaced with probability ratio/(1+ratio). A number, or a
            schedule, see :meth:`set_epoch`; for several sources, one for each name.
        p: the synthetic fraction; give either this or ``ratio``.
        labels, prior, different_scales: as for :class:`~hsiaug.datasets.MixedDataset`.
        real_counts: (K,) real samples (for masks: pixels) per class, for policies that need them.
        same_on_batch: replace all samples of a batch or none, by the same synthetic sample.
        keepdim: return (C, H, W) for (C, H, W) and (B, H, W) masks for such masks, as everywhere in kornia.
        image_only: state that there are no masks; otherwise, mixing images without their masks is an error.

    A batch is refused if its masks hold a value that is neither a class of the source nor its ignore index, or if its
    dtype cannot hold the synthetic values: float16 ends at 65504, uint8 at 255.

    Raises:
        TypeError: if the source holds anything but image-mask pairs of one date.
        ValueError: if not exactly one of ``ratio`` and ``p`` is given, or it is out of range.
    """

    why_not = 'synthetic samples have no {}'

    def __init__(
        self,
        source: NamedSources,
        ratio: Ratios | None = None,
        p: float | None = None,
        labels: LabelPolicies = None,
        real_counts: np.ndarray | None = None,
        prior: np.ndarray | None = None,
        same_on_batch: bool = False,
        keepdim: bool = False,
        image_only: bool = False,
        different_scales: bool = False,
    ) -> None:
        draw = Draw(prior=prior, real_counts=real_counts)
        total = self._replace_by(source, ratio, p, labels, draw, different_scales)
        super().__init__(total, p, same_on_batch, keepdim, image_only)
        self._require_kinds(('segmentation',), 'a child of kornia')
        self._drawn: Kept[tuple[int, int], tuple[dict[str, Tensor], np.ndarray]] = Kept(1)

    def forward_parameters(self, batch_shape: tuple[int, ...]) -> Params:
        """Draw the gate, and which synthetic sample each gated one becomes.

        Returns:
            kornia's own parameters, with ``seed`` and ``count``, which name a draw of ``count`` synthetic samples, and
            ``draw``, the one that each row takes; all (B,) int64, so that containers can slice and repeat them.
        """
        params: Params = super().forward_parameters(batch_shape)
        gate = params['batch_prob'] > 0.5
        # A row outside the gate has a valid draw too: a replay may open the gate by hand.
        draw = (
            torch.zeros(len(gate), dtype=torch.int64, device='cpu')
            if self.same_on_batch
            else (gate.cumsum(0) - 1).clamp(min=0)
        )
        count = draw.max() + 1 if len(gate) else torch.tensor(0, device='cpu')
        return {**params, 'seed': self._draw_seed().expand(len(gate)), 'count': count.expand(len(gate)), 'draw': draw}

    def apply_transform(
        self, input: Tensor, params: Params, flags: dict[str, Any], transform: Tensor | None = None
    ) -> Tensor:
        """Replace the gated images."""
        rows = self._gated_rows(params)
        mixed = self._replace('image', input, rows, params)
        if len(rows):
            _require_no_labels()
            self._expect_masks(draw_name(params))
        return mixed

    def apply_transform_mask(
        self, input: Tensor, params: Params, flags: dict[str, Any], transform: Tensor | None = None
    ) -> Tensor:
        """Replace the gated masks, with the gate and the draw of the images.

        Raises:
            TypeError: if the mixing was said to be of images only.
        """
        self._masks_came()
        self._numbers.require_values(input, 'real masks')
        return self._replace('mask', input, self._gated_rows(params), params)

    def apply_transform_class(self, input: Any, params: Params, flags: dict[str, Any], transform: Any = None) -> Any:
        """Refuse class labels. kornia's containers pass them by without asking; a direct call comes here."""
        raise TypeError(
            'RandomSyntheticMix: class labels cannot be replaced inside kornia; use hsiaug.transforms.SyntheticMix'
        )

    def _replace(self, key: str, input: Tensor, rows: Tensor, params: Params) -> Tensor:
        """``input`` (B, ...) with its gated rows out of the draw that ``params`` name."""
        if len(rows) == 0:
            return input
        batch, numbers = self._draw(params, input.device)
        synthetic, draw = batch[key], params['draw'].cpu()[rows]
        if not torch.equal(draw, torch.arange(len(synthetic), device='cpu')):  # the usual case needs no copy
            synthetic, numbers = synthetic[draw], numbers[draw.numpy()]
        if key == 'mask':
            synthetic = synthetic.unsqueeze(1)
        if synthetic.shape[1:] != input.shape[1:]:
            raise SpecMismatchError(
                f'RandomSyntheticMix: found {key}s of shape {tuple(input.shape[1:])} in the batch, expected '
                f'{tuple(synthetic.shape[1:])} as the source holds; bring both to the same bands and size, or move '
                'the mixing to the place in the container where they agree (before or after the crop)'
            )
        if key == 'mask':
            self._numbers.require_values(synthetic, 'synthetic masks')
            for mask in _masks_as_given():
                cast_like(synthetic, mask, 'mask', 'RandomSyntheticMix')
        else:
            self.sources.see(input, synthetic, numbers)
        return put_rows(input, rows, cast_like(synthetic, input, key, 'RandomSyntheticMix'))

    def _draw(self, params: Params, device: torch.device) -> tuple[dict[str, Tensor], np.ndarray]:
        """The draw that ``params`` name, and the source of each sample; image and mask ask for the same one in turn."""
        seed, count = draw_name(params)
        if device.type != 'cpu' and (seed, count) not in self._drawn:
            self.sources.to(device)  # a live generator draws where the batch is
        return self._drawn.get_or_make((seed, count), lambda: self.sources.random(count, seed, self.probability.epoch))

    def __repr__(self) -> str:
        return f'RandomSyntheticMix({self.probability}, source={self.sources}, same_on_batch={self.same_on_batch})'


def _containers_call() -> Mapping[str, Any]:
    """The variables of the call of kornia's outermost container, in which we are; none outside of one."""
    frame, found = inspect.currentframe(), dict[str, Any]()
    while frame is not None:
        found = frame.f_locals if frame.f_code is _FORWARD else found
        frame = frame.f_back
    return found


def _require_no_labels() -> None:
    """Check that there are no labels, which a container would keep as those of the images that were replaced.

    Raises:
        TypeError: naming them.
    """
    call = _containers_call()
    keys = [key.name.lower() for key in call['self'].transform_op.data_keys] if call else []
    # What a dictionary holds besides data that the container knows passes it by.
    if labels := sorted({*keys, *(call.get('invalid_data') or ())} & {'class', 'label', 'labels', 'label_prob'}):
        raise TypeError(
            f'RandomSyntheticMix: class labels {labels} cannot be replaced inside kornia, and would stay those of the '
            'real images; leave them out, or use hsiaug.transforms.SyntheticMix'
        )


def _masks_as_given() -> Iterator[Tensor]:
    """Empty tensors in the dtypes that masks had before kornia's container made floats of them.

    The container turns them back at its end without asking whether classes fit, and its children do not learn of it;
    its call knows what it was given.
    """
    given = _containers_call().get('args')
    for value in given if isinstance(given, tuple | list) else ():
        for mask in value if isinstance(value, list | tuple) else (value,):
            if isinstance(mask, Tensor) and not mask.is_floating_point() and mask.dtype != torch.int64:
                yield mask.new_empty(0)


def draw_name(params: Params) -> tuple[int, int]:
    """Seed and count, which name a draw."""
    return int(params['seed'][0]), int(params['count'][0])
