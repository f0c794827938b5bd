"""Mixing of synthetic samples in an albumentations pipeline.

https://albumentations.ai/docs/ (version 2.0.8, the last one under the MIT licence)
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import albumentations as A
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import get_worker_info

from ..datasets.contract.batches import as_tensor
from ..datasets.contract.wrapped import look_through
from ..datasets.mixing.sources import LabelPolicies, NamedSources, Ratios
from ..datasets.pools.pool import Draw
from ..samples import SpecMismatchError, target_of
from .gated_albumentations import GatedTransform


class SyntheticMix(GatedTransform):
    """Randomly replace a sample by a synthetic one: image and mask, or image and class label.

    ``image`` is (H, W, C) float32 in the source's unit; ``mask`` is (H, W) or (H, W, 1) and ``label`` is one number;
    both keep their dtype and type. Put the transform first in a ``Compose``, so that synthetic samples are augmented
    like real ones; pass targets with other names as ``additional_targets={'truth': 'mask'}``.

    For its random stream, see :class:`~hsiaug.transforms.gated_albumentations.GatedTransform`.

    A source cannot be serialised, so load a saved pipeline as you would one with a ``Lambda``:
    ``A.from_dict(saved, nonserializable={'SyntheticMix': transform})``.

    With OpenCV 5, albumentations' own flips fail above 128 bands; install OpenCV 4.

    Args:
        source: a generator (drawn live, on the CPU), a synthetic dataset, a bank or its folder, or any dataset in the
            sample contract, with samples of the kind ``'segmentation'`` or ``'scene'``; or several of them by name.
        ratio: synthetic samples per real one: a sample is replaced with probability ratio/(1+ratio). A number, or a
            schedule, see :meth:`set_epoch`; for several sources, one for each name.
        p: the synthetic fraction; give either this or ``ratio``.
        labels, prior, different_scales: as for :class:`~hsiaug.datasets.MixedDataset`.
        real_counts: (K,) real samples (for masks: pixels) per class, for policies that need them.

    Every sample whose mask or label holds a value that is neither a class of the source nor its ignore index is
    refused, replaced or not.

    Raises:
        TypeError: if the source holds spectra or pairs of dates.
        ValueError: if not exactly one of ``ratio`` and ``p`` is given, or it is out of range.
    """

    changes = ('image', 'mask', 'label')

    def __init__(
        self,
        source: NamedSources,
        ratio: Ratios | None = None,
        p: float | None = None,
        labels: LabelPolicies = None,
        real_counts: np.ndarray | None = None,
        prior: np.ndarray | None = None,
        different_scales: bool = False,
    ) -> None:
        draw = Draw(prior=prior, real_counts=real_counts)
        super().__init__(self._replace_by(source, ratio, p, labels, draw, different_scales), p)
        self._require_kinds(('scene', 'segmentation'), 'an albumentations pipeline')
        self.target = target_of(self.sources.pools[0].kind)
        self.needed = self.allowed = {'image', self.target}

    def __call__(self, *args: Any, force_apply: bool = False, **kwargs: Any) -> Any:
        """Gate a sample, and replace it where the gate is open."""
        if self.p > 0:
            for key, value in kwargs.items():
                if self._target_of(key) == self.target and isinstance(value, np.ndarray | np.generic | int | Tensor):
                    self._numbers.require_values(as_tensor(value), f'real {key}s')
        return super().__call__(*args, force_apply=force_apply, **kwargs)

    def _change(self, image: np.ndarray, draw: int) -> dict[str, Callable[[Any], Any]]:
        """The synthetic image, (H, W, C) float32, and the synthetic mask or label, in shape and type of the real one.

        Raises:
            TypeError: if the real image is of another dtype, or the label is no single number.
            SpecMismatchError: if one is of another shape.
        """
        self._require_float32(image, self.sources.spec, 'source')
        batch, number = self.sources.random(1, draw, self.probability.epoch)
        self._numbers.require(batch, 'synthetic')
        self.sources.see(torch.from_numpy(image[None]), batch['image'], number)
        synthetic, target = (batch[key][0].cpu().numpy() for key in ('image', self.target))

        def mask(real: np.ndarray) -> np.ndarray:
            return _as_real('mask', real, target[..., None] if real.ndim == 3 else target)

        def label(given: Any) -> Any:
            real = np.asarray(given)
            if real.size != 1 or real.dtype.kind not in 'biuf' or isinstance(given, list):
                raise TypeError(f'SyntheticMix: found label {given!r}, expected one class number')
            value = _as_real('label', real, target.reshape(real.shape))
            if isinstance(given, np.ndarray):
                return value
            return torch.full_like(given, value.item()) if isinstance(given, Tensor) else type(given)(value.item())

        change = {'mask': mask, 'label': label}[self.target]
        return {'image': lambda real: _as_real('image', real, np.moveaxis(synthetic, 0, -1)), self.target: change}

    def __repr__(self) -> str:
        return f'SyntheticMix({self.probability}, source={self.sources})'


def _as_real(what: str, real: np.ndarray, synthetic: np.ndarray) -> np.ndarray:
    """A synthetic array in the dtype of the real one that it replaces.

    Raises:
        SpecMismatchError: if the shapes differ, or the dtype cannot hold the synthetic values.
    """
    if real.shape != synthetic.shape:
        raise SpecMismatchError(
            f'SyntheticMix: found {what} of shape {real.shape}, expected {synthetic.shape} as the source holds; '
            'convert both to the same bands and size, or move the mixing to a place in the pipeline where they match'
        )
    converted = synthetic.astype(real.dtype, order='C')
    if not np.array_equal(converted, synthetic, equal_nan=synthetic.dtype.kind == 'f'):
        raise SpecMismatchError(
            f'SyntheticMix: found {what} of dtype {real.dtype}, which cannot hold the synthetic values from '
            f'{synthetic.min()} to {synthetic.max()}; give int64'
        )
    return converted


def albumentations_worker_init(worker_id: int) -> None:
    """Give every albumentations pipeline of a dataset its own random stream in each worker and epoch.

    albumentations 2.0.8 repeats the same stream in every worker and epoch, for its own transforms too. Use
    ``DataLoader(..., worker_init_fn=albumentations_worker_init)``. Pipelines are found if they are attributes of
    the dataset or of datasets inside it (``Subset``, ``ConcatDataset``, ``MixedDataset``).

    Args:
        worker_id: passed by torch and not used; the stream depends on the worker's seed.

    Raises:
        RuntimeError: if called outside a worker.
        ValueError: if no pipeline is found.
    """
    worker = get_worker_info()
    if worker is None:
        raise RuntimeError('albumentations_worker_init: runs in data-loader workers only; give it as worker_init_fn')
    values = [value for layer in look_through(worker.dataset).all() for value in vars(layer.dataset).values()]
    items = [item for value in values for item in (value if isinstance(value, list | tuple) else (value,))]
    if not (pipelines := [item for item in items if isinstance(item, A.BaseCompose | A.BasicTransform)]):
        raise ValueError(
            f'albumentations_worker_init: found no albumentations pipeline among the attributes of '
            f'{type(worker.dataset).__name__}; keep it in one (as dataset.transform), or call its set_random_state'
        )
    seeds = np.random.SeedSequence(worker.seed).spawn(len(pipelines))
    for pipeline, seed in zip(pipelines, seeds, strict=True):
        pipeline.set_random_state(np.random.default_rng(seed), random.Random(int(seed.generate_state(1)[0])))
