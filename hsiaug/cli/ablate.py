"""``hsiaug ablate``, and how every study is run and drawn."""

from __future__ import annotations

from itertools import chain, product
from pathlib import Path
from typing import Any, Literal

from ..ablation import Arm, Setting, Study, run_study
from ..ablation.arms import DEFAULT_ARMS, at_defaults
from ..ablation.arms import quick as quick_study
from ..ablation.results import PLAN_FILE
from ..ablation.shown import shown_predictions, shown_samples
from ..datasets.bank.reader import BANK_FILE, WRITING_FILE
from ..scenes.config import SceneConfig
from ..scenes.strategies import SPLITTERS
from ..settings import checked_arguments
from ..systems.saved import CONFIG_FILE
from ..tasks import TASKS, Task, task_of, task_of_split
from ..trainers.inception import weights_of
from .config import RANDOM, SIMULATED, SplitConfig, require_fit
from .data import DataConfig, given_data
from .guard import require_device, require_own, require_writable
from .report import report

Model = str | dict[str, Any]
"""A downstream model: its name, or its settings."""


def ablate(
    out: Path = Path('runs/ablation'),
    scene: SceneConfig = SIMULATED,
    split: SplitConfig = RANDOM,
    per_class: tuple[int | None, ...] = (None,),
    arms: tuple[Arm, ...] | None = None,
    ratios: tuple[float, ...] = (0.25, 0.5, 1.0, 2.0, 5.0),
    seeds: int = 20,
    models: tuple[Model, ...] | None = None,
    title: str = 'Gain from synthetic samples',
    workers: int = 1,
    engine: Literal['process', 'ray'] = 'process',
    device: str = 'auto',
    quick: bool = False,
    inception: str | None = None,
    **samples: Any,
) -> None:
    """Measure how much synthetic samples help a model, and at which ratio. Repeat the command to resume.

    Args:
        out: run folder.
        scene: the scene; the simulated one by default.
        split: how to split the scene.
        per_class: for spectra, numbers of labelled pixels per class to compare; null uses the whole training area.
        arms: ways of making synthetic samples. If null, GANs, our own generator, rivals and controls for spectra;
            latent diffusion and controls for patches.
        ratios: synthetic samples per real sample.
        seeds: number of paired seeds.
        models: downstream models, each a name, or a mapping with name, config (the rest keeps its defaults) and values
            to choose from (steps; learning_rates for image networks, scalings for nn1d, c for linear_svm). For spectra
            nn1d, linear_svm; for patches segformer, pfsegnet; for pairs of dates changeformer, changeformer-v6,
            siamcrnn, fcsiamdiff, fcsiamconc; for labelled patches cnn2d, cnn3d, alexnet, vgg16, resnet18. If null, the
            first of these.
        title: title of the report.
        workers: number of parallel processes.
        engine: local processes or a Ray cluster.
        device: device to train on; auto uses a GPU if there is one.
        quick: 3 seeds, two ratios, short training; no basis for claims.
        inception: safetensors file with weights of torchvision's Inception v3, by whose features images with masks are
            compared, or cache for the cache of torch.hub; if null, a network trained on the classes.
        samples: datasets instead of a scene.
    """
    data = given_data(DataConfig(**samples), scene != SIMULATED or split != RANDOM)
    source = data or scene
    name, task, settings = _of_scene(scene, split, per_class) if data is None else _of_data(data, per_class)
    if data is None:
        require_fit(scene, split)
    downstream = tuple(map(task.model, models or (None,)))
    arms = at_defaults(DEFAULT_ARMS[task.kind](), ratios, per_class, task.kind) if arms is None else tuple(arms)
    for arm, model in product(arms, downstream):
        if arm.training and (config := getattr(model, 'config', None)) is not None:
            checked_arguments(type(config), arm.training, f'arm {arm.name!r}: training')
    study = Study(
        title=title,
        scenes={name: source},
        settings=settings,
        arms=arms,
        ratios=tuple(ratios),
        seeds=tuple(range(seeds)),
        classifiers=downstream,
        inception=None if inception is None else weights_of(inception),
    )
    run_and_report(quick_study(study) if quick else study, out, workers, engine, device)


def _of_scene(
    scene: SceneConfig, split: SplitConfig, per_class: tuple[int | None, ...]
) -> tuple[str, Task, tuple[Setting, ...]]:
    """Name, task and settings of a study of a scene."""
    name = scene.name or scene.benchmark or (Path(scene.path).stem if scene.path else 'simulated')
    task = task_of_split(SPLITTERS[split.strategy], scene.dates)
    spectral = task is TASKS['spectrum']
    if not spectral and tuple(per_class) != (None,):
        raise ValueError('per_class budgets are for spectra; for patches, set split.settings.max_train')
    settings = tuple(
        Setting(
            name,
            f'{split.strategy}, ' + ('all labels' if budget is None else f'{budget} per class'),
            split.splitter(**({'per_class': budget} if spectral else {})),
        )
        for budget in per_class
    )
    return name, task, settings


def _of_data(data: DataConfig, per_class: tuple[int | None, ...]) -> tuple[str, Task, tuple[Setting, ...]]:
    """Name, task and settings of a study of datasets, which are opened."""
    if tuple(per_class) != (None,):
        raise ValueError('per_class budgets are for scenes of spectra; for datasets, give fewer samples as data')
    splitter = data.splitter()
    own = [part for part in ('val', 'test') if getattr(data, part) is not None]
    budget = f'own {" and ".join(own)}' if own else 'drawn parts'
    return data.name, task_of(data()), (Setting(data.name, budget, splitter),)


def run_and_report(
    study: Study, out: Path, workers: int, engine: Literal['process', 'ray'] = 'process', device: str = 'auto'
) -> None:
    """Run what is missing of a study, and draw its report."""
    from ..report.ablation import draw_shown

    device = require_device(device)
    if found := [name for name in (CONFIG_FILE, BANK_FILE, WRITING_FILE) if (out / name).exists()]:
        raise FileExistsError(f'{out} holds a generator or a bank ({found[0]}), no study; choose another folder')
    require_own(out, PLAN_FILE, 'study')
    require_writable(out)
    try:
        run_study(study, out, workers, engine, device)
    except KeyboardInterrupt:
        raise SystemExit(f'\ninterrupted; finished cells are in {out}; repeat the command to continue') from None
    draw_shown(chain(shown_samples(study, out, device), shown_predictions(study, out)), out)
    report(out)
