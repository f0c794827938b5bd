"""Training of unmixing before fusion: unmixing, masks from abundances, the abundances' generator, the residual."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from ...datasets import SceneDataset, SceneFolder
from ...datasets.folders.image_files import subfolders
from ...datasets.real.held import class_fractions
from ...engine import Run
from ...engine.checkpoint import digest_of
from ...functional.plain import plain_torch
from ...samples import SampleSpec
from ...settings import Range, check_settings
from ...streams import seeded
from ...trainers.patch_encoder import train_patch_encoder
from ..base import TrainingData
from ..training import trains
from ..training_data import require_images
from .abundances import AbundanceConfig, train_abundances
from .model import Masks, NoiseFrom, UnmixingFusion
from .unmixing.train import Matching, UnmixingConfig, abundances_from_rgb, require_rgb, train_unmixing

UNMIXING_FILE = 'unmixing.safetensors'
NO_LABEL = -1  # to the abundances' generator


@dataclass(frozen=True, eq=False)
class UnmixingFusionConfig:
    """Training settings.

    ``masks``, ``noise``, ``noise_from``, ``variability`` and ``conditional`` (False in the paper) are settings of the
    generator, :class:`~hsiaug.systems.unmixing_fusion.UnmixingFusion`.

    Args:
        unmixing: an :class:`~hsiaug.trainers.UnmixingConfig`, or changes to
            :meth:`~hsiaug.trainers.UnmixingConfig.small`.
        abundances: an :class:`~hsiaug.systems.unmixing_fusion.abundances.AbundanceConfig`, or its fields.
        mask_steps: number of optimiser steps of the classifier of abundances.
        rgb: RGB images of similar scenes, (n, 3, H, W) uint8 or floating point from 0 to 1; or a folder of images of
            one size, or with one folder per class. Use training images only: what they show is learnt, and it cannot
            be checked whether they show the test area.
        rgb_labels: (n,) int64 classes of these images for samples of kind ``'scene'``, −1 if unknown; with one folder
            per class, taken from folder names that are classes of the spec. Images without a class are learnt too, but
            not imitated by samples, unless ``conditional=False``. For samples with masks, their class maps are used.
        rgb_weight: share of RGB images among the abundances to learn from; by default, that of their patches, as in the
            paper.
        rgb_factor: factor by which their pixels are finer; they are averaged to the pixel size of the spec.
        rgb_stride: step between the patches cut from them; by default, their side.
        matching: see :func:`~hsiaug.systems.unmixing_fusion.unmixing.abundances_from_rgb`.

    Raises:
        ValueError: if a setting is out of its range.
    """

    unmixing: UnmixingConfig | Mapping[str, Any] = field(default_factory=dict)
    abundances: AbundanceConfig | Mapping[str, Any] = field(default_factory=dict)
    masks: Masks = 'classifier'
    mask_steps: int = 400
    noise: float = 1.0
    noise_from: NoiseFrom = 'differences'
    variability: float = 0.0
    conditional: bool = True
    rgb: Tensor | str | os.PathLike[str] | None = None
    rgb_labels: Tensor | None = None
    rgb_weight: float | None = 0.5
    rgb_factor: int = 1
    rgb_stride: int | None = None
    matching: Matching = 'quantiles'

    def __post_init__(self) -> None:
        try:
            if isinstance(self.unmixing, Mapping):
                object.__setattr__(self, 'unmixing', UnmixingConfig.small(**self.unmixing))
            if isinstance(self.abundances, Mapping):
                object.__setattr__(self, 'abundances', AbundanceConfig(**self.abundances))
        except TypeError as error:
            raise ValueError(f'UnmixingFusionConfig: unknown setting in unmixing or abundances: {error}') from error
        check_settings(self, rgb_weight=Range(0, 1))
        if self.rgb_weight is not None and not 0 < self.rgb_weight < 1:
            raise ValueError(
                f'UnmixingFusionConfig: rgb_weight must be between 0 and 1, found {self.rgb_weight}; give rgb=None to '
                'leave RGB images out'
            )
        if self.rgb is not None and self.unmixing.inputs == 'all':  # type: ignore[union-attr]
            raise ValueError(
                "UnmixingFusionConfig: RGB images can be unmixed from red, green and blue only; set inputs='rgb' in "
                'unmixing, or leave rgb out'
            )
        if self.rgb_labels is not None and not isinstance(self.rgb, Tensor):
            raise ValueError(
                f'UnmixingFusionConfig: rgb_labels are those of images given as a tensor, found rgb={self.rgb!r}; '
                'leave them out, or name the folders of images after their classes'
            )


class Maps(NamedTuple):
    """What the abundances' generator learns from: maps (N, k, s, s), labels (N,), weights (N,) that add up to one."""

    abundances: Tensor
    labels: Tensor
    weights: Tensor


