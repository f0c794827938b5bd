"""One way to train any generator."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

from .. import __version__
from ..datasets import ChangeDataset, PatchDataset, SceneDataset, SpectraDataset
from ..samples import Provenance
from ..scenes import BitemporalScene, LabelledPatchSplit, Scene, Split
from ..scenes.patches import PARTS, PatchSplit
from ..systems import Generator, TrainingData, generator_class

C = TypeVar('C')


def training_data(scene: Scene, split: Split | PatchSplit) -> TrainingData:
    """What a generator may see of a split: training and validation samples, and where they are from.

    Args:
        scene: the scene.
        split: of pixels, for generators of spectra, which see unlabelled spectra too; or into patches, for generators
            of image-mask pairs and, of a bitemporal scene, of pairs of dates with change masks; or into labelled
            patches, for generators of these.
    """
    if isinstance(split, LabelledPatchSplit):
        scenes = [SceneDataset.from_scene(scene, split, part) for part in PARTS[:2]]
        spec, unlabelled = scenes[0].spec, scenes[0].image[:0]
        (x, y), (val_x, val_y) = ((part.image, part.label) for part in scenes)
    elif isinstance(split, PatchSplit):
        dataset: Any = ChangeDataset if isinstance(scene, BitemporalScene) else PatchDataset
        train, val = (dataset.from_scene(scene, split, part) for part in ('train', 'val'))
        spec, unlabelled = train.spec, train.image[:0]
        (x, y), (val_x, val_y) = (train.image, train.mask), (val.image, val.mask)
    else:
        parts = {part: SpectraDataset(scene, split, part) for part in ('train', 'val', 'unlabelled')}  # type: ignore[arg-type]
        spec = parts['train'].spec
        (x, y), (val_x, val_y), (unlabelled, _) = (parts[part].tensors() for part in ('train', 'val', 'unlabelled'))
    provenance = Provenance(__version__, split.seed, {}, split.fingerprint, split.footprint())
    return TrainingData(spec, x, y, unlabelled, val_x, val_y, provenance)


def fit_generator(
    kind: str,
    data: TrainingData,
    settings: dict[str, Any] | None = None,
    seed: int = 0,
    device: str = 'cpu',
    progress: bool = False,
    folder: Path | None = None,
) -> Generator:
    """Train a generator by its registered name.

    Args:
        kind: registered name; ``spectral_gan`` takes the fields of
            :class:`~hsiaug.systems.spectral_gan.train.SpectralGANConfig`, ``semi_supervised`` and ``members`` (an
            ensemble of several GANs) as settings, ``two_stream_diffusion`` those of
            :class:`~hsiaug.systems.two_stream_diffusion.train.TwoStreamConfig`, ``msrresgan`` those of
            :class:`~hsiaug.systems.msrresgan.train.SuperResolutionConfig`, ``patch_gan`` those of
            :class:`~hsiaug.systems.patch_gan.train.PatchGANConfig`, ``change_editing`` those of
            :class:`~hsiaug.systems.change_editing.train.ChangeEditingConfig`, ``unmixing_fusion`` those of
            :class:`~hsiaug.systems.unmixing_fusion.train.UnmixingFusionConfig`, every other generator its own.
        data: the training part of a split.
        settings: see ``kind``.
        seed: of everything random in the training.
        device: where to train.
        progress: show a progress bar where training takes long.
        folder: where a training of minutes and more keeps a checkpoint, from which it goes on after a kill, and
            pictures of its progress; generators that fit faster leave nothing there.

    Raises:
        ValueError: for an unknown kind or setting.
    """
    settings = dict(settings or {})
    if kind == 'spectral_gan':
        return _fit_gan(data, settings, seed, device, progress)
    if kind == 'two_stream_diffusion':
        return _fit_two_stream(data, settings, seed, device, progress, folder)
    if kind == 'msrresgan':
        from ..systems.msrresgan.train import SuperResolutionConfig, train_super_resolution

        return train_super_resolution(
            data, _config(kind, SuperResolutionConfig, settings), seed, device, progress, folder
        )
    if kind == 'patch_gan':
        from ..systems.patch_gan.train import PatchGANConfig, train_patch_gan

        return train_patch_gan(data, _config(kind, PatchGANConfig, settings), seed, device, progress, folder)
    if kind == 'change_editing':
        from ..systems.change_editing.train import ChangeEditingConfig, train_change_editing

        return train_change_editing(data, _config(kind, ChangeEditingConfig, settings), seed, device, progress, folder)
    if kind == 'unmixing_fusion':
        from ..systems.unmixing_fusion.train import UnmixingFusionConfig, train_unmixing_fusion

        config = _config(kind, UnmixingFusionConfig, settings)
        return train_unmixing_fusion(data, config, seed, device, progress, folder)
    cls = generator_class(kind)
    try:
        generator = cls(data.spec, **settings)
    except TypeError as error:
        raise ValueError(f'generator {kind!r} cannot be made with settings {settings}: {error}') from error
    generator.to(device).fit(data, seed)
    return generator.eval()


def _fit_gan(data: TrainingData, settings: dict[str, Any], seed: int, device: str, progress: bool) -> Generator:
    from ..systems.ensemble import Ensemble
    from ..systems.spectral_gan.train import SpectralGANConfig, train_spectral_gan

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


def _fit_two_stream(
    data: TrainingData, settings: dict[str, Any], seed: int, device: str, progress: bool, folder: Path | None
) -> Generator:
    from ..systems.two_stream_diffusion.train import TwoStreamConfig, train_two_stream

    try:
        config = TwoStreamConfig(**settings)
    except TypeError as error:
        raise ValueError(
            f"generator 'two_stream_diffusion' cannot be made with settings {settings}: {error}"
        ) from error
    return train_two_stream(data, config, seed, device, progress, folder)


def _config(kind: str, config: type[C], settings: dict[str, Any]) -> C:
    """The settings as a training's configuration."""
    try:
        return config(**settings)
    except TypeError as error:
        raise ValueError(f'generator {kind!r} cannot be made with settings {settings}: {error}') from error
