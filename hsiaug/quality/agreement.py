"""Whether label and image match, judged by cross-fitted classifiers of real samples."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, log_softmax, one_hot

from ..datasets import IGNORE
from ..datasets.real.held import HeldSamples
from ..functional.dates import as_pictures
from ..metrics.patches import class_pixels
from ..samples import SampleSpec
from ..settings import POSITIVE, check_value
from ..systems import TrainingData
from ..tasks import task_of
from ..trainers import ChangeDetectorConfig, ClassifierConfig, SegmenterConfig, train_nn1d
from .gate import Batch, Gate, rows_at_once
from .regions import deal_folds

Config = ClassifierConfig | SegmenterConfig | ChangeDetectorConfig
Classifier = Callable[[Tensor], Tensor]
"""From images in the dataset's unit to logits (n, K, ...) in the shape of the targets."""

SPECTRAL = ClassifierConfig(hidden=128, layers=2, steps=300, label_smoothing=0.1)
"""A network on single spectra: it sees no neighbours, so it cannot learn the shapes of masks."""

MARGIN = 1.25
_PER_CLASS = 1000  # training pixels per class for a network of spectra
_UNKNOWN = -1
_TINY = 1e-6


class AgreementGate(Gate):
    """Rejects labels and masks that do not match their image. The score is a logarithmic mean loss.

    It is the log mean loss of a sample's labels, each in units of its class's mean loss on held-out real samples. The
    networks are trained on the real training part by cross-fitting over regions: the loss of a real label comes from
    the network that has not seen its region; the loss of a synthetic label is the mean over the networks that have
    learnt its class.

    In accepted samples with masks, pixels whose loss exceeds ``margin`` (1.25) times their class's mean real loss are
    set to be ignored (:meth:`clean`), as in FreeMask (Yang et al., NeurIPS 2023), if the spec has an ignore index.

    Args:
        false_alarm: see :class:`~hsiaug.quality.gate.Gate`.
        config: settings of the networks: a classifier of single spectra, for pairs of dates of both dates together; or,
            for masks, a segmentation or change-detection network.
        margin: threshold of :meth:`clean`, in mean real losses.

    Attributes:
        class_loss: (K,) mean loss on held-out real samples; for a class without any, that of all classes.
        sample_loss: (N,) difficulty of each training sample: the score without the logarithm.

    Raises:
        ValueError: if ``margin`` is not positive, or the network does not suit the samples.
    """

    name = 'agreement'

    def __init__(self, false_alarm: float = 0.05, config: Config = SPECTRAL, margin: float = MARGIN) -> None:
        super().__init__(false_alarm)
        check_value('AgreementGate', 'margin', margin, float, POSITIVE)
        self.config, self.margin = config, margin
        self.classifiers: list[tuple[Classifier, Tensor]] = []  # with (K,) bool: the classes that each has learnt
        self.class_loss, self.sample_loss = torch.empty(0), torch.empty(0)

    def _fit(self, data: TrainingData, regions: Tensor, seed: int) -> Tensor:
        spec, target = data.spec, data.y
        _require_suitable(self.config, spec)
        counts = spec.counted(target)
        losses = torch.full(target.shape, torch.nan)
        self.classifiers = []
        for fold, held in enumerate(deal_folds(regions, seed)):
            known = target.where(counts & ~held, _UNKNOWN)
            if not (known >= 0).any():
                continue
            classifier = _train(data.x, known, spec, self.config, seed + fold)
            rows = held.flatten(1).any(dim=1) if held.ndim > 1 else held
            judged = held & counts
            learnt = torch.isin(torch.arange(spec.num_classes), known.unique())
            judged &= learnt[target.where(counts, 0)]  # a network cannot judge a class that it has never seen
            found = _losses(classifier, data.x[rows], one_hot_targets(target[rows], spec))
            losses[rows] = losses[rows].where(~judged[rows], found)
            self.classifiers.append((classifier, learnt))
        if not losses.isfinite().any():
            raise ValueError('AgreementGate: no training label has a network trained without it; give more regions')
        means = torch.stack([losses[(target == k) & counts].nanmean() for k in range(spec.num_classes)])
        self.class_loss = means.where(means.isfinite(), losses.nanmean()).clamp_min(_TINY)
        ratio = losses / self.class_loss[target.where(counts, 0)]
        self.sample_loss = ratio.reshape(len(ratio), -1).nanmean(dim=1)
        return self.sample_loss.clamp_min(_TINY).log()

    @torch.no_grad()
    def label_losses(self, batch: Batch) -> Tensor:
        """Loss of each label or pixel, (n,), (n, H, W) or (n, 1, H, W), in mean real losses of its class.

        NaN where a pixel does not count. A soft label's own entropy is not held against it.
        """
        spec = self.spec
        assert spec is not None
        if (target := batch.get(spec.target_key)) is None:
            raise ValueError(
                f'AgreementGate: it judges whether image and {spec.target_key} belong together, found only '
                f'{sorted(batch)}; give both, or judge by the other gates'
            )
        target, soft, image = target.cpu(), batch.get('label_prob'), batch['image'].cpu()
        step, parts = rows_at_once(spec), []
        for start in range(0, len(target), step):
            part = slice(start, start + step)
            wanted = one_hot_targets(target[part], spec) if soft is None else soft[part].cpu()
            losses = torch.stack([_losses(classifier, image[part], wanted) for classifier, _ in self.classifiers])
            knows = torch.stack([_expected(wanted, learnt.float()) > 0.99 for _, learnt in self.classifiers])
            # No network knows a class without training labels: no sample of it passes.
            loss = losses.where(knows, torch.nan).nanmean(dim=0).where(knows.any(dim=0), torch.inf)
            loss = loss.where(losses.isfinite().all(dim=0), torch.nan)
            expected = _expected(wanted, self.class_loss)
            parts.append((loss / expected).where(spec.counted(target[part]), torch.nan))
        return torch.cat(parts) if parts else torch.empty(0)

    def score(self, batch: Batch) -> Tensor:
        """(n,) log mean over the labels that count; NaN without any, or where the image is not finite."""
        losses = self.label_losses(batch).reshape(len(batch['image']), -1)
        mean = losses.nanmean(dim=1).clamp_min(_TINY).log()
        finite = batch['image'].cpu().flatten(1).isfinite().all(dim=1)
        return mean.where(finite, torch.nan)

    def noisy(self, batch: Batch) -> Tensor:
        """Pixels of masks, or labels, whose loss exceeds the margin; False where one does not count."""
        return self.label_losses(batch) > self.margin

    def clean(self, batch: Batch) -> dict[str, Tensor]:
        """The batch with noisy pixels of its masks ignored."""
        if 'mask' not in batch or self.spec is None or self.spec.ignore_index is None or not len(batch['mask']):
            return dict(batch)
        noisy = self.noisy(batch).to(batch['mask'].device)
        return {**batch, 'mask': batch['mask'].masked_fill(noisy, self.spec.ignore_index)}