@trains('unmixing_fusion', UnmixingFusionConfig)
@plain_torch()
def train_unmixing_fusion(
    data: TrainingData, config: UnmixingFusionConfig | None = None, run: Run | None = None
) -> UnmixingFusion:
    """Train unmixing before fusion.

    Args:
        data: training part of a split, of kind ``'scene'`` or ``'segmentation'``, square. ``unlabelled`` images are
            unmixed with the others: endmembers and encoder are learnt from all.
        config: settings; the default ones if None.
        run: see :class:`~hsiaug.engine.Run`; checkpoints are removed when the training ends.

    Returns:
        the generator, on the device.

    Raises:
        ValueError: if the data cannot be used, or a checkpoint belongs to another training.
        FloatingPointError: if a training diverges; the last good checkpoint is kept.
    """
    config, run = config or UnmixingFusionConfig(), run or Run()
    seed, device = run.seed, run.device
    spec, unmixing, learning = data.spec, config.unmixing, config.abundances
    assert isinstance(unmixing, UnmixingConfig)
    assert isinstance(learning, AbundanceConfig)
    rgb, rgb_labels, record = _rgb_patches(config, spec)
    # Made first: what cannot be made of these patches is said before anything is trained.
    with seeded(seed):
        generator = UnmixingFusion(
            spec, unmixing.endmembers, spec.bands if unmixing.inputs == 'all' else 3, unmixing.widths, learning.kind,
            learning.network, **UnmixingFusion.settings_in(config),
        ).to(device)  # fmt: skip
    require_images('unmixing_fusion', data, 'scene', 'segmentation')
    _require_classes(data, rgb_labels, config.conditional)
    images = torch.cat([data.x, data.unlabelled]) if len(data.unlabelled) else data.x
    network = train_unmixing(images, spec.wavelengths, unmixing, run)
    generator.unmixing = network
    abundances = generator.observe(data)
    if generator.classifier is not None:
        generator.classifier = train_patch_encoder(
            abundances, data.y, spec.num_classes, spec.ignore_index, seed, config.mask_steps, device
        )
    labels = data.y if config.conditional else _no_labels(len(abundances))
    maps = _labelled(abundances, labels, spec)
    if rgb is not None:
        found = abundances_from_rgb(network, rgb, config.matching).cpu()
        if not config.conditional:
            rgb_labels = _no_labels(len(found))
        elif spec.kind == 'segmentation':
            rgb_labels = generator.class_map(found.to(device)).cpu()
        assert rgb_labels is not None
        others, share = _labelled(found, rgb_labels, spec), config.rgb_weight
        share = len(found) / (len(found) + len(abundances)) if share is None else share
        weights = torch.cat([(1 - share) * maps.weights, share * others.weights])
        maps = Maps(torch.cat([maps.abundances, others.abundances]), torch.cat([maps.labels, others.labels]), weights)
    if config.conditional:
        maps = _with_all_classes(maps, spec)
    generator.abundances = train_abundances(
        maps.abundances, maps.labels, spec.num_classes if config.conditional else 0, learning, run, weights=maps.weights
    )
    generator.eval().requires_grad_(True)
    settings = dataclasses.asdict(dataclasses.replace(config, rgb=None, rgb_labels=None))
    training = {**settings, 'rgb': record, 'mask_accuracy': _mask_accuracy(generator, data)}
    generator.adopt(data, seed, training)
    if (file := run.checkpoint(UNMIXING_FILE)) is not None:
        file.unlink(missing_ok=True)
    return generator


def _no_labels(count: int) -> Tensor:
    return torch.full((count,), NO_LABEL)


def _labelled(abundances: Tensor, target: Tensor, spec: SampleSpec) -> Maps:
    """Maps with their labels, or, of masks, each map once for each class that it holds, by its share in it."""
    if target.ndim == 1:
        return Maps(abundances, target, torch.full((len(target),), 1 / len(target)))
    shares = class_fractions(target, spec)
    rows, labels = shares.nonzero(as_tuple=True)
    return Maps(abundances[rows], labels, shares[rows, labels] / shares.sum())


