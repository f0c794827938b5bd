"""Training of change editing: land cover where none is known, the painter, and the drift between dates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from scipy.ndimage import gaussian_filter
from sklearn.cluster import KMeans

from ...engine import Run
from ...engine.data import require_finite_samples
from ...functional.dates import flat_mask
from ...functional.pasting import pasted_where
from ...functional.plain import plain_torch
from ...functional.scaling import BandScaler
from ...settings import NOT_NEGATIVE, SHARE, Range, check_settings, checked_arguments
from ...streams import shuffled, stream
from ..base import TrainingData
from ..training import trains
from ..two_stream_diffusion import TwoStreamConfig, TwoStreamDiffusion, train_two_stream
from .drift import SMALLEST
from .model import ChangeEditing, ChangeShare, FirstDate, pixel_shapes, share_bounds

CLUSTERED = 20_000
"""Pixels, drawn at random, that clusters are found in."""


@dataclass(frozen=True)
class ChangeEditingConfig:
    """Training settings.

    Args:
        first_date, change_share: see :class:`~hsiaug.systems.change_editing.ChangeEditing`.
        clusters: number of land-cover classes for pairs of dates, which have no land-cover masks.
        composites: number of additional training pairs of the painter per pair, with regions of other pairs pasted in.
            Without them, it has never seen masks like edited ones, and hardly follows them.
        drift: strength of the drift if no pair of dates is known, see
            :meth:`~hsiaug.systems.change_editing.drift.DateDrift.assume`.
        painter: settings of the painter's training, or a dictionary of them.

    Raises:
        ValueError: if a setting is out of its range.
    """

    first_date: FirstDate = 'real'
    change_share: ChangeShare = None
    clusters: int = 6
    composites: int = 3
    drift: float = 0.3
    painter: TwoStreamConfig = field(default_factory=TwoStreamConfig)

    def __post_init__(self) -> None:
        if isinstance(self.painter, Mapping):  # where JSON or YAML wrote it
            where = f'ChangeEditingConfig: painter cannot be {dict(self.painter)}'
            settings = checked_arguments(TwoStreamConfig, self.painter, where)
            object.__setattr__(self, 'painter', TwoStreamConfig(**settings))
        check_settings(self, clusters=Range(2), composites=NOT_NEGATIVE, drift=Range(0, 1), change_share=SHARE)
        share_bounds('ChangeEditingConfig', self.change_share)
        if self.painter.single_stream:
            raise ValueError(
                'ChangeEditingConfig: the painter needs two streams, since it is given the mask by its code; leave '
                'single_stream out'
            )


@trains('change_editing', ChangeEditingConfig, {'painter': {'vae_iterations': 250, 'diffusion_iterations': 500}})
@plain_torch()
def train_change_editing(
    data: TrainingData,
    config: ChangeEditingConfig | None = None,
    run: Run | None = None,
    painter: TwoStreamDiffusion | None = None,
) -> ChangeEditing:
    """Train change editing.

    Args:
        data: training part of a split. Of kind ``'segmentation'``: single dates with land-cover masks, and optionally
            ``unlabelled`` pairs of dates (M, 2, C, H, W) that show the drift, or single dates (M, C, H, W) to train the
            painter's image autoencoder. Of kind ``'change'``: clusters of spectra serve as land cover of the first
            dates, and unchanged pixels, and ``unlabelled`` pairs if there are any, show the drift.
        config: settings; the default ones if None.
        run: seed, device, the painter's checkpoints, progress; see :class:`~hsiaug.engine.Run`.
        painter: a trained model of the same image-mask pairs, used unchanged.

    Raises:
        ValueError: if the data cannot be used, or the painter was trained on other data.
    """
    config, run = config or ChangeEditingConfig(), run or Run()
    seed = run.seed
    pairs = single_dates(data, config.clusters, seed)
    if painter is None:
        shown = with_composites(pairs, config.composites, seed)
        if shown.unlabelled.ndim == 5:  # pairs, which are for the drift
            shown = replace(shown, unlabelled=shown.x[:0])
        painter = train_two_stream(shown, config.painter, run)
    else:
        _require_same_source(painter, data)
    spec = data.spec if data.spec.kind == 'change' else None
    with torch.random.fork_rng(devices=[]):  # which draws weights before it takes the painter's
        generator = ChangeEditing.of(painter, spec, config.first_date, config.change_share)
    generator.observe(pairs, data, config.drift, seed)
    generator.adopt(data, seed, config)
    generator.set_change_share(config.change_share)  # the frequencies are those of triplets, not of the data
    return generator.eval()


def single_dates(data: TrainingData, clusters: int, seed: int = 0) -> TrainingData:
    """The image-mask pairs that change editing starts from.

    Data of kind ``'segmentation'`` are returned as they are; of those of kind ``'change'`` the first dates are taken,
    with so many clusters of the shape of their softened spectra as classes.
    """
    spec = data.spec
    if spec.kind not in ('segmentation', 'change'):
        raise ValueError(f"change editing learns data of kind 'segmentation' or 'change', found {spec.kind!r}")
    if min(data.x.shape[-2:]) < SMALLEST:
        raise ValueError(
            f'images of {data.x.shape[-2]} x {data.x.shape[-1]} pixels are too small to tell texture from light; give '
            f'images of at least {SMALLEST} x {SMALLEST}'
        )
    masked = spec.kind == 'segmentation'
    expected = (2, *data.x.shape[1:]) if masked else data.x.shape[1:]
    dates = data.unlabelled.ndim == 5 or not masked
    if dates and len(data.unlabelled) and data.unlabelled.shape[1:] != expected:
        raise ValueError(
            f'unlabelled pairs of dates must be (M, {", ".join(map(str, expected))}) as the labelled '
            f'{"images" if masked else "ones"} are, found {tuple(data.unlabelled.shape)}'
        )
    require_finite_samples(data.x)
    require_finite_samples(data.unlabelled, 'unlabelled images')
    if masked:
        return data
    image, mask = data.x[:, 0], flat_mask(data.y)
    counted = spec.counted(mask)
    shapes = pixel_shapes(image)
    pixels = shapes[counted]
    drawn = shuffled(len(pixels), seed)[:CLUSTERED]
    if len(drawn) < clusters:
        raise ValueError(f'{len(drawn)} pixels count in the change masks, too few for {clusters} clusters')
    scaler = BandScaler().fit(pixels[drawn].numpy())
    some = scaler.transform(pixels[drawn].numpy())
    if (distinct := len(np.unique(some.round(4), axis=0))) < clusters:
        raise ValueError(
            f'the first dates show {distinct} different spectra, too few for {clusters} clusters of land cover; lower '
            'clusters, which must be 2 at least, or give other images'
        )
    found = KMeans(clusters, n_init=3, random_state=seed % 2**32).fit(some)
    classes = torch.from_numpy(found.predict(scaler.transform(shapes.flatten(0, 2).numpy()))).long().reshape(mask.shape)
    names = tuple(f'cluster {k + 1}' for k in range(clusters))
    # clusters may take the value that a change mask ignores: any but theirs will do
    ignored = None if spec.ignore_index is None else max(spec.ignore_index, clusters)
    masks = classes if ignored is None else torch.where(counted, classes, ignored)
    single = replace(spec, kind='segmentation', classes=names, ignore_index=ignored)
    return replace(data, spec=single, x=image, y=masks, unlabelled=image[:0], val_x=image[:0], val_y=masks[:0])


def with_composites(pairs: TrainingData, rounds: int, seed: int = 0) -> TrainingData:
    """Image-mask pairs, followed by ``rounds`` times as many with regions of another pair pasted in, mask and all.

    The regions are where a smooth random field is high: a tenth to a half of a patch.
    """
    rng, x, y = stream(seed), [pairs.x], [pairs.y]
    n, *size = pairs.y.shape
    for _ in range(rounds):
        other = torch.randperm(n, generator=rng)
        noise = torch.randn(pairs.y.shape, generator=rng).numpy()
        field = torch.from_numpy(gaussian_filter(noise, (0, min(size) / 5, min(size) / 5), mode='wrap'))
        levels = 0.5 + 0.4 * torch.rand(n, generator=rng)
        limits = torch.stack([one.quantile(level) for one, level in zip(field, levels, strict=True)])
        image, mask = pasted_where(field > limits[:, None, None], (pairs.x, pairs.y), (pairs.x[other], pairs.y[other]))
        x.append(image)
        y.append(mask)
    return replace(pairs, x=torch.cat(x), y=torch.cat(y))


def _require_same_source(painter: TwoStreamDiffusion, data: TrainingData) -> None:
    """Check that a painter was trained on these image-mask pairs."""
    if data.spec.kind != 'segmentation' or painter.spec != data.spec:
        raise ValueError(
            'a trained painter is taken for the image-mask pairs it was trained on only: its spec is '
            f"{painter.spec}, the data's {data.spec}"
        )
    splits = [getattr(source.provenance, 'split', None) for source in (painter, data)]
    if splits[0] != splits[1]:
        raise ValueError(
            f'the painter was trained on split {splits[0]}, the data are of split {splits[1]}: it may have seen pixels '
            'that these must not; train it on the same split'
        )