def _expected(wanted: Tensor, of_class: Tensor) -> Tensor:
    """Mean of (K,) values under (n, K, ...) probabilities, in the targets' shape."""
    return torch.einsum('nk...,k->n...', wanted, of_class)


def one_hot_targets(target: Tensor, spec: SampleSpec) -> Tensor:
    """(n, K, ...) float32 of (n, ...) classes; anything else becomes class 0, for the caller to leave out."""
    known = (target >= 0) & (target < spec.num_classes)
    return one_hot(target.where(known, 0), spec.num_classes).movedim(-1, 1).float()


def _losses(classifier: Classifier, image: Tensor, wanted: Tensor) -> Tensor:
    """Kullback-Leibler divergence of the prediction from (n, K, ...) wanted probabilities, in the targets' shape."""
    with torch.no_grad():
        parts = [classifier(some) for some in image.split(256)]
    guess = log_softmax(torch.cat(parts).float().cpu(), dim=1).reshape(wanted.shape)
    entropy = torch.special.entr(wanted).sum(dim=1)
    return cross_entropy(guess, wanted, reduction='none') - entropy


# --- the networks -----------------------------------------------------------------------------------------------------


def _train(image: Tensor, target: Tensor, spec: SampleSpec, config: Config, seed: int) -> Classifier:
    """Train a network on (N, ...) real images and classes, which are negative where a label is unknown."""
    if isinstance(config, ClassifierConfig):
        return _train_spectral(image, target, spec, config, seed)
    some = (target >= 0).flatten(1).any(dim=1) if target.ndim > 1 else target >= 0
    image, target = image[some], target[some]
    ignore = IGNORE if spec.ignore_index is None else spec.ignore_index
    ignoring, mask, task = replace(spec, ignore_index=ignore), target.where(target >= 0, ignore), task_of(spec)
    trained: Classifier = task.train(task.downstream(config=config), task.hold(image, mask, ignoring), seed)  # type: ignore[call-arg]
    return trained


def _require_suitable(config: Config, spec: SampleSpec) -> None:
    if spec.kind == 'scene':
        raise ValueError(
            "AgreementGate: it judges pixels, and cannot be used for samples of kind 'scene', of one label"
        )
    if not isinstance(config, ClassifierConfig | task_of(spec).config):
        raise ValueError(
            f'AgreementGate: a {type(config).__name__} cannot be used for samples of kind {spec.kind!r}; spectra, '
            'patches with masks and pairs of dates take a ClassifierConfig, such patches a SegmenterConfig, pairs of '
            'dates a ChangeDetectorConfig'
        )


def _train_spectral(image: Tensor, target: Tensor, spec: SampleSpec, config: ClassifierConfig, seed: int) -> Classifier:
    """A network on the spectra of single pixels; two dates are concatenated."""
    flat, mask = as_pictures(image), target.reshape(len(target), *image.shape[-2:]) if image.ndim > 2 else target
    mask = mask[:, None, None] if image.ndim == 2 else mask
    spectra, labels = class_pixels((flat, mask), spec.num_classes, None, _PER_CLASS, seed)
    bands = replace(spec, kind='spectrum', bands=flat.shape[1], size=None, wavelengths=None)
    network = train_nn1d(HeldSamples(torch.from_numpy(spectra), torch.from_numpy(labels), bands), config, seed)  # type: ignore[arg-type]
    return _OfPixels(network)


@dataclass(frozen=True)
class _OfPixels:
    """A network on the spectra of single pixels, for images; picklable, for spawned workers."""

    network: Classifier

    def __call__(self, images: Tensor) -> Tensor:
        return self.network(as_pictures(images).movedim(1, -1)).movedim(-1, 1)
