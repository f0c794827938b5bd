"""The default arms of studies: published generators, our own, and controls."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from ..evidence import recommended_ratio
from ..samples import Kind
from ..systems.training import trainer_of
from .plan import Arm, Study

QUICK_RATIOS = (0.5, 2.0)
QUICK_SEEDS = 3


def classic_arms(*kinds: str) -> tuple[Arm, ...]:
    """Classic augmentation of patches."""
    return tuple(Arm(kind, 'patch_augment', {'kind': kind}, 'real', control=True) for kind in kinds)


def spectral_arms(gan: dict[str, Any] | None = None) -> tuple[Arm, ...]:
    """Arms of the spectral study; its GANs are our own variants, not those of Audebert et al. 2018."""
    gan = dict(gan or {})
    return (
        Arm('GAN', 'spectral_gan', gan, 'real'),
        Arm('ss-GAN', 'spectral_gan', {**gan, 'semi_supervised': True}, 'real'),
        Arm('variability', 'variability', {}, 'sqrt'),
        Arm('relighting', 'relighting', {}, 'sqrt'),
        Arm('mixup', 'mixup', {'partners': 'across'}, 'sqrt'),
        Arm('Gaussian', 'gaussian', {'covariance': 'tied'}, 'sqrt'),
        Arm('duplicate', 'duplicate', {}, 'sqrt', control=True),
        Arm('duplicate, prior', 'duplicate', {}, 'prior', control=True),
        Arm('gain, offset', 'gain_offset', {}, 'sqrt', control=True),
        Arm('noise', 'noise', {}, 'sqrt', control=True),
    )


def segmentation_arms(diffusion: dict[str, Any] | None = None) -> tuple[Arm, ...]:
    """Arms of the study with image-mask pairs: SpecDM, its baseline, and controls."""
    diffusion = dict(diffusion or {})
    alone = {**diffusion, 'single_stream': True}
    plain = {**alone, 'sad_weight': 0.0, 'mask_loss': 'l1'}  # latent diffusion: no angle, no class loss
    return (
        Arm('two-stream', 'two_stream_diffusion', diffusion, 'real'),
        Arm('single stream', 'two_stream_diffusion', plain, 'real'),
        Arm('single stream, same losses', 'two_stream_diffusion', alone, 'real', control=True),
        Arm('two-stream, no SAD', 'two_stream_diffusion', {**diffusion, 'sad_weight': 0.0}, 'real', control=True),
        Arm('two-stream only', 'two_stream_diffusion', diffusion, 'real', control=True, synthetic_only=True),
        Arm('single stream only', 'two_stream_diffusion', plain, 'real', control=True, synthetic_only=True),
        *classic_arms('duplicate', 'flips', 'crops', 'noise', 'cutmix'),
    )


def change_arms(diffusion: dict[str, Any] | None = None) -> tuple[Arm, ...]:
    """Arms of the study with pairs of dates: SpecDM, its baseline, change editing, and controls."""
    diffusion = dict(diffusion or {})
    plain = {**diffusion, 'single_stream': True, 'sad_weight': 0.0, 'mask_loss': 'l1'}
    return (
        Arm('two-stream', 'two_stream_diffusion', diffusion, 'real'),
        Arm('single stream', 'two_stream_diffusion', plain, 'real'),
        Arm('change editing', 'change_editing', {'painter': diffusion}, 'real'),
        Arm('two-stream only', 'two_stream_diffusion', diffusion, 'real', control=True, synthetic_only=True),
        Arm('single stream only', 'two_stream_diffusion', plain, 'real', control=True, synthetic_only=True),
        *classic_arms('duplicate', 'flips', 'crops', 'noise', 'copy_paste'),
    )


def scene_arms(gan: dict[str, Any] | None = None) -> tuple[Arm, ...]:
    """Arms of the study with labelled patches: the convolutional GANs, and controls."""
    gan = dict(gan or {})
    wasserstein = {**gan, 'loss': 'wgan-gp'}
    return (
        Arm('patch GAN', 'patch_gan', gan, 'real'),
        Arm('patch GAN, WGAN-GP', 'patch_gan', wasserstein, 'real'),
        Arm('patch GAN, 3-D', 'patch_gan', {**gan, 'dims': 3}, 'real'),
        Arm('patch GAN, 3-D, WGAN-GP', 'patch_gan', {**wasserstein, 'dims': 3}, 'real'),
        *classic_arms('duplicate', 'flips', 'affine', 'noise'),
    )


def at_defaults(
    arms: Iterable[Arm], ratios: Iterable[float], budgets: Iterable[int | None], kind: Kind
) -> tuple[Arm, ...]:
    """The arms, with defaults: an arm that is known to help elsewhere gets the ratio and labels used there.

    ``ratios`` are those of arms without their own. If the budgets (labelled samples per class; None for all) call
    for different ratios, there is no default.
    """
    found = []
    for arm in arms:
        try:
            known = [recommended_ratio(arm.generator, budget, kind, mixed=True) for budget in budgets]
        except ValueError:  # no evidence
            known = []
        if len({(one.ratio, one.labels) for one in known}) == 1 and known[0].ratio and not arm.control:
            default, labels = known[0].ratio, known[0].labels
            own = tuple(sorted({*(arm.ratios or ratios), default}))
            arm = replace(arm, default=default, labels=labels, ratios=own)  # type: ignore[arg-type]
        found.append(arm)
    return tuple(found)


DEFAULT_ARMS: dict[Kind, Callable[[], tuple[Arm, ...]]] = {
    'spectrum': spectral_arms,
    'segmentation': segmentation_arms,
    'change': change_arms,
    'scene': scene_arms,
}
"""Default arms of a study by kind of sample, if its config names none."""


def quick(study: Study) -> Study:
    """A minimal version of a study: 3 seeds, two ratios, short training, all arms and figures; no basis for claims."""
    trainers = {arm.generator: trainer_of(arm.generator) for arm in study.arms}
    short = {name: dict(trainer.quick) if trainer else {} for name, trainer in trainers.items()}
    arms = tuple(
        replace(arm, ratios=None, default=None, seeds=None, settings={**arm.settings, **short[arm.generator]})
        for arm in study.arms
    )
    settings = tuple(replace(setting, arm_seeds={}) for setting in study.settings)
    downstream: tuple[Any, ...] = study.classifiers
    return replace(
        study,
        settings=settings,
        classifiers=tuple(replace(d, steps=d.steps[:1]) for d in downstream),
        arms=arms,
        ratios=QUICK_RATIOS,
        seeds=study.seeds[:QUICK_SEEDS],
        quick=True,
    )
