"""Inpainting by a two-stream diffusion model: part of an image is drawn to fit a mask.

Lugmayr et al., "RePaint: Inpainting using Denoising Diffusion Probabilistic Models", CVPR 2022,
https://arxiv.org/abs/2201.09865, in latent space.
"""

from __future__ import annotations

import torch
from diffusers import RePaintScheduler
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor
from torch.nn.functional import max_pool2d

from ...models.diffusion import TRAIN_STEPS
from ..two_stream_diffusion.model import SCHEDULE, TwoStreamDiffusion

STEPS = 20
RESAMPLED = 3
"""How often each step is taken. Taken once, what is drawn follows what is known too little: given the masks of whole
patches, 86 % of the pixels drew the class that was asked for instead of 97 % (classes of the tests, well trained)."""


@torch.no_grad()
def inpaint(model: TwoStreamDiffusion, image: Tensor, mask: Tensor, where: Tensor, rng: torch.Generator) -> Tensor:
    """Draw part of images (n, C, H, W), where (n, H, W) bool says so, to fit their masks (n, H, W).

    At each step of the denoising what is known is pasted in, as noisy as that step: the code of the mask everywhere,
    that of the image but for the cells of ``where`` and their neighbours, whose codes look into it. Each step is undone
    and taken again, so that what is drawn comes to fit what is known.

    The model is a trained one of kind ``'segmentation'`` with two streams, ``rng`` is on the CPU; the decoded images
    are in the dataset's unit, on the model's device, and their known part is a reconstruction.
    """
    if model.spec.kind != 'segmentation' or len(model.streams) == 1:
        raise ValueError(
            f"inpainting needs a two-stream model of kind 'segmentation', whose masks have a code of their own, found "
            f'kind {model.spec.kind!r} with {len(model.streams)} stream(s)'
        )
    parts = [image[:0].to(model.device)]
    for chunk, noise, streams in model.noise_in_chunks(len(image), rng):
        x, y, drawn = (part[chunk].to(model.device) for part in (image, mask, where))
        codes = torch.cat([mean for mean, _ in model.posterior(model.normalise(x), y)], dim=1)
        known = (codes - model.latent_mean) / model.latent_std
        pixels = model.one_hot(y).sum(dim=(2, 3))
        shares = pixels / pixels.sum(dim=1, keepdim=True).clamp_min(1)
        code = _repaint(model, noise, known, _known_codes(drawn, model), shares, streams)
        decoded, _ = model.decode(model.unstandardised(code))
        parts.append(decoded * model.band_std + model.band_mean)
    return torch.cat(parts)


def _repaint(
    model: TwoStreamDiffusion, code: Tensor, known: Tensor, keep: Tensor, shares: Tensor, streams: list[torch.Generator]
) -> Tensor:
    """Standardised codes from noise, which are the ``known`` ones where ``keep`` says so; all (n, L, h, w)."""
    scheduler = RePaintScheduler(**SCHEDULE, eta=1.0, clip_sample=False)
    scheduler.set_timesteps(STEPS, jump_length=1, jump_n_sample=1)
    alphas, stride = scheduler.alphas_cumprod, TRAIN_STEPS // STEPS
    for time in scheduler.timesteps.tolist():
        alpha, before = alphas[time], alphas[time - stride] if time else torch.ones(())
        for left in reversed(range(RESAMPLED if time else 1)):
            output = model._predict(code, torch.full((len(code),), time, device=code.device), shares)
            if model.prediction_type == 'v_prediction':  # the scheduler knows noise only
                output = alpha.sqrt() * output + (1 - alpha).sqrt() * code
            code = scheduler.step(output, time, code, known, keep, generator=streams).prev_sample
            if left:  # undone by as much noise as the step took away
                noise = randn_tensor(code.shape, generator=streams, device=code.device, dtype=code.dtype)
                code = (alpha / before).sqrt() * code + (1 - alpha / before).sqrt() * noise
    return code


def _known_codes(where: Tensor, model: TwoStreamDiffusion) -> Tensor:
    """(n, L, h, w) float32: 1 for codes that stay as they are, 0 for others."""
    cells = max_pool2d(where[:, None].float(), where.shape[-1] // model.code_shape[-1])
    free = max_pool2d(cells, 3, stride=1, padding=1) > 0
    images, masks = model.widths
    return torch.cat([~free.expand(-1, images, -1, -1), torch.ones_like(free).expand(-1, masks, -1, -1)], dim=1).float()
