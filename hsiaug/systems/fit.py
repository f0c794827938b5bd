"""One way to train any generator."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..engine import Run
from ..functional.plain import plain_torch
from ..samples import Kind
from ..settings import checked_arguments
from ..streams import as_seed
from .base import Generator
from .data import TrainingData, data_of, learning_from_unlabelled, require_samples, require_use_of, training_data
from .registry import cannot_make, generator_class, make_generator
from .training import trainer_of

__all__ = [
    'fit', 'fit_generator', 'learning_from_unlabelled', 'require_settings', 'require_use_of', 'training_data',
]  # fmt: skip


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
    losses: Path | None = None,
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
        losses: file that the losses of a training in steps are logged in, as comma-separated values; None for none.

    Raises:
        ValueError: for an unknown kind or setting, or data that are not those of their spec.
    """
    settings, trainer = dict(settings or {}), trainer_of(kind)
    require_samples(kind, data, labelled=trainer is None)
    if trainer is not None:
        config = trainer.settings(kind, settings)
        run = Run(as_seed(seed), device, devices, nodes, folder, progress=progress, losses=losses)
        with run.launched() as mine:
            return trainer.train(data, config, replace(run, device=str(mine)))
    generator_class(kind).check_settings(settings)
    generator = make_generator(kind, data.spec, settings)
    generator.to(device).fit(data, as_seed(seed))
    return generator.eval()


def fit(
    generator: str,
    train: Any,
    /,
    *,
    val: Any = None,
    unlabelled: Any = None,
    size: int | tuple[int, int] | None = None,
    classes: Sequence[str] | None = None,
    wavelengths: Sequence[float] | None = None,
    unit: str | None = None,
    ignore_index: int | None = None,
    value_range: tuple[float, float] | None = None,
    settings: Mapping[str, Any] | None = None,
    seed: int = 0,
    device: str = 'cpu',
    progress: bool = False,
    folder: str | os.PathLike[str] | None = None,
    devices: int = 1,
    nodes: int = 1,
    workers: int | None = None,
    in_memory: bool | None = None,
    **more_settings: Any,
) -> Generator:
    """Train a generator on any datasets.

    Datasets are torchgeo's or torch's, map-style, or lists of such, as :func:`~hsiaug.datasets.adapt` takes them; what
    they hold is inferred, and asked for where it cannot be. Samples up to 1 GiB are held in memory; of more,
    ``two_stream_diffusion`` reads batches by worker processes while it learns; the others refuse them without
    ``in_memory=True``. Either way is the same training.

    What samples without labels are good for, see each system's README: ``spectral_gan`` (its critic, with
    ``semi_supervised=True``), ``variability`` (how spectra differ), ``unmixing_fusion`` (unmixing),
    ``two_stream_diffusion`` (its image autoencoder), ``change_editing`` (the same, and the drift from pairs of dates
    without a change mask), and ``pseudo_label`` (they are labelled). Others refuse them. Give images of the training
    area only: all that a generator has seen travels with it, and an evaluation that shares samples is refused
    (:func:`~hsiaug.datasets.require_unseen_samples`).

    Args:
        generator: registered name.
        train: labelled samples.
        val: labelled samples, for early stopping and choices.
        unlabelled: samples without labels; labels that they have are not looked at.
        size: side, or sides, of patches that images are cut into; needed where images are of several sizes.
        classes: names of the classes in label order, where the dataset has no ``classes``.
        wavelengths: band centres in nm, where samples have no ``wavelength``.
        unit: physical unit.
        ignore_index: label of pixels that do not count.
        value_range: lowest and highest value that the unit allows.
        settings: of the generator or its training; those whose names are not taken here can be given by name, too.
        seed: of everything random in the training.
        device: where to train.
        progress: show progress bars.
        folder: of a checkpoint, from which a killed training resumes; see :func:`fit_generator`.
        devices: processes per machine that train together.
        nodes: machines.
        workers: processes that read samples; None for none as long as samples are held in memory.
        in_memory: hold all samples in memory, or read them batch by batch; None decides by their size.
        more_settings: settings by name.

    Returns:
        the generator, for :class:`~hsiaug.datasets.MixedDataset` and all other ways of mixing.

    Raises:
        TypeError: for what is not a map-style dataset.
        ValueError: for unknown settings, or naming the dataset and the sample that cannot be learnt from.
    """
    given = {**(settings or {}), **more_settings}
    require_settings(generator, given)
    uses, trainer = generator_class(generator).unlabelled, trainer_of(generator)
    require_use_of(unlabelled, generator, given)
    data = data_of(
        train, val, unlabelled, uses=uses, streams=trainer is not None and trainer.streams, in_memory=in_memory,
        workers=workers, progress=progress, size=size, classes=classes, wavelengths=wavelengths, unit=unit,
        ignore_index=ignore_index, value_range=value_range,
    )  # fmt: skip
    place = None if folder is None else Path(folder).expanduser()
    return fit_generator(generator, data, given, seed, device, progress, place, devices, nodes)


def require_settings(kind: str, settings: dict[str, Any] | None, samples: Kind | None = None) -> None:
    """Check what :func:`fit_generator` is going to be given, before data are opened; and the kind of the samples."""
    if samples is not None and samples not in (can := generator_class(kind).kinds):
        raise ValueError(
            f'generator {kind!r} makes samples of kind {" or ".join(map(repr, can))}, but those here are of kind '
            f'{samples!r}; choose another generator, or another split or scene'
        )
    given, trainer = dict(settings or {}), trainer_of(kind)
    if trainer is not None:
        trainer.settings(kind, given)
    else:
        checked_arguments(generator_class(kind), given, cannot_make(kind, given), given=('spec',))
