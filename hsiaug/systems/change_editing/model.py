"""Change triplets from single dates: an edited mask, the edited area inpainted, and a drift elsewhere.

After Zheng et al., "Changen2: Multi-Temporal Remote Sensing Generative Change Foundation Model", TPAMI 2024,
https://arxiv.org/abs/2406.17998, and Benidir et al., "The Change You Want To Detect: Semantic Change Detection in Earth
Observation with Hybrid Data Generation" (HySCDG), CVPR 2025, https://arxiv.org/abs/2503.15683, with a two-stream
diffusion model as the painter.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.functional import normalize

from ...functional.dates import CHANGED, flat_mask
from ...functional.pasting import pairs_that_hold
from ...functional.plain import plain_torch
from ...functional.scaling import band_scale
from ...metrics.masks import cooccurrence
from ...metrics.patches import class_moments
from ...samples import SampleSpec
from ...scenes.change import CHANGE_CLASSES, IGNORED
from ...settings import SHARE, check_value
from ...streams import drawn_seed, stream
from ..base import Generator, TrainingData, register
from ..two_stream_diffusion.model import CHUNK, TwoStreamDiffusion, require_shares
from .drift import DateDrift, soft
from .edits import edit_masks
from .inpainting import inpaint

FirstDate = Literal['real', 'synthetic']
ChangeShare = float | Sequence[float] | None

DEFAULT_SHARES = (0.0, 0.2)
"""Range of the share of changed pixels where no change mask says what is usual."""
_LEVELS = 256


@register('change_editing')
class ChangeEditing(Generator):
    """Pairs of dates with change masks, made from single dates: no labelled pair of dates is needed.

    The first date is an image with a land-cover mask. For the second date, regions of the mask are given other classes
    (:func:`~.edits.edit_masks`), a painter repaints them (:func:`~.inpainting.inpaint`), and its pixels replace those
    of the image, with borders as soft as a sensor's. Then the whole second date drifts in season, light and noise
    (:class:`~.drift.DateDrift`). The change mask marks pixels with a new class; pixels without a class never change and
    are ignored in it.

    Given a label, a sample is drawn with probability proportional to the share of that class in it, as in classic
    augmentation; labels drawn from the frequencies of ``change_share`` follow it evenly. To choose the shares, use
    :meth:`sample_shares`.

    Args:
        spec: spec of the triplets, of kind ``'change'``.
        land_cover: spec of the painter's image-mask pairs, as a dictionary.
        painter: settings of the painter.
        first_date: ``'real'`` for images of the training data with their masks, which are stored in the generator; or
            ``'synthetic'`` for the painter's own, which are as smooth as its autoencoder makes them.
        change_share: share of changed pixels among valid ones, a number, or a range from which it is drawn uniformly;
            by default, that of random patches of the training masks or, without such masks, 0 to 0.2.

    Raises:
        ValueError: if specs or settings are invalid.
    """

    fitted = ('image', 'mask', 'observed_shares')
    unlabelled = ('alike', 'pairs')

    image: Tensor  # (N, C, H, W) first dates, none if they are synthetic
    mask: Tensor  # (N, H, W) their land cover
    observed_shares: Tensor  # (N,) of changed pixels in training masks, none without such masks
    centres: Tensor  # (K, C) mean spectra of the land cover
    shape_spread: Tensor  # (C,) standard deviation of the shape of spectra
    transitions: Tensor  # (K, K) weights of changes

    def __init__(
        self,
        spec: SampleSpec,
        land_cover: Mapping[str, Any],
        painter: Mapping[str, Any],
        first_date: FirstDate = 'real',
        change_share: ChangeShare = None,
    ) -> None:
        if spec.kind != 'change' or spec.num_classes != 2:
            raise ValueError(
                f"ChangeEditing: makes samples of kind 'change' with two classes, found {spec.kind!r} with "
                f'{spec.classes}'
            )
        land_cover, painter = json.loads(json.dumps([dict(land_cover), dict(painter)]))  # as a config file has them
        super().__init__(spec, land_cover=land_cover, painter=painter, first_date=first_date, change_share=None)
        self.first_date = first_date
        self.painter = TwoStreamDiffusion(SampleSpec.from_dict(land_cover), **painter)
        classes = self.painter.spec.num_classes
        self.drift = DateDrift(spec.bands, classes)
        self.register_buffer('centres', torch.zeros(classes, spec.bands))
        self.register_buffer('shape_spread', torch.ones(spec.bands))
        self.register_buffer('transitions', torch.zeros(classes, classes))
        self.set_change_share(change_share)

    @classmethod
    def of(
        cls,
        painter: TwoStreamDiffusion,
        spec: SampleSpec | None = None,
        first_date: FirstDate = 'real',
        change_share: ChangeShare = None,
    ) -> ChangeEditing:
        """A generator around a trained painter of kind ``'segmentation'``, which has yet to observe its data.

        A ``spec`` of None is the painter's with the classes and the ignore index of change masks; for the rest see the
        class.
        """
        if spec is None:
            classes = tuple(CHANGE_CLASSES.values())
            spec = replace(painter.spec, kind='change', classes=classes, ignore_index=IGNORED)
        generator = cls(spec, painter.spec.to_dict(), painter.settings, first_date, change_share)
        generator.painter = painter
        return generator.to(painter.device)

    def set_change_share(self, change_share: ChangeShare) -> None:
        """Choose the share of changed pixels, for all draws to come; see the class.

        Raises:
            ValueError: for shares outside [0, 1) or in the wrong order.
        """
        self.settings['change_share'] = share_bounds('ChangeEditing', change_share)
        mean = float(self._share_table()[:, CHANGED].mean())
        self.class_prior.copy_(torch.tensor([1 - mean, mean]))

    def _share_table(self) -> Tensor:
        """(M, 2) shares of unchanged and changed pixels that samples can have."""
        setting = self.settings['change_share']
        if setting is None and len(self.observed_shares):
            changed = self.observed_shares.cpu()
        else:
            low, high = setting or DEFAULT_SHARES
            changed = torch.linspace(low, high, _LEVELS)
        return torch.stack([1 - changed, changed], dim=1)

    # --- what is learnt of the data ---------------------------------------------------------------------------------

    @plain_torch()
    @torch.no_grad()
    def observe(self, pairs: TrainingData, data: TrainingData, drift: float = 0.3, seed: int = 0) -> None:
        """Take first dates, transitions and drift from training data.

        Transitions are those of labelled changes, by the class that the second date looks like; for classes that none
        of them tells of, those of classes that lie side by side.

        Args:
            pairs: image-mask pairs of single dates, as the painter was trained on.
            data: what they come from: itself of kind ``'segmentation'``, whose ``unlabelled`` samples may be pairs of
                dates (M, 2, C, H, W) to learn the drift from; or of kind ``'change'``, whose unlabelled pairs show the
                drift, in addition to what did not change in the labelled ones.
            drift: strength of the drift where there are no pairs of dates, see :meth:`~.drift.DateDrift.assume`.
            seed: of everything random.

        Raises:
            ValueError: if nothing can change, or nothing did not.
        """
        land_cover, counted = self.painter.spec, self.painter.spec.counted(pairs.y)
        means, _ = class_moments(pairs.x, pairs.y, land_cover.num_classes, land_cover.ignore_index)
        self.centres.copy_(means.nan_to_num())
        shapes = pixel_shapes(pairs.x).flatten(0, 2)
        self.shape_spread.copy_(band_scale(shapes.mean(dim=0), shapes.std(dim=0)))
        neighbours = cooccurrence(pairs.y, land_cover.num_classes, land_cover.ignore_index)
        self.transitions.copy_(neighbours.nan_to_num().fill_diagonal_(0))
        classes = torch.where(counted, pairs.y, -1)
        labelled, dates, unchanged = data.spec.kind == 'change', data.unlabelled[:0], classes[:0]
        if labelled:
            change = flat_mask(data.y)
            dates, unchanged = data.x, torch.where(change == 0, classes, -1)
        more = data.unlabelled if data.unlabelled.ndim == 5 else data.unlabelled[:0]
        if len(more):  # of which it is not known what changed: what fits worst counts as changed
            dates = torch.cat([dates, more])
            unchanged = torch.cat([unchanged, self.classify(more[:, 0]).to(unchanged)])
        if len(dates):
            self.drift.cpu().fit(dates[:, 0], dates[:, 1], unchanged, trimmed=len(more) > 0, seed=seed)
        else:
            self.drift.cpu().assume(pairs.x, classes, drift, seed)
        if labelled:
            self._count_transitions(data.x[:, 1], torch.where(change == CHANGED, classes, -1))
            pixels = counted.sum(dim=(1, 2))
            shares = ((change == CHANGED) & counted).sum(dim=(1, 2)) / pixels.clamp_min(1)
            self.observed_shares = shares[pixels > 0].to(self.device)
        self.drift.to(self.device)
        if not (self.transitions > 0).any():
            raise ValueError(
                'ChangeEditing: no two classes lie side by side in any training mask, so none can become another; '
                'give masks of two classes or more'
            )
        if self.first_date == 'real':
            held = counted.flatten(1).any(dim=1)
            self.image = pairs.x[held].contiguous().to(self.device)  # as it comes back from a file, to the last bit
            self.mask = pairs.y[held].to(self.device)
        self.set_change_share(self.settings['change_share'])

    def _count_transitions(self, second: Tensor, before: Tensor) -> None:
        """Add labelled changes to the transitions, by the class (N, H, W) before, -1 where nothing changed."""
        drifted = self.drift.gain * self.centres.cpu() + self.drift.offset
        after, changed = self.classify(second, drifted), before >= 0
        pairs = before[changed] * len(drifted) + after[changed]
        counts = torch.bincount(pairs, minlength=len(drifted) ** 2).reshape(len(drifted), -1)
        self.transitions += counts.fill_diagonal_(0).to(self.transitions)

    def classify(self, image: Tensor, centres: Tensor | None = None) -> Tensor:
        """(n, H, W) class whose mean spectrum has the shape that comes nearest to that of each pixel of (n, C, H, W).

        Images are in the dataset's unit, and softened first; ``centres`` (K, C) are those of the first dates if None.
        """
        centres = self.centres if centres is None else centres
        scale = self.shape_spread.to(image)
        targets = spectral_shape(centres.to(image)) / scale
        return torch.cat([
            torch.cdist((pixel_shapes(part) / scale).flatten(1, 2), targets).argmin(dim=2).view(-1, *part.shape[2:])
            for part in image.split(CHUNK)
        ])  # fmt: skip

    # --- samples ----------------------------------------------------------------------------------------------------

    @plain_torch()
    @torch.no_grad()
    def sample_shares(self, n: int, shares: Tensor | Sequence[float], seed: int) -> dict[str, Tensor]:
        """Draw n samples with given shares (2,) or (n, 2) of unchanged and changed pixels, such as (0.8, 0.2).

        Raises:
            ValueError: if the shares are none, or n is below 1.
        """
        return self._draw_shares(require_shares(shares, n, 2)[:, CHANGED], stream(seed))

    def _draw(self, labels: Tensor, rng: torch.Generator) -> dict[str, Tensor]:
        table = self._share_table()
        return self._draw_shares(table[pairs_that_hold(labels, table, rng), CHANGED], rng)

    def _draw_shares(self, shares: Tensor, rng: torch.Generator) -> dict[str, Tensor]:
        """Triplets with (n,) shares of changed pixels among those that count."""
        self.require_trained((self.transitions > 0).any())
        if self.first_date == 'synthetic':
            batch = self.painter.sample(len(shares), seed=drawn_seed(rng))
            image, mask = batch['image'], batch['mask']
        else:
            rows = torch.randint(len(self.image), (len(shares),), generator=rng).to(self.device)
            image, mask = self.image[rows], self.mask[rows]
        counted = self.painter.spec.counted(mask)
        wanted = (shares * counted.sum(dim=(1, 2)).cpu()).round().long()
        edited = edit_masks(torch.where(counted, mask, -1), wanted, self.transitions, rng).to(mask)
        edited = torch.where(counted, edited, mask)
        changed = edited != mask
        second = image.clone()
        rows = changed.flatten(1).any(dim=1)
        if rows.any():
            painted = inpaint(self.painter, image[rows], edited[rows], changed[rows], rng)
            blend = soft(changed[rows, None].to(image))
            # what changed shows the new class more than the old one, however thin it is
            blend = torch.where(changed[rows, None], blend.clamp_min(0.5), blend)
            second[rows] = torch.lerp(image[rows], painted, blend)
        second = self.spec.clamped(self.drift(second, torch.where(counted, edited, self.classify(second)), rng))
        change = changed.long()
        if self.spec.ignore_index is not None:
            change = torch.where(counted, change, self.spec.ignore_index)
        return {'image': torch.stack([image, second], dim=1), 'mask': change[:, None]}


def share_bounds(who: str, change_share: ChangeShare) -> list[float] | None:
    """Lowest and highest share of changed pixels, as JSON has them, of a number or a range; None if None is given."""
    setting = check_value(who, 'change_share', change_share, ChangeShare, SHARE)
    if setting is None:
        return None
    bounds = [float(bound) for bound in ((setting, setting) if isinstance(setting, int | float) else setting)]
    if len(bounds) != 2 or bounds[0] > bounds[1]:
        raise ValueError(f'{who}: change_share must be a number, or two in ascending order, found {change_share}')
    return bounds


def pixel_shapes(image: Tensor) -> Tensor:
    """(n, H, W, C) shape of the softened spectra: what land cover shows in whatever light."""
    return torch.cat([spectral_shape(soft(part)).movedim(1, -1) for part in image.split(CHUNK)])


def spectral_shape(spectra: Tensor) -> Tensor:
    """Spectra (n, C, ...) over their norm; of a single band, which has no shape, as they are."""
    return spectra if spectra.shape[1] == 1 else normalize(spectra)
