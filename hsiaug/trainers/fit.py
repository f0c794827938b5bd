"""One way to train any generator."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any, TypeVar

from .. import __version__
from ..arguments import checked_arguments
from ..datasets import ChangeDataset, PatchDataset, SceneDataset, SpectraDataset
from ..functional.plain import plain_torch
from ..generators import Generator, TrainingData, generator_class
from ..generators.base import cannot_make, make_generator
from ..samples import Provenance, as_seed
from ..scenes import BitemporalScene, LabelledPatchSplit, Scene, Split
from ..scenes.patches import PARTS, PatchSplit
from ..settings import check_value

C = TypeVar('C')


@plain_torch()
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


@plain_torch()
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
            :class:`~hsiaug.trainers.spectral_gan.SpectralGANConfig`, ``semi_supervised`` and ``members`` (an
            ensemble of several GANs) as settings, ``two_stream_diffusion`` those of
            :class:`~hsiaug.trainers.two_stream_diffusion.TwoStreamConfig`, ``msrresgan`` those of
            :class:`~hsiaug.trainers.super_resolution.SuperResolutionConfig`, ``patch_gan`` those of
            :class:`~hsiaug.trainers.patch_gan.PatchGANConfig`, ``change_editing`` those of
            :class:`~hsiaug.trainers.change_editing.ChangeEditingConfig`, ``unmixing_fusion`` those of
            :class:`~hsiaug.trainers.unmixing_fusion.UnmixingFusionConfig`, every other generator its own.
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
    settings, seed = dict(settings or {}), as_seed(seed)
    if kind == 'spectral_gan':
        return _fit_gan(data, settings, seed, device, progress, folder)
    if kind == 'two_stream_diffusion':
        from .two_stream_diffusion import TwoStreamConfig, train_two_stream

        return train_two_stream(data, _config(kind, TwoStreamConfig, settings), seed, device, progress, folder)
    if kind == 'msrresgan':
        from .super_resolution import SuperResolutionConfig, train_super_resolution

        return train_super_resolution(
            data, _config(kind, SuperResolutionConfig, settings), seed, device, progress, folder
        )
    if kind == 'patch_gan':
        from .patch_gan import PatchGANConfig, train_patch_gan

        return train_patch_gan(data, _config(kind, PatchGANConfig, settings), seed, device, progress, folder)
    if kind == 'change_editing':
        from .change_editing import ChangeEditingConfig, train_change_editing

        return train_change_editing(data, _config(kind, ChangeEditingConfig, settings), seed, device, progress, folder)
    if kind == 'unmixing_fusion':
        from .unmixing_fusion import UnmixingFusionConfig, train_unmixing_fusion

        config = _config(kind, UnmixingFusionConfig, settings)
        return train_unmixing_fusion(data, config, seed, device, progress, folder)
    generator_class(kind).check_settings(settings)
    generator = make_generator(kind, data.spec, settings)
    generator.to(device).fit(data, seed)
    return generator.eval()


def _fit_gan(
    data: TrainingData, settings: dict[str, Any], seed: int, device: str, progress: bool, folder: Path | None
) -> Generator:
    from ..generators.ensemble import Ensemble
    from .spectral_gan import CHECKPOINT_FILE, SpectralGANConfig, train_spectral_gan

    semi_supervised, members = settings.pop('semi_supervised', False), settings.pop('members', 1)
    check_value('spectral_gan', 'semi_supervised', semi_supervised, bool)
    check_value('spectral_gan', 'members', members, int)
    config = _config('spectral_gan', SpectralGANConfig, settings)
    if members == 1:
        return train_spectral_gan(data, config, seed, semi_supervised, device, progress, folder)
    # A member that is done keeps its checkpoint until all are: a killed training goes on with the next.
    folders = [None if folder is None else folder / f'member_{member}' for member in range(members)]
    gans: list[Generator] = [
        train_spectral_gan(data, config, seed + 7919 * member, semi_supervised, device, progress, kept, keep=True)
        for member, kept in enumerate(folders)
    ]
    ensemble = Ensemble.of(gans, data, seed)
    for kept in folders:
        if kept is not None:
            (kept / CHECKPOINT_FILE).unlink()
            kept.rmdir()
    return ensemble


def _config(kind: str, config: type[C], settings: dict[str, Any]) -> C:
    """The settings as a training's configuration."""
    where = cannot_make(kind, settings)
    settings = checked_arguments(config, settings, where)
    try:
        return config(**settings)
    except TypeError as error:  # of what is within settings
        raise ValueError(f'{where}: {error}') from error


_CONFIGS = {
    'spectral_gan': ('spectral_gan', 'SpectralGANConfig'),
    'two_stream_diffusion': ('two_stream_diffusion', 'TwoStreamConfig'),
    'msrresgan': ('super_resolution', 'SuperResolutionConfig'),
    'patch_gan': ('patch_gan', 'PatchGANConfig'),
    'change_editing': ('change_editing', 'ChangeEditingConfig'),
    'unmixing_fusion': ('unmixing_fusion', 'UnmixingFusionConfig'),
}
"""Module and class of the settings of generators that have a training."""


def require_settings(kind: str, settings: dict[str, Any] | None) -> None:
    """Check what :func:`fit_generator` is going to be told, before data are opened.

    Args:
        kind: registered name.
        settings: of it.

    Raises:
        ValueError: for an unknown kind or setting, or one that does not fit.
    """
    given = {name: value for name, value in (settings or {}).items() if name not in _NOT_ITS_CONFIG.get(kind, ())}
    if kind in _CONFIGS:
        module, name = _CONFIGS[kind]
        _config(kind, getattr(import_module(f'.{module}', __package__), name), given)
    else:
        checked_arguments(generator_class(kind), given, cannot_make(kind, given), given=('spec',))


_NOT_ITS_CONFIG = {'spectral_gan': ('semi_supervised', 'members')}
