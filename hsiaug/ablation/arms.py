"""The arms that spectral studies compare: Audebert et al.'s two, our own, and what they must beat."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from .plan import Arm, Study

QUICK_RATIOS = (0.5, 2.0)
QUICK_SEEDS = 3
QUICK_ITERATIONS = 200


def spectral_arms(gan: dict[str, Any] | None = None, gan_seeds: int | None = None) -> tuple[Arm, ...]:
    """Every arm of the spectral study.

    Args:
        gan: settings of the GANs, see :class:`~hsiaug.trainers.spectral_gan.SpectralGANConfig`; the short ones if None.
        gan_seeds: number of seeds of the GAN arms, which cost the most; those of the study if None.
    """
    gan = dict(gan or {})
    return (
        Arm('GAN', 'spectral_gan', gan, 'real', seeds=gan_seeds),
        Arm('ss-GAN', 'spectral_gan', {**gan, 'semi_supervised': True}, 'real', seeds=gan_seeds),
        Arm('variability', 'variability', {}, 'sqrt'),
        Arm('relighting', 'relighting', {}, 'sqrt'),
        Arm('mixup', 'mixup', {'partners': 'across'}, 'sqrt'),
        Arm('Gaussian', 'gaussian', {'covariance': 'tied'}, 'sqrt'),
        Arm('duplicate', 'duplicate', {}, 'sqrt', control=True),
        Arm('duplicate, prior', 'duplicate', {}, 'prior', control=True),
        Arm('gain, offset', 'gain_offset', {}, 'sqrt', control=True),
        Arm('noise', 'noise', {}, 'sqrt', control=True),
    )


def quick(study: Study) -> Study:
    """The study at its smallest: 3 seeds, two ratios, short training, all arms and figures; no basis for claims."""
    arms = tuple(
        replace(
            arm,
            ratios=None,
            seeds=None,
            settings={**arm.settings, 'iterations': QUICK_ITERATIONS}
            if arm.generator == 'spectral_gan'
            else arm.settings,
        )
        for arm in study.arms
    )
    settings = tuple(replace(setting, arm_seeds={}) for setting in study.settings)
    classifiers = tuple(replace(c, steps=c.steps[:1]) for c in study.classifiers)
    return replace(
        study,
        settings=settings,
        classifiers=classifiers,
        arms=arms,
        ratios=QUICK_RATIOS,
        seeds=study.seeds[:QUICK_SEEDS],
        quick=True,
    )
