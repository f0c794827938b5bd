"""One way to train any generator."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .. import __version__
from ..datasets import ChangeDataset, PatchDataset, SceneDataset, SpectraDataset
from ..datasets.patches import read_coarse_windows, read_windows
from ..engine import Run
from ..functional.plain import plain_torch
from ..samples import Provenance, as_seed
from ..scenes import BitemporalScene, LabelledPatchSplit, Scene, Split
from ..scenes.patches import PARTS, PatchSplit
from ..settings import checked_arguments
from .base import Generator, TrainingData, cannot_make, generator_class, make_generator
from .training import trainer_of


@plain_torch()
def training_data(scene: Scene, split: Split | PatchSplit) -> TrainingData:
    """What a generator may see of a split: training and validation samples, and where they are from.

    Args:
        scene: the scene.
        split: of pixels, for generators of spectra; or into patches, for generators of image-mask pairs and, of a
            bitemporal scene, of pairs of dates with change masks, with the unlabelled samples that either split has;
            or into labelled patches, for generators of these.
    """
    positions = None
    if isinstance(split, LabelledPatchSplit):
        scenes = [SceneDataset.from_scene(scene, split, part) for part in PARTS[:2]]
        spec, unlabelled = scenes[0].spec, scenes[0].image[:0]
        (x, y), (val_x, val_y) = ((part.image, part.label) for part in scenes)
    elif isinstance(split, PatchSplit):
        dataset: Any = ChangeDataset if isinstance(scene, BitemporalScene) else PatchDataset
        train, val = (dataset.from_scene(scene, split, part) for part in ('train', 'val'))
        spec, windows = train.spec, read_windows(scene, split.unlabelled, split.size)
        unlabelled = windows.reshape(-1, *train.image.shape[1:])
        (x, y), (val_x, val_y) = (train.image, train.mask), (val.image, val.mask)
    else:
        parts = {part: SpectraDataset(scene, split, part) for part in ('train', 'val', 'unlabelled')}  # type: ignore[arg-type]
        spec = parts['train'].spec
        (x, y), (val_x, val_y), (unlabelled, _) = (parts[part].tensors() for part in ('train', 'val', 'unlabelled'))
        if min(scene.shape) > 1:  # a spectral library is no image
            rows, columns = np.divmod(np.concatenate([split.train, split.unlabelled]), scene.shape[1])
            rows += 0 if scene.tile_rows is None else rows // scene.tile_rows
            positions = torch.from_numpy(np.stack([rows, columns], axis=1))
    provenance = Provenance(__version__, split.seed, {}, split.fingerprint, split.footprint())
    data = TrainingData(spec, x, y, unlabelled, val_x, val_y, provenance, positions=positions)
    if scene.coarse is None or not isinstance(split, PatchSplit) or isinstance(split, LabelledPatchSplit):
        return data
    return replace(data, coarse=read_coarse_windows(scene, split.train, split.size))


@plain_torch()
def fit_generator(
    kind: str,
    data: TrainingData,
    settings: dict[str, Any] | None = None,
    seed: int = 0,
    device: str = 'cpu',
    progress: bool = False,
    folder: Path | None = None,
    devices: int = 1,
    nodes: int = 1,
) -> Generator:
    """Train a generator by its registered name.

    Args:
        kind: registered name.
        data: the training part of a split.
        settings: of the generator, or of its training where it learns by gradient steps.
        seed: of everything random in the training.
        device: where to train.
        progress: show a progress bar where training takes long.
        folder: where a training of minutes and more keeps a checkpoint, from which it resumes after a kill, and
            pictures of its progress; generators that fit faster leave nothing there.
        devices: processes per machine that train together, see :class:`~hsiaug.engine.Run`.
        nodes: machines.

    Raises:
        ValueError: for an unknown kind or setting.
    """
    settings, trainer = dict(settings or {}), trainer_of(kind)
    if trainer is not None:
        config = trainer.settings(kind, settings)
        run = Run(as_seed(seed), device, devices, nodes, folder, progress=progress)
        with run.launched() as mine:
            return trainer.train(data, config, replace(run, device=str(mine)))
    generator_class(kind).check_settings(settings)
    generator = make_generator(kind, data.spec, settings)
    generator.to(device).fit(data, as_seed(seed))
    return generator.eval()


def require_settings(kind: str, settings: dict[str, Any] | None) -> None:
    """Check what :func:`fit_generator` is going to be given, before data are opened.

    Args:
        kind: registered name.
        settings: of it.

    Raises:
        ValueError: for an unknown kind or setting, or one that does not fit.
    """
    given, trainer = dict(settings or {}), trainer_of(kind)
    if trainer is not None:
        trainer.settings(kind, given)
    else:
        checked_arguments(generator_class(kind), given, cannot_make(kind, given), given=('spec',))


__all__ = ['fit_generator', 'require_settings', 'training_data']
