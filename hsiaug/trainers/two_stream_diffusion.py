"""Training of the two-stream diffusion model (SpecDM, 2025) in two stages: autoencoders, then the denoiser."""

from __future__ import annotations

import dataclasses
import json
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import torch

from ..generators.base import TrainingData
from ..generators.dates import flat_mask
from ..generators.two_stream_diffusion import Prediction, Sampler, TwoStreamDiffusion
from ..losses.reconstruction import MaskLoss
from .checkpoint import resumable
from .latent_stages import AutoencoderStage, DiffusionStage, Stage
from .stage_runner import Watch, run

CHECKPOINT_FILE = 'training.safetensors'
FEW_PATCHES = 16
ARCHITECTURE = (
    'single_stream',
    'downsampling',
    'image_latents',
    'mask_latents',
    'vae_channels',
    'vae_layers',
    'vae_attention',
    'unet_channels',
    'unet_layers',
    'unet_attention',
    'prediction_type',
    'class_conditional',
    'guidance_scale',
    'sampler',
    'sampling_steps',
    'ignored',
)


@dataclass(frozen=True)
class TwoStreamConfig:
    """Setting of a training. The defaults suit some hundred patches of 32 to 64 pixels and minutes on a CPU.

    What the generator is made of is described at
    :class:`~hsiaug.generators.two_stream_diffusion.TwoStreamDiffusion`.

    Args:
        single_stream: see the generator; :meth:`plain` is the text's baseline as a whole.
        downsampling: see the generator.
        image_latents: see the generator.
        mask_latents: see the generator.
        vae_channels: see the generator.
        vae_layers: see the generator.
        vae_attention: see the generator.
        unet_channels: see the generator.
        unet_layers: see the generator.
        unet_attention: see the generator.
        prediction_type: see the generator.
        class_conditional: see the generator.
        guidance_scale: see the generator.
        sampler: see the generator.
        sampling_steps: see the generator.
        ignored: see the generator.
        sad_weight: λ of the spectral angle in the image's loss.
        kl_weight: weight of the KL term, which is summed over a code and divided by the number of pixels.
        mask_loss: ``'cross_entropy'``, or ``'l1'`` as latent diffusion has it for any channel.
        min_snr_gamma: γ of Min-SNR weighting (Hang et al. 2023), None for none.
        ema_decay: decay of the average of the denoiser's weights, reached after a warm-up; 0 keeps the last weights.
        condition_dropout: share of training samples without condition, for guidance.
        augment: train on all orientations of the patches, mask and image alike.
        swap_dates: of pairs of dates, train on both orders, each date in the light and season of its place. No label
            changes by it; off, since the order of the dates is information too.
        cache_latents: encode each patch and orientation once before the second stage; needs 8·N·2·L·h·w·4 bytes,
            twice that with ``swap_dates``. Without it each batch is encoded, in one orientation.
        vae_iterations: steps of the first stage.
        diffusion_iterations: steps of the second stage.
        vae_batch_size: patches per step of the first stage, which gains more from steps than from large batches.
        batch_size: patches per step of the second stage.
        vae_lr: learning rate of the autoencoders.
        diffusion_lr: learning rate of the denoiser.
        lr_decay: let both learning rates fall to 0 along a cosine.
        precision: ``'32'``, or ``'bf16'`` for mixed precision.

    Raises:
        ValueError: if a setting is out of its range.
    """

    single_stream: bool = False
    downsampling: int = 2
    image_latents: int = 4
    mask_latents: int = 4
    vae_channels: int = 16
    vae_layers: int = 1
    vae_attention: bool = False
    unet_channels: tuple[int, ...] = (32, 64)
    unet_layers: int = 1
    unet_attention: bool = False
    prediction_type: Prediction = 'v_prediction'
    class_conditional: bool = True
    guidance_scale: float = 1.0
    sampler: Sampler = 'dpm++'
    sampling_steps: int = 20
    ignored: bool = True
    sad_weight: float = 0.1
    kl_weight: float = 1e-6
    mask_loss: MaskLoss = 'cross_entropy'
    min_snr_gamma: float | None = 5.0
    ema_decay: float = 0.995
    condition_dropout: float = 0.1
    augment: bool = True
    swap_dates: bool = False
    cache_latents: bool = True
    vae_iterations: int = 600
    diffusion_iterations: int = 3000
    vae_batch_size: int = 2
    batch_size: int = 4
    vae_lr: float = 3e-3
    diffusion_lr: float = 2e-3
    lr_decay: bool = True
    precision: Literal['32', 'bf16'] = '32'

    def __post_init__(self) -> None:
        object.__setattr__(self, 'unet_channels', tuple(self.unet_channels))  # a list, where JSON or YAML wrote it
        for name, low in (
            ('image_latents', 1),
            ('mask_latents', 1),
            ('vae_layers', 1),
            ('unet_layers', 1),
            ('vae_iterations', 0),
            ('diffusion_iterations', 1),
            ('vae_batch_size', 1),
            ('batch_size', 1),
        ):
            if getattr(self, name) < low:
                raise ValueError(f'TwoStreamConfig: {name} must be at least {low}, found {getattr(self, name)}')
        for name, top in (('ema_decay', 1), ('condition_dropout', 1)):
            if not 0 <= getattr(self, name) < top:
                raise ValueError(f'TwoStreamConfig: {name} must be in [0, {top}), found {getattr(self, name)}')
        for name in ('sad_weight', 'kl_weight'):
            if getattr(self, name) < 0:
                raise ValueError(f'TwoStreamConfig: {name} must not be negative, found {getattr(self, name)}')
        if self.min_snr_gamma is not None and self.min_snr_gamma <= 0:
            raise ValueError(f'TwoStreamConfig: min_snr_gamma must be positive or None, found {self.min_snr_gamma}')
        for name, choices in (('mask_loss', get_args(MaskLoss)), ('precision', ('32', 'bf16'))):
            if getattr(self, name) not in choices:
                raise ValueError(f'TwoStreamConfig: unknown {name} {getattr(self, name)!r}; choose from {choices}')

    @classmethod
    def small(cls) -> TwoStreamConfig:
        """A quarter of the default's steps, under a minute on one core: for quick studies, at visibly lower quality."""
        return cls(vae_iterations=300, diffusion_iterations=800)

    @classmethod
    def paper(cls) -> TwoStreamConfig:
        """The published setting: the text, and latent diffusion's sizes where it says that it follows them.

        The learning rates and lengths are missing in our copy of the text: these are latent diffusion's rates for one
        GPU and lengths of our choice.
        """
        return cls(
            downsampling=4,
            image_latents=3,
            mask_latents=3,
            vae_channels=128,
            vae_layers=2,
            vae_attention=True,
            unet_channels=(224, 448, 672, 896),
            unet_layers=2,
            unet_attention=True,
            min_snr_gamma=None,
            prediction_type='epsilon',
            class_conditional=False,
            sampler='ddpm',
            sampling_steps=1000,
            ema_decay=0.9999,
            augment=False,
            cache_latents=False,
            vae_iterations=100_000,
            diffusion_iterations=200_000,
            vae_batch_size=12,
            batch_size=48,
            vae_lr=5e-5,
            diffusion_lr=1e-4,
            lr_decay=False,
        )

    def plain(self) -> TwoStreamConfig:
        """The text's baseline at this size: one autoencoder of image and mask, L1 on all channels."""
        return replace(self, single_stream=True, sad_weight=0.0, mask_loss='l1')


