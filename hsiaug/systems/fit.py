"""Training of any generator by its name."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..engine import Run
from ..functional.plain import learning
from ..samples import Kind
from ..settings import check_value, checked_arguments
from ..streams import as_seed
from .base import Generator, cannot_make, generator_class, make_generator
from .data import data_of, learning_from_unlabelled, require_use_of, training_data
from .training import trainer_of
from .training_data import TrainingData, require_samples

__all__ = [
    'fit', 'fit_generator', 'learning_from_unlabelled', 'require_settings', 'require_use_of', 'training_data',
]  # fmt: skip


@learning()
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
        settings: settings of the generator or, if it learns by gradient descent, of its training.
        seed: seed of all randomness in the training.
        device: device to train on.
        progress: show a progress bar for long trainings.
        folder: folder for checkpoints, from which an interrupted training resumes, and for pictures of its progress;
            generators that fit in seconds leave nothing there.
        devices: number of processes per machine that train together, see :class:`~hsiaug.engine.Run`.
        nodes: number of machines.
        losses: CSV file for the losses of a training by gradient descent; None for none.

    Raises:
        ValueError: for an unknown kind or setting, or if the data do not match their spec.
    """
    settings, trainer = dict(settings or {}), trainer_of(kind)
    require_samples(kind, data, labelled=trainer is None)
    if trainer is not None:
        config = trainer.settings(kind, settings)
        run = Run(as_seed(seed), device, devices, nodes, folder, progress=progress, losses=losses)
        with run.launched() as mine:
            trained = trainer.train(data, config, replace(run, device=str(mine)))
        if not isinstance(trained, Generator):
            raise TypeError(f'the training of {kind!r} must return its generator, found {type(trained).__name__}')
        return trained.eval()
    require_settings(kind, settings)
    generator = make_generator(kind, data.spec, settings)
    generator.to(device).fit(data, as_seed(seed))
    return generator.eval()


@learning()
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

    Datasets are map-style datasets of torchgeo or PyTorch, or lists of them, see :func:`~hsiaug.datasets.adapt`. What
    they hold is inferred; an error asks for what cannot be. Up to 1 GiB of samples is held in memory. Of larger
    datasets, ``two_stream_diffusion`` reads batches with worker processes while it trains; other generators refuse
    them without ``in_memory=True``. The training is the same either way.

    Some generators use unlabelled samples: ``spectral_gan`` (its critic, with ``semi_supervised=True``),
    ``variability`` (how spectra differ), ``unmixing_fusion`` (unmixing), ``two_stream_diffusion`` (its image
    autoencoder), ``change_editing`` (the same, and the drift between dates from pairs without a change mask), and
    ``pseudo_label`` (labels them). Others refuse them. Pass images of the training area only: a generator remembers
    what it has seen, and an evaluation that shares samples is refused
    (:func:`~hsiaug.datasets.require_unseen_samples`).

    Args:
        generator: registered name.
        train: labelled samples.
        val: labelled samples, for early stopping and model selection.
        unlabelled: unlabelled samples; any labels they have are ignored.
        size: side, or height and width, of the patches that images are cut into; required if image sizes differ.
        classes: class names in label order, if the dataset has no ``classes``.
        wavelengths: band centres in nm, if the samples have no ``wavelength``.
        unit: physical unit.
        ignore_index: label of pixels to ignore.
        value_range: lowest and highest value allowed by the unit.
        settings: settings of the generator or its training; they can also be given as keyword arguments.
        seed: seed of all randomness in the training.
        device: device to train on.
        progress: show progress bars.
        folder: folder for checkpoints, from which an interrupted training resumes; see :func:`fit_generator`.
        devices: number of processes per machine that train together.
        nodes: number of machines.
        workers: number of processes that read samples; if None, there are none while samples are held in memory.
        in_memory: hold all samples in memory, or read them batch by batch; if None, their size decides.
        more_settings: settings by name.

    Returns:
        the generator, for :class:`~hsiaug.datasets.MixedDataset` and all other ways of mixing.

    Raises:
        TypeError: if something is not a map-style dataset.
        ValueError: for unknown settings, or for a sample that cannot be used; the message names it and its dataset.
    """
    check_value('fit', 'settings', settings, Mapping[str, Any] | None)
    given = {**(settings or {}), **more_settings}
    require_settings(generator, given)
    require_use_of(unlabelled, generator, given)
    data = data_of(
        train, val, unlabelled, generator=generator, in_memory=in_memory, workers=workers, progress=progress, size=size,
        classes=classes, wavelengths=wavelengths, unit=unit, ignore_index=ignore_index, value_range=value_range,
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
        return
    cls = generator_class(kind)
    cls.check_settings(given)
    checked_arguments(cls, given, cannot_make(kind, given), given=('spec',))
