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
from ..datasets.bank import BANK_FILE, WRITING_FILE
from ..scenes.config import SceneConfig
from ..scenes.strategies import SPLITTERS
from ..settings import checked_arguments
from ..systems.saved import CONFIG_FILE
from ..tasks import TASKS, Task, task_of, task_of_split
from ..trainers.inception import weights_of
from .config import RANDOM, SIMULATED, SplitConfig, one_list, require_fit
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
    classifiers: tuple[Model, ...] | None = None,
    segmenters: tuple[Model, ...] | None = None,
    detectors: tuple[Model, ...] | None = None,
    scene_classifiers: tuple[Model, ...] | None = None,
    title: str = 'Gain from synthetic samples',
    workers: int = 1,
    engine: Literal['process', 'ray'] = 'process',
    device: str = 'auto',
    quick: bool = False,
    inception: str | None = None,
    **samples: Any,
) -> None:
    """Measure how much synthetic samples help a model, and at which ratio. Run it again to resume it.

    Args:
        out: run folder.
        scene: the scene; the simulated one by default.
        split: how it is split.
        per_class: label budgets of spectra, labelled pixels per class; null for all of the training area.
        arms: ways of making synthetic samples; of spectra GANs, our own generator, rivals and controls if null, of
            patches latent diffusion and controls.
        ratios: synthetic samples per real sample.
        seeds: number of paired seeds.
        models: downstream models, by name or as mappings of name, config (what it leaves out is that of the model) and
            what is chosen from (steps, of networks of images learning_rates, of nn1d scalings, of linear_svm c).
            Spectra have nn1d and linear_svm; patches segformer and pfsegnet; pairs of dates changeformer,
            changeformer-v6, siamcrnn, fcsiamdiff and fcsiamconc; labelled patches cnn2d, cnn3d, alexnet, vgg16 and
            resnet18; the first of each if null.
        classifiers: former name of models, of spectra.
        segmenters: former name of models, of patches.
        detectors: former name of models, of pairs of dates.
        scene_classifiers: former name of models, of labelled patches.
        title: of the report.
        workers: processes at once.
        engine: local processes or a Ray cluster.
        device: where to train; auto takes a GPU where there is one.
        quick: 3 seeds, two ratios, short training; no basis for claims.
        inception: safetensors file of torchvision's Inception v3, by whose features images with masks are compared,
            or cache for those in the cache of torch.hub; a network that learns the classes if null.
        samples: datasets in the place of a scene.
    """
    data = given_data(DataConfig(**samples), scene != SIMULATED or split != RANDOM)
    source = data or scene
    name, task, settings = _of_scene(scene, split, per_class) if data is None else _of_data(data, per_class)
    given = one_list(
        task, models=models, classifiers=classifiers, segmenters=segmenters, detectors=detectors,
        scene_classifiers=scene_classifiers,
    )  # fmt: skip
    if data is None:
        require_fit(scene, split)
    downstream = (task.model(),) if given is None else tuple(map(task.model, given))
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
        raise ValueError('per_class budgets are for spectra; of patches, split.settings.max_train says how many to use')
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
        raise ValueError('per_class budgets are for scenes of spectra; of datasets, give fewer samples as data')
    splitter = data.splitter()
    own = [part for part in ('val', 'test') if getattr(data, part) is not None]
    budget = f'own {" and ".join(own)}' if own else 'drawn parts'
    return data.name, task_of(data()), (Setting(data.name, budget, splitter),)


def run_and_report(
    study: Study, out: Path, workers: int, engine: Literal['process', 'ray'] = 'process', device: str = 'auto'
) -> None:
    """Run what is missing of a study, and draw its report."""
    from ..report.ablation import draw_shown
    from ..systems.fit import require_settings

    device = require_device(device)
    if found := [name for name in (CONFIG_FILE, BANK_FILE, WRITING_FILE) if (out / name).exists()]:
        raise FileExistsError(f'{out} holds a generator or a bank ({found[0]}), no study; choose another folder')
    require_own(out, PLAN_FILE, 'study')
    require_writable(out)
    for arm in study.arms:
        require_settings(arm.generator, arm.settings, study.kind)
    try:
        run_study(study, out, workers, engine, device)
    except KeyboardInterrupt:
        raise SystemExit(f'\ninterrupted; finished cells are in {out}, the same command continues from there') from None
    draw_shown(chain(shown_samples(study, out, device), shown_predictions(study, out)), out)
    report(out)
