"""Training of the two-stream diffusion model (SpecDM, 2025) in two stages: autoencoders, then the denoiser."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import partial

from torch import Tensor

from ...engine import Run
from ...engine.checkpoint import identity_of
from ...engine.data import Held
from ...engine.training import run_stages
from ...functional.plain import plain_torch
from ...streams import seeded
from ..base import TrainingData
from ..pictures import Pictures
from ..training import trains
from ..training_data import require_images
from .config import TwoStreamConfig
from .model import TwoStreamDiffusion
from .stages import AutoencoderStage, DiffusionStage, Stage

CHECKPOINT_FILE = 'training.safetensors'
FEW_PATCHES = 16


@trains('two_stream_diffusion', TwoStreamConfig, {'vae_iterations': 250, 'diffusion_iterations': 500}, streams=True)
@plain_torch()
def train_two_stream(
    data: TrainingData, config: TwoStreamConfig | None = None, run: Run | None = None, preview_every: int = 1000
) -> TwoStreamDiffusion:
    """Train a two-stream diffusion model.

    Args:
        data: training part of a split, of kind ``'segmentation'`` or ``'change'``, in memory or read from a dataset.
            ``unlabelled`` images, or pairs of dates, train the image autoencoder too; the normalisation comes from the
            labelled ones.
        config: settings; the defaults if None.
        run: seed, device, checkpoints and progress; the checkpoint is removed when the training ends.
        preview_every: steps between two pictures of samples.

    Returns:
        the generator, on the device, with the averaged weights of the denoiser.

    Raises:
        ValueError: if the data are unsuitable, or the checkpoint belongs to another training.
        FloatingPointError: if the training diverges; the last good checkpoint is kept.
    """
    config, run = config or TwoStreamConfig(), run or Run()
    require_images('a two-stream diffusion model', data, 'segmentation', 'change')
    if config.single_stream and (len(data.unlabelled) or data.unlabelled_source is not None):
        raise ValueError(
            'single_stream has one autoencoder of image and mask together, which images without masks cannot teach; '
            'leave unlabelled out'
        )
    if config.swap_dates and data.spec.kind != 'change':
        raise ValueError(f"swap_dates is for pairs of dates (kind 'change'), found kind {data.spec.kind!r}")
    with seeded(run.seed):
        generator = TwoStreamDiffusion(data.spec, **TwoStreamDiffusion.settings_in(config))
        data = _with_classes(data, generator.shares_in(data))
        generator.observe(data, run.seed)
        shares = generator.shares_in(data)
        samples = data.source or Held(data.x.to(run.device), data.y.to(run.device))
        images = data.unlabelled_source or Held(data.unlabelled.to(run.device), data.y[:0])
        generator.to(run.device)

        def second() -> DiffusionStage:
            stage = DiffusionStage(generator, samples, shares, config, run.seed)
            stage.preview = Pictures(data, run.folder, preview_every)
            return stage

        first = partial(AutoencoderStage, generator, samples, config, run.seed, images if len(images) else None)
        stages: dict[str, Callable[[], Stage]] = {'vae': first, 'diffusion': second}
        extra = {'unlabelled': len(images)} if len(images) else {}
        rates = ('vae_lr', 'diffusion_lr')
        identity = identity_of(config, run.seed, rates, split=data.split_name, patches=len(samples), **extra)
        last = run_stages(stages, run, CHECKPOINT_FILE, identity)
    assert isinstance(last, DiffusionStage)
    generator = last.result().requires_grad_(True).to(run.device)
    generator.adopt(data, run.seed, config)
    return generator


def _with_classes(data: TrainingData, shares: Tensor) -> TrainingData:
    """The patches in which some pixel counts, by their class shares (N, K); warns if few are left."""
    spec, kept = data.spec, shares.any(dim=1)
    held = shares.any(dim=0).tolist()
    if missing := [name for k, name in enumerate(spec.classes) if not held[k] and name not in spec.uncounted]:
        raise ValueError(f'no training pixel of {missing}: the model cannot learn them; leave them out of the spec')
    if not kept.all():
        warnings.warn(
            f'{int((~kept).sum())} of {len(kept)} training patches hold ignored pixels only and are left out',
            stacklevel=4,  # the caller, beyond the decorator
        )
        if data.source is not None:
            data = replace(data, source=data.source.only(kept.nonzero()[:, 0].numpy()))
        else:
            data = replace(data, x=data.x[kept], y=data.y[kept])
    if kept.sum() < FEW_PATCHES:
        warnings.warn(
            f'only {int(kept.sum())} training patches: the samples will be copies of them; {FEW_PATCHES} at least are '
            'advisable, for instance by a smaller stride',
            stacklevel=4,  # the caller, beyond the decorator
        )
    return data