def _mask_accuracy(generator: UnmixingFusion, data: TrainingData) -> float | None:
    """Share of counting pixels of the validation masks that the class map of their images agrees with."""
    if generator.spec.kind == 'scene' or not len(data.val_x):
        return None
    counts = generator.spec.counted(data.val_y)
    found = generator.class_map(generator.unmixing.abundances(data.val_x)).cpu()
    return float((found == data.val_y)[counts].float().mean()) if counts.any() else None


def _require_classes(data: TrainingData, rgb_labels: Tensor | None, conditional: bool) -> None:
    """Refuse masks in which no pixel counts, and classes to condition on that nothing to be learnt holds."""
    spec, held = data.spec, data.y[data.spec.counted(data.y)]
    if not len(held):
        raise ValueError(f'unmixing_fusion: no {spec.target_key} of the training images holds a class that counts')
    if spec.kind == 'scene' and rgb_labels is not None:
        held = torch.cat([held, rgb_labels[rgb_labels >= 0]])
    lost = [name for k, name in enumerate(spec.classes) if not (held == k).any() and name not in spec.uncounted]
    if conditional and lost:
        raise ValueError(f'unmixing_fusion: no training image holds {lost}; leave them out of the spec')


def _rgb_patches(
    config: UnmixingFusionConfig, spec: SampleSpec
) -> tuple[Tensor | None, Tensor | None, dict[str, Any] | None]:
    """Patches (n, 3, s, s) of the RGB images, their labels (n,), and their record for the provenance."""
    if config.rgb is None:
        return None, None, None
    images, labels = (config.rgb, config.rgb_labels) if isinstance(config.rgb, Tensor) else _read(config.rgb, spec)
    images = require_rgb(images, 'unmixing_fusion')
    labels = _no_labels(len(images)) if labels is None else labels.cpu()
    known = (labels >= NO_LABEL) & (labels < spec.num_classes)
    if labels.shape != (len(images),) or labels.is_floating_point() or not known.all():
        raise ValueError(
            f'unmixing_fusion: rgb_labels must be ({len(images)},) in [0, {spec.num_classes}), or −1 where unknown, '
            f'found {tuple(labels.shape)} of {labels.dtype}: {labels.unique().tolist()[:8]}'
        )
    labels = labels.to(torch.int64)
    coarse = avg_pool2d(images, config.rgb_factor)
    size = (spec.size or (0,))[0]
    if min(coarse.shape[-2:]) < size:
        raise ValueError(
            f'unmixing_fusion: RGB images of {images.shape[2]} x {images.shape[3]} pixels, averaged by '
            f'{config.rgb_factor}, hold no patch of {size} x {size}; lower rgb_factor or give larger images'
        )
    step = config.rgb_stride or size
    windows = coarse.unfold(2, size, step).unfold(3, size, step).permute(0, 2, 3, 1, 4, 5)
    per_image = windows.shape[1] * windows.shape[2]
    patches = windows.flatten(0, 2).contiguous()
    record: dict[str, Any] = {'images': len(images), 'patches': len(patches), 'labelled': int((labels >= 0).sum())}
    record['sha256'] = digest_of(images)[:16]
    return patches, labels.repeat_interleave(per_image), record


def _read(folder: str | os.PathLike[str], spec: SampleSpec) -> tuple[Tensor, Tensor]:
    """Images of a folder, or of a folder per class, from 0 to 1, and their labels."""
    root = Path(folder).expanduser().resolve()
    if not root.is_dir():
        raise ValueError(f'unmixing_fusion: rgb must be a folder of images or of a folder per class, found {root}')
    files = SceneFolder(root) if subfolders(root) else SceneFolder(root.parent, [root.name])
    images, known = SceneDataset.from_dataset(files), files.spec.classes
    # Files of 8 and 16 bits are told apart by their values; those of floating point may lie from 0 to 1 already.
    brightest = next((value for value in (1, 255, 65535) if images.image.max() <= value), 1)
    labels = torch.tensor([spec.classes.index(name) if name in spec.classes else NO_LABEL for name in known])
    return images.image * (1 / brightest), labels[images.label]


def _with_all_classes(maps: Maps, spec: SampleSpec) -> Maps:
    """The maps, with one of no weight for a class that is to be ignored and so is in none."""
    missing = torch.tensor(sorted(set(range(spec.num_classes)) - set(maps.labels.tolist())), dtype=torch.int64)
    none = maps.abundances[:1].expand(len(missing), -1, -1, -1), missing, torch.zeros(len(missing))
    return Maps(*(torch.cat(parts) for parts in zip(maps, none, strict=True)))