def train_two_stream(
    data: TrainingData,
    config: TwoStreamConfig | None = None,
    seed: int = 0,
    device: str = 'cpu',
    progress: bool = False,
    folder: Path | None = None,
    checkpoint_every: int = 500,
    preview_every: int = 1000,
) -> TwoStreamDiffusion:
    """Train a two-stream diffusion model.

    Args:
        data: training part of a split, of kind ``'segmentation'`` or ``'change'``.
        config: setting; the default one if None.
        seed: of everything random; torch's global generator is left as it was.
        device: where to train.
        progress: show a progress bar per stage.
        folder: where a checkpoint is kept, from which a killed training goes on to the same end, and where pictures of
            samples appear while the denoiser learns. The checkpoint is removed when the training ends.
        checkpoint_every: steps between two checkpoints.
        preview_every: steps between two pictures.

    Returns:
        the generator, with the denoiser's averaged weights, on the device.

    Raises:
        ValueError: if the data cannot be learnt from, or the checkpoint is of another training.
        FloatingPointError: if the training diverges; the last good checkpoint stays.
    """
    config = config or TwoStreamConfig()
    data = _require_trainable(data)
    if config.swap_dates and data.spec.kind != 'change':
        raise ValueError(f"swap_dates is for pairs of dates (kind 'change'), found kind {data.spec.kind!r}")
    file = None if folder is None else Path(folder) / CHECKPOINT_FILE
    identity = _identity(data, config, seed)
    checkpoint = resumable(file, identity)
    watch = Watch(
        file,
        identity,
        checkpoint_every,
        None if folder is None else _Preview(data, Path(folder)),
        preview_every,
        progress,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        generator = TwoStreamDiffusion(data.spec, **{name: getattr(config, name) for name in ARCHITECTURE})
        generator.observe(data, seed)
        x, y = generator.normalise(data.x), flat_mask(data.y)
        if checkpoint is None or checkpoint['stage'] == 'vae':
            first = AutoencoderStage(generator, x, y, config, seed)
            if checkpoint is not None and file is not None:
                first.load(file)
            run(first, watch, device, config.precision)
        second = DiffusionStage(generator, x, y, config, seed)
        if checkpoint is not None and checkpoint['stage'] == 'diffusion' and file is not None:
            second.load(file)
        else:
            second.to(device).standardise_codes()
            if file is not None:
                second.save(file, identity)
        run(second, watch, device, config.precision)
    generator = second.result().requires_grad_(True).to(device)
    generator.adopt(data, seed, json.loads(json.dumps(dataclasses.asdict(config))))
    if file is not None:
        file.unlink(missing_ok=True)
    return generator


class _Preview:
    """Draws real and synthetic pairs while the denoiser learns."""

    def __init__(self, data: TrainingData, folder: Path) -> None:
        self.data, self.folder = data, folder

    def __call__(self, stage: Stage) -> None:
        if not isinstance(stage, DiffusionStage):
            return
        from ..datasets.preview import preview_grid

        real = {'image': self.data.x[:6], 'mask': self.data.y[:6]}
        synthetic = {key: value.cpu() for key, value in stage.result().sample(6, seed=stage.seed).items()}
        title = f'{stage.step} of {stage.steps} steps'
        preview_grid(real, synthetic, self.data.spec, suptitle=title).savefig(
            self.folder / f'samples_{stage.step}.png', dpi=100
        )


def _identity(data: TrainingData, config: TwoStreamConfig, seed: int) -> dict[str, Any]:
    """What a checkpoint must agree in. Learning rates may be lowered on the way: that is how one goes on after NaN."""
    fields = {k: v for k, v in dataclasses.asdict(config).items() if k not in ('vae_lr', 'diffusion_lr')}
    split = data.provenance.split if data.provenance else None
    return json.loads(json.dumps({**fields, 'seed': seed, 'split': split, 'patches': len(data.x)}))


def _require_trainable(data: TrainingData) -> TrainingData:
    """The data without patches that hold no class.

    Raises:
        ValueError: naming what is wrong with the data.
    """
    spec = data.spec
    if spec.kind not in ('segmentation', 'change'):
        raise ValueError(
            f"a two-stream diffusion model learns data of kind 'segmentation' or 'change', found {spec.kind!r}"
        )
    size = spec.size or ()
    image, mask = ((2, spec.bands, *size), (1, *size)) if spec.kind == 'change' else ((spec.bands, *size), size)
    if tuple(data.x.shape[1:]) != image or data.y.shape != (len(data.x), *mask):
        raise ValueError(
            f'images must be (N, {", ".join(map(str, image))}) with masks (N, {", ".join(map(str, mask))}), found '
            f'{tuple(data.x.shape)} and {tuple(data.y.shape)}'
        )
    values = data.y.unique()
    counted = (values >= 0) & (values < spec.num_classes) & (values != spec.ignore_index)
    foreign = values[~counted & (values != spec.ignore_index)].tolist()
    if foreign:
        raise ValueError(
            f'masks hold the values {foreign}, but the {spec.num_classes} classes are 0 to {spec.num_classes - 1} and '
            f'the ignore index is {spec.ignore_index}; map them to classes or to the ignore index'
        )
    bad = int((~torch.isfinite(data.x.flatten(1)).all(dim=1)).sum())
    if bad:
        raise ValueError(f'{bad} of {len(data.x)} images hold NaN or infinite values; leave these patches or bands out')
    held = set(values[counted].tolist())
    missing = [spec.classes[k] for k in range(spec.num_classes) if k not in held and k != spec.ignore_index]
    if missing:
        raise ValueError(f'no training pixel of {missing}: the model cannot learn them; leave them out of the spec')
    kept = torch.isin(data.y, values[counted]).flatten(1).any(dim=1)
    if not kept.all():
        warnings.warn(
            f'{int((~kept).sum())} of {len(kept)} training patches hold ignored pixels only and are left out',
            stacklevel=3,
        )
        data = replace(data, x=data.x[kept], y=data.y[kept])
    if len(data.x) < FEW_PATCHES:
        warnings.warn(
            f'only {len(data.x)} training patches: the samples will be copies of them; {FEW_PATCHES} at least are '
            'advisable, for instance by a smaller stride',
            stacklevel=3,
        )
    return data


__all__ = ['TwoStreamConfig', 'train_two_stream']
