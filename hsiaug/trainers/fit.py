"""One way to train any generator."""

from __future__ import annotations

from typing import Any

from .. import __version__
from ..datasets import SpectraDataset
from ..datasets.patches import PatchDataset
from ..generators import Generator, TrainingData, generator_class
from ..samples import Provenance
from ..scenes import Scene, Split
from ..scenes.patches import PatchSplit


def training_data(scene: Scene, split: Split) -> TrainingData:
    """What a generator may see of a split: labelled, unlabelled and validation spectra, and where they are from."""
    parts = {part: SpectraDataset(scene, split, part) for part in ('train', 'val', 'unlabelled')}  # type: ignore[arg-type]
    (x, y), (val_x, val_y), (unlabelled, _) = (parts[part].tensors() for part in ('train', 'val', 'unlabelled'))
    return TrainingData(
        spec=parts['train'].spec,
        x=x,
        y=y,
        unlabelled=unlabelled,
        val_x=val_x,
        val_y=val_y,
        provenance=Provenance(__version__, split.seed, {}, split.fingerprint, split.footprint()),
    )


def patch_training_data(scene: Scene, split: PatchSplit) -> TrainingData:
    """What a generator may see of a split into patches: training and validation pairs, and where they are from."""
    train, val = (PatchDataset.from_scene(scene, split, part) for part in ('train', 'val'))  # type: ignore[arg-type]
    return TrainingData(
        spec=train.spec,
        x=train.image,
        y=train.mask,
        unlabelled=train.image[:0],
        val_x=val.image,
        val_y=val.mask,
        provenance=Provenance(__version__, split.seed, {}, split.fingerprint, split.footprint()),
    )


def fit_generator(
    kind: str,
    data: TrainingData,
    settings: dict[str, Any] | None = None,
    seed: int = 0,
    device: str = 'cpu',
    progress: bool = False,
) -> Generator:
    """Train a generator by its registered name.

    Args:
        kind: registered name; ``spectral_gan`` takes the fields of
            :class:`~hsiaug.trainers.spectral_gan.SpectralGANConfig`, ``semi_supervised`` and ``members`` (an
            ensemble of several GANs) as settings, every other generator its own.
        data: the training part of a split.
        settings: see ``kind``.
        seed: of everything random in the training.
        device: where to train.
        progress: show a progress bar where training takes long.

    Raises:
        ValueError: for an unknown kind or setting.
    """
    settings = dict(settings or {})
    if kind == 'spectral_gan':
        return _fit_gan(data, settings, seed, device, progress)
    cls = generator_class(kind)
    try:
        generator = cls(data.spec, **settings)
    except TypeError as error:
        raise ValueError(f'generator {kind!r} cannot be made with settings {settings}: {error}') from error
    generator.to(device).fit(data, seed)
    return generator.eval()


def _fit_gan(data: TrainingData, settings: dict[str, Any], seed: int, device: str, progress: bool) -> Generator:
    from ..generators.ensemble import Ensemble
    from .spectral_gan import SpectralGANConfig, train_spectral_gan

    semi_supervised, members = settings.pop('semi_supervised', False), settings.pop('members', 1)
    try:
        config = SpectralGANConfig(**settings)
    except TypeError as error:
        raise ValueError(f"generator 'spectral_gan' cannot be made with settings {settings}: {error}") from error
    gans: list[Generator] = [
        train_spectral_gan(data, config, seed + 7919 * member, semi_supervised, device=device, progress=progress)
        for member in range(members)
    ]
    return gans[0] if members == 1 else Ensemble.of(gans, data, seed)
