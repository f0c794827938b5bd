"""Fidelity of synthetic image-mask pairs: of images, of masks, and of their alignment."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace

import numpy as np
import torch
from sklearn.metrics import recall_score
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.svm import SVC
from torch import Tensor

from ..functional.scaling import BandScaler
from ..functional.spectral import spectral_angle
from ..samples import SampleSpec
from ..streams import shuffled
from .frechet import PRDC, frechet_distance, prdc
from .masks import class_indicators, class_shares, cooccurrence, mask_features, total_variation

Pair = tuple[Tensor, Tensor]
Encoder = Callable[[Tensor], Tensor]

NEIGHBOUR = 5
"""k of precision, recall, density and coverage, as Naeem et al. 2020 recommend."""
_CHUNK = 64  # patches at a time
_FIT, _SCORE = 300, 1000  # pixels of a class that the pixel classifier is trained on, and scored on


@dataclass(frozen=True)
class PatchFidelity:
    """Fidelity of synthetic pairs to real ones.

    Args:
        fid_image: Fréchet distance of the images' features.
        fid_mask: Fréchet distance of the masks' features (:func:`~hsiaug.metrics.masks.mask_features`).
        msad: spectral angle between real and synthetic class means, mean over the classes on both sides, radians.
        msad_per_class: (K,) the angles; NaN for a class that is missing on a side.
        std_ratio: synthetic over real standard deviation within a class, mean over bands, median over classes; ideally
            1. It shows spectra that are too noisy or too similar, which features of a classifier hardly do.
        precision: share of synthetic images that look real; see :class:`~hsiaug.metrics.frechet.PRDC`. It and the next
            three are NaN if a side has no more than five pairs.
        recall: share of real images that could be synthetic.
        density: precision weighted by the number of real images nearby.
        coverage: share of real images with a synthetic one nearby.
        class_share_error: total variation distance of the class shares, 0 to 1.
        cooccurrence_error: total variation distance of the classes of neighbouring pixels, 0 to 1.
        alignment: mean class recall, on the synthetic pairs, of a pixel classifier trained on real training pixels,
            divided by its recall on real test pairs: 1 if mask and image match as well as there, about
            1 / (K · recall) if they do not match at all. Copies of training pairs get that of the reference, above 1.
        count: number of synthetic pairs.
        compared: number of synthetic pairs used for feature distances, equal to that of training pairs in the
            reference.
        real_count: number of real pairs on the other side.
        dimensions: numbers of features of an image and of a mask. With no more pairs, Fréchet distances are large.
        against_train: the same comparison with training pairs as the real side, as papers report it.
        real_reference: the same comparison of training pairs with test pairs: the best that a generator can achieve.
    """

    fid_image: float
    fid_mask: float
    msad: float
    msad_per_class: tuple[float, ...]
    std_ratio: float
    precision: float
    recall: float
    density: float
    coverage: float
    class_share_error: float
    cooccurrence_error: float
    alignment: float
    count: int
    compared: int
    real_count: int
    dimensions: tuple[int, int]
    against_train: PatchFidelity | None = None
    real_reference: PatchFidelity | None = None


def patch_fidelity(
    train: Pair, test: Pair, fake: Pair, spec: SampleSpec, encoder: Encoder, seed: int = 0
) -> PatchFidelity:
    """Compare synthetic with real pairs.

    Feature distances depend on the number of samples. Synthetic and training pairs are therefore subsampled at random
    to the smaller of both numbers before they are compared with the test pairs.

    Args:
        train: (N, C, H, W) images and (N, H, W) masks that the generator was trained on.
        test: real pairs that it has not seen.
        fake: synthetic pairs.
        spec: spec of all of them, of kind ``'segmentation'``.
        encoder: maps (n, C, H, W) images to (n, d) features; should have seen the training part only.
        seed: seed of the subsampling and of the pixels for the classifier.

    Returns:
        the comparison of synthetic with test pairs, including ``against_train`` and ``real_reference``.

    Raises:
        ValueError: if a side does not match the spec, holds values that are not finite, or has fewer than two pairs.
    """
    for name, pair in (('train', train), ('test', test), ('fake', fake)):
        _check(name, pair, spec)
    compared = min(len(train[0]), len(fake[0]))
    sides = {'train': _Side.of(train, spec, encoder), 'test': _Side.of(test, spec, encoder)}
    sides['fake'] = _Side.of(fake, spec, encoder)
    few = {name: sides[name].thinned(compared, seed) for name in ('train', 'fake')}
    # An SVM on single spectra: it sees no neighbour, so that it cannot learn what masks look like.
    spectra, labels = class_pixels(train, spec.num_classes, spec.ignore_index, _FIT, seed)
    if len(np.unique(labels)) < 2:
        raise ValueError('patch_fidelity: the training pairs hold fewer than two classes')
    classifier = make_pipeline(BandScaler(), SVC(C=10.0)).fit(spectra, labels)
    alignment, reference = (_alignment(classifier, test, pair, spec, seed) for pair in (fake, train))
    return replace(
        _compare(sides['test'], few['fake'], alignment),
        against_train=_compare(sides['train'], few['fake'], alignment),
        real_reference=_compare(sides['test'], few['train'], reference),
    )


@dataclass(frozen=True)
class _Side:
    """What is compared of one set of pairs: features of each pair, statistics of all."""

    image: Tensor
    mask: Tensor
    means: Tensor
    std: Tensor
    shares: Tensor
    neighbours: Tensor
    count: int

    @classmethod
    def of(cls, pair: Pair, spec: SampleSpec, encoder: Encoder) -> _Side:
        image, mask = pair
        k, ignore = spec.num_classes, spec.ignore_index
        with torch.no_grad():
            features = torch.cat([encoder(some).cpu() for some in image.split(_CHUNK)])
        return cls(
            features,
            mask_features(mask, k, ignore),
            *class_moments(image, mask, k, ignore),
            class_shares(mask, k, ignore),
            cooccurrence(mask, k, ignore),
            len(image),
        )

    def thinned(self, count: int, seed: int) -> _Side:
        """Features of ``count`` pairs drawn at random; the statistics of all stay."""
        rows = shuffled(self.count, seed)[:count]
        return replace(self, image=self.image[rows], mask=self.mask[rows])


def _compare(real: _Side, fake: _Side, alignment: float) -> PatchFidelity:
    angles = spectral_angle(real.means, fake.means)  # NaN where a class has no mean on either side
    enough = min(len(real.image), len(fake.image)) > NEIGHBOUR
    near = prdc(real.image, fake.image, NEIGHBOUR) if enough else PRDC(*[math.nan] * 4)
    return PatchFidelity(
        fid_image=frechet_distance(real.image, fake.image),
        fid_mask=frechet_distance(real.mask, fake.mask),
        msad=float(angles.nanmean()),
        msad_per_class=tuple(angles.tolist()),
        std_ratio=float((fake.std.mean(dim=1) / real.std.mean(dim=1)).nanmedian()),
        **asdict(near),
        class_share_error=total_variation(real.shares, fake.shares),
        cooccurrence_error=total_variation(real.neighbours, fake.neighbours),
        alignment=alignment,
        count=fake.count,
        compared=len(fake.image),
        real_count=real.count,
        dimensions=(real.image.shape[1], real.mask.shape[1]),
    )


def class_moments(
    image: Tensor, mask: Tensor, num_classes: int, ignore_index: int | None = None
) -> tuple[Tensor, Tensor]:
    """Two (K, C) float64: mean and standard deviation of the spectra of each class; NaN for one without pixels.

    Of (N, C, H, W) images and (N, H, W) int64 masks.
    """
    sums = torch.zeros(2, num_classes, image.shape[1], dtype=torch.float64)
    counts = torch.zeros(num_classes, 1, dtype=torch.float64)
    # About the mean of all: sums of squares lose no digits.
    centre = image.mean(dim=(0, 2, 3), dtype=torch.float64).cpu()
    for some, masks in zip(image.cpu().split(_CHUNK), mask.cpu().split(_CHUNK), strict=True):
        indicators = class_indicators(masks, num_classes, ignore_index).double().movedim(1, 0).flatten(1)
        spectra = some.double().movedim(1, -1).flatten(0, 2) - centre
        sums += torch.stack([indicators @ spectra, indicators @ spectra.square()])
        counts += indicators.sum(dim=1, keepdim=True)
    mean, square = sums / counts
    return mean + centre, (square - mean.square()).clamp_min(0).sqrt()


# --- does the mask belong to the image? -------------------------------------------------------------------------------


def class_pixels(
    pair: Pair, num_classes: int, ignore_index: int | None, per_class: int, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """(M, C) spectra and (M,) labels of at most ``per_class`` pixels of each class, drawn at random."""
    image, mask = pair[0].cpu(), pair[1].cpu()
    rng = torch.Generator().manual_seed(seed)
    spectra, labels = [], []
    for label in range(num_classes):
        if label == ignore_index:
            continue
        where = (mask == label).nonzero()
        n, row, column = where[torch.randperm(len(where), generator=rng)[:per_class]].unbind(dim=1)
        spectra.append(image[n, :, row, column].numpy())
        labels.append(np.full(len(n), label))
    return np.concatenate(spectra), np.concatenate(labels)


def _alignment(classifier: Pipeline, test: Pair, fake: Pair, spec: SampleSpec, seed: int) -> float:
    """Mean class recall on synthetic over that on test pairs, over the classes that both hold."""
    sides = [class_pixels(pair, spec.num_classes, spec.ignore_index, _SCORE, seed) for pair in (fake, test)]
    both = np.intersect1d(sides[0][1], sides[1][1])
    if not len(both):
        return math.nan
    on_fake, on_test = (
        recall_score(labels, classifier.predict(spectra), labels=both, average='macro') for spectra, labels in sides
    )
    return float(on_fake / on_test) if on_test else math.nan


def _check(name: str, pair: Pair, spec: SampleSpec) -> None:
    image, mask = pair
    if spec.kind != 'segmentation':
        raise ValueError(f"patch_fidelity: pairs of image and mask have kind 'segmentation', found {spec.kind!r}")
    if image.ndim != 4 or image.shape[1] != spec.bands or mask.shape != (len(image), *image.shape[2:]):
        raise ValueError(
            f'patch_fidelity: {name} must be images (n, {spec.bands}, H, W) and masks (n, H, W), found '
            f'{tuple(image.shape)} and {tuple(mask.shape)}'
        )
    if len(image) < 2:
        raise ValueError(f'patch_fidelity: {name} holds {len(image)} pairs; at least 2 are needed')
    if broken := int((~image.isfinite().flatten(1).all(dim=1)).sum()):
        raise ValueError(f'patch_fidelity: {broken} of {len(image)} {name} images hold values that are not finite')
