"""Unlabelled samples of the training area, labelled by networks that were trained on its labelled part.

Lee, "Pseudo-Label", ICML Workshop 2013. Only predictions count on which all networks agree and are confident; other
pixels of an image are ignored. Pasting pseudo-labelled regions into labelled images is ClassMix (Olsson et al., WACV
2021, https://arxiv.org/abs/2007.07936); pasting the other way round, they are the backgrounds of Cut-and-Paste.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from ..datasets.real.held import HeldSamples, class_fractions
from ..engine import Run
from ..functional.dates import flat_mask, in_contract, stacked_dates
from ..functional.devices import sent
from ..functional.pasting import Regions, pairs_that_hold, paste_regions
from ..functional.plain import learning
from ..progress import with_progress
from ..samples import SampleSpec
from ..settings import SHARE, check_settings, checked_arguments
from ..trainers import ChangeDetectorConfig, ClassifierConfig, SceneClassifierConfig, SegmenterConfig, train_nn1d
from ..trainers.pixelwise import train_images
from .base import Generator, TrainingData, register
from .training import trains

Paste = Literal['none', 'host', 'donor']


@register('pseudo_label')
class PseudoLabel(Generator):
    """Unlabelled samples of the training area, labelled where several networks agree and are confident.

    Given a label, a sample is drawn that contains the class among its labelled pixels. For classes that the networks
    are not confident about anywhere, labelled samples are used instead.

    Args:
        spec: spec of the samples.
        paste: ``'host'`` pastes regions of labelled images into pseudo-labelled ones; ``'donor'`` pastes regions of
            pseudo-labelled images into labelled ones; both are rotated, flipped and shifted independently. ``'none'``
            leaves the pseudo-labelled samples unchanged.
        regions: shape of the regions, see :class:`~hsiaug.systems.region_paste.RegionPaste`.

    Raises:
        ValueError: if regions of samples without masks are to be pasted.
    """

    unlabelled = ('alike',)
    fitted: ClassVar[tuple[str, ...]] = ('x', 'y', 'shares', 'real_x', 'real_y', 'real_shares')
    x: Tensor  # (M, ...) pseudo-labelled, of pairs of dates (M, 2 C, H, W)
    y: Tensor  # (M,) or (M, H, W)
    shares: Tensor  # (M, K) of each class
    real_x: Tensor  # the same of labelled samples, where they are pasted
    real_y: Tensor
    real_shares: Tensor

    def __init__(self, spec: SampleSpec, paste: Paste = 'none', regions: Regions = 'smooth') -> None:
        if paste != 'none' and spec.kind not in ('segmentation', 'change'):
            raise ValueError(f'PseudoLabel: paste={paste!r} is for samples with masks, found kind {spec.kind!r}')
        super().__init__(spec, paste=paste, regions=regions)
        self.paste, self.regions = paste, regions

    def keep(self, x: Tensor, y: Tensor, data: TrainingData) -> None:
        """Take pseudo-labelled samples, and what of the labelled ones is needed.

        Args:
            x: (M, ...) as samples of this kind are.
            y: (M, ...) their labels or masks.
            data: the labelled part.
        """
        real, found = (class_fractions(target.cpu(), self.spec) for target in (data.y, y))
        lost = (real.sum(dim=0) > 0) & (found.sum(dim=0) == 0)
        stand_in = real[:, lost].sum(dim=1) > 0
        x, y = torch.cat([x.cpu(), data.x.cpu()[stand_in]]), torch.cat([y.cpu(), data.y.cpu()[stand_in]])
        some = slice(None) if self.paste != 'none' else slice(0)
        for name, images, target in (('', x, y), ('real_', data.x.cpu()[some], data.y.cpu()[some])):
            masks = target.ndim > 1
            setattr(self, f'{name}x', (stacked_dates(images) if masks else images).to(self.device))
            setattr(self, f'{name}y', (flat_mask(target) if masks else target).to(self.device))
            setattr(self, f'{name}shares', class_fractions(target, self.spec).to(self.device))

    def _draw(self, labels: Tensor, rng: torch.Generator) -> dict[str, Tensor]:
        asked = 'real_shares' if self.paste == 'host' else 'shares'  # donors where there are any
        rows = sent(pairs_that_hold(labels, self.on_cpu(asked), rng), self.device)
        if self.paste == 'none':
            if self.y.ndim == 1:
                return {'image': self.x[rows]}
            return in_contract(self.x[rows], self.y[rows], self.spec)
        parts = [(self.x, self.y), (self.real_x, self.real_y)]
        (hosts, masks), (donors, donated) = parts if self.paste == 'host' else parts[::-1]
        of = sent(torch.randint(len(hosts), (len(rows),), generator=rng), self.device)
        pair = paste_regions(
            (hosts[of], masks[of]), (donors[rows], donated[rows]), self.regions, self.spec.num_classes, rng
        )
        return in_contract(*pair, self.spec)


@dataclass(frozen=True)
class PseudoLabelConfig:
    """Settings of the teachers that label unlabelled samples.

    Args:
        teachers: number of networks, which differ in initialisation and order of samples.
        confidence: least mean probability of a label that counts.
        teacher: settings of the network and its training, such as :class:`~hsiaug.trainers.SegmenterConfig` or that of
            another kind of samples. Images are flipped in training by default.
        paste: see :class:`PseudoLabel`.
        regions: see :class:`PseudoLabel`.

    Raises:
        ValueError: for a number out of range.
    """

    teachers: int = 3
    confidence: float = 0.9
    teacher: dict[str, Any] = field(default_factory=dict)
    paste: Paste = 'none'
    regions: Regions = 'smooth'

    def __post_init__(self) -> None:
        check_settings(self, confidence=SHARE)


_OF_IMAGES = {config.kind: config for config in (SceneClassifierConfig, SegmenterConfig, ChangeDetectorConfig)}
"""Settings of the networks of images, by kind."""


@trains('pseudo_label', PseudoLabelConfig, quick={'teachers': 2, 'teacher': {'steps': 100}})
@learning()
def train_pseudo_label(data: TrainingData, config: PseudoLabelConfig, run: Run) -> PseudoLabel:
    """Train the teachers and label the unlabelled samples of the training area.

    Raises:
        ValueError: if there are none, masks could not say which pixels do not count, or nothing is agreed upon.
    """
    spec = data.spec
    if len(data.unlabelled) == 0:
        raise ValueError(
            'pseudo_label: the training part has no unlabelled samples to be labelled; use a split that leaves some, '
            'such as a PatchSplitter with max_train and max_unlabelled'
        )
    if len(data.x) == 0:
        raise ValueError('pseudo_label: labelled samples are needed to train the teachers, found none')
    if data.unlabelled.shape[1:] != data.x.shape[1:]:
        raise ValueError(
            f'pseudo_label: unlabelled samples {("M", *data.x.shape[1:])} as the labelled ones are expected, found '
            f'{tuple(data.unlabelled.shape)}'
        )
    if data.y.ndim > 1 and spec.ignore_index is None:
        raise ValueError('pseudo_label: the spec has no ignore_index for pixels that teachers disagree on; give it one')
    made: Any = ClassifierConfig
    train: Any = train_nn1d
    usual: dict[str, Any] = {}
    if spec.kind in _OF_IMAGES:
        val = HeldSamples(data.val_x.cpu(), data.val_y.cpu(), spec)
        made, usual, train = _OF_IMAGES[spec.kind], {'augment': 'flips'}, partial(train_images, val=val)
    settings = made(**checked_arguments(made, {**usual, **config.teacher}, 'pseudo_label: teacher'))
    labelled = HeldSamples(data.x.cpu(), data.y.cpu(), spec)
    seeds = with_progress([run.seed + k for k in range(config.teachers)], run.progress, desc='teachers', unit='network')
    teachers = [train(labelled, settings, seed, run.device) for seed in seeds]
    label, counts = agreed(teachers, data.unlabelled, config.confidence)
    images = counts.flatten(1).any(dim=1) if counts.ndim > 1 else counts
    if not images.any():
        raise ValueError(
            f'pseudo_label: {config.teachers} teachers agree on no label of {len(counts)} unlabelled samples with a '
            f'confidence of {config.confidence:g}; lower it, or train them longer'
        )
    if spec.kind == 'change':
        label, counts = label[:, None], counts[:, None]
    if counts.ndim > 1:
        label = label.where(counts, int(spec.ignore_index or 0))
    generator = PseudoLabel(spec, config.paste, config.regions).to(run.device)
    generator.keep(data.unlabelled.cpu()[images], label[images], data)
    of = {'teachers': config.teachers, 'confidence': config.confidence, 'teacher': config.teacher}
    generator.adopt(data, run.seed, {**of, 'agreed': round(float(counts.float().mean()), 4)})
    return generator.eval()


@torch.no_grad()
def agreed(teachers: Sequence[nn.Module], image: Tensor, confidence: float, chunk: int = 64) -> tuple[Tensor, Tensor]:
    """Labels of several networks, and where all agree and are confident in the mean.

    Args:
        teachers: networks from images to logits (n, K, ...), in evaluation mode.
        image: (M, ...) as they take them.
        confidence: least mean probability.
        chunk: images at a time.

    Returns:
        (M, ...) int64 labels and (M, ...) bool, on the CPU.
    """
    device = next(teachers[0].parameters()).device
    found: list[tuple[Tensor, Tensor]] = []
    for part in image.split(chunk):
        each = torch.stack([teacher(part.to(device)).softmax(dim=1) for teacher in teachers])
        probability, label = each.mean(dim=0).max(dim=1)
        alike = (each.argmax(dim=2) == label).all(dim=0)
        found.append((label.cpu(), (alike & (probability >= confidence)).cpu()))
    labels, counts = zip(*found, strict=True)
    return torch.cat(labels), torch.cat(counts)


__all__ = ['PseudoLabel', 'PseudoLabelConfig', 'agreed', 'train_pseudo_label']
