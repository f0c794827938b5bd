"""The commands ``hsiaug demo | train | sample | evaluate | ratio | ablate | report``."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path
from typing import Any, Literal, NoReturn, cast

from jsonargparse import ArgumentError

from ..ablation import Arm, Classifier, Detector, Downstream, SceneClassifier, Segmenter, Setting, Study, run_study
from ..ablation.arms import change_arms, scene_arms, segmentation_arms, spectral_arms
from ..ablation.arms import quick as quick_study
from ..ablation.results import PLAN_FILE
from ..ablation.workers import WorkerDiedError
from ..datasets import LabelPolicy
from ..datasets.bank import BANK_FILE, WRITING_FILE
from ..datasets.bank_export import ExportFormat
from ..records import read_json, write_json
from ..samples import Kind
from ..scenes import PatchSplit
from ..scenes.config import SceneConfig
from ..settings import checked_arguments
from ..systems.saved import CONFIG_FILE
from ..trainers.classifier import ClassifierConfig
from ..trainers.segmentation import SegmenterConfig
from . import DESCRIPTION
from .config import (
    RANDOM,
    RUN_FILE,
    SIMULATED,
    SplitConfig,
    kind_of,
    make_splitter,
    open_split,
    read_run,
    real_data,
    trained_on,
)
from .draw import bank_bytes, draw, require_device
from .guard import out_of_memory, parse, require_writable, terminated_like_interrupted

LONGEST = 4000
"""Characters of an error that are printed: a value that somebody else wrote may be any length."""
FLAGS = ('--quick', '--verify', '--preview', '--no_gates', '--gated')


DEFAULTS: dict[Kind, tuple[type[Any], Callable[[], tuple[Arm, ...]]]] = {
    'spectrum': (Classifier, spectral_arms),
    'segmentation': (Segmenter, segmentation_arms),
    'change': (Detector, change_arms),
    'scene': (SceneClassifier, scene_arms),
}
"""What a study of samples of each kind is made of where its config does not say."""


def demo(out: Path = Path('runs/demo'), workers: int = 2, seeds: int = 5) -> None:
    """Run the main job on the simulated scene: train generators, mix them in at ratios, measure the gain.

    Args:
        out: run folder.
        workers: processes at once.
        seeds: paired seeds; fewer than 10 are no basis for claims.
    """
    simulated = SceneConfig(simulated={'height': 80, 'width': 80, 'seed': 0}, name='simulated')
    arms = tuple(
        a for a in spectral_arms({'iterations': 500}) if a.name in ('GAN', 'ss-GAN', 'variability', 'duplicate')
    )
    study = Study(
        title='hsiaug demo',
        scenes={'simulated': simulated},
        settings=(
            Setting(
                'simulated',
                '10 per class',
                make_splitter(SplitConfig('blocks', {'per_class': 10, 'block': 10, 'on_rare': 'drop'})),
            ),
        ),
        arms=arms,
        ratios=(0.5, 2.0),
        seeds=tuple(range(seeds)),
        quick=seeds < 10,
    )
    _run_and_report(study, out, workers)


def train(
    out: Path = Path('runs/generator'),
    scene: SceneConfig = SIMULATED,
    split: SplitConfig = RANDOM,
    generator: str = 'spectral_gan',
    settings: dict[str, Any] | None = None,
    seed: int = 0,
    device: str = 'auto',
    devices: int = 1,
    nodes: int = 1,
) -> None:
    """Train a generator on the training part of a scene.

    Args:
        out: folder of the generator: config, weights, model card, and what it was trained on.
        scene: the scene; the simulated one by default.
        split: how it is split.
        generator: registered name.
        settings: of the generator.
        seed: of the split and the training.
        device: where to train; auto takes a GPU where there is one.
        devices: processes per machine that train together, each on its own device; they share every batch.
        nodes: machines that train together; torchrun or SLURM starts the same command on each.
    """
    from ..engine import Run, world
    from ..systems.fit import fit_generator, require_settings, training_data
    from ..systems.saved import TRAINING_FOLDER, require_own_folder

    device = require_device(device, devices, nodes)
    require_settings(generator, settings)
    require_own_folder(out)
    require_writable(out)
    opened, parts = open_split(scene, split, seed)
    data = training_data(opened, parts)
    checkpoints = out / TRAINING_FOLDER
    try:
        with Run(device=device, devices=devices, nodes=nodes).launched() as mine:
            model = fit_generator(generator, data, settings, seed, str(mine), progress=True, folder=checkpoints)
            helper = world()[0] > 0
    except KeyboardInterrupt:
        kept = checkpoints.is_dir() and any(checkpoints.iterdir())
        said = f'checkpoints are in {checkpoints}, the same command continues from there' if kept else 'nothing is kept'
        raise SystemExit(f'\ninterrupted; {said}') from None
    if helper:  # another process of the run writes what all have learnt
        return
    # A kill in between must not leave this note beside weights that it does not tell of.
    (out / RUN_FILE).unlink(missing_ok=True)
    model.save_pretrained(out)
    run = {
        'scene': dataclasses.asdict(scene), 'split': dataclasses.asdict(split), 'generator': generator,
        'settings': settings, 'seed': seed,
    }  # fmt: skip
    write_json(out / RUN_FILE, run)
    print(f'{generator} trained on {opened.name} (split {parts.fingerprint}): {out}')


def sample(
    run: Path,
    count: int = 1000,
    out: Path = Path('runs/bank'),
    labels: LabelPolicy = 'real',
    seed: int = 0,
    device: str = 'auto',
    devices: int = 1,
    nodes: int = 1,
    verify: bool = False,
    preview: bool = False,
    export: ExportFormat | None = None,
) -> None:
    """Draw samples from a trained generator into a bank, or look after a bank. Run it again to resume it.

    Args:
        run: folder of a generator to draw from (hsiaug train); or of a finished bank for verify, preview or export,
            which draws nothing and needs no other option.
        count: number of samples.
        out: folder of the bank: safetensors shards and bank.json, which SyntheticBank.open reads.
        labels: classes of the samples: real, sqrt, uniform or inverse training frequencies, or weights by class name.
        seed: of labels and noise.
        device: where to draw: cpu, cuda, cuda:1, ...; auto takes a GPU where there is one.
        devices: processes per machine that fill the bank together, each on its own device.
        nodes: machines that fill it together; torchrun or SLURM starts the same command on each.
        verify: read all shards and compare their checksums.
        preview: draw samples, beside the real ones that the generator was trained on, to <bank>_preview.png.
        export: write the bank in a format that others read too, to <bank>.npz, <bank>_geotiff or <bank>_webdataset.
    """
    from ..datamodules.mixed import open_source
    from ..datasets import SyntheticBank, scene_dataset
    from ..datasets.bank_export import require_free
    from ..report.bank import export_beside, export_place, preview_bank, summary
    from ..systems import Generator

    device = require_device(device, devices, nodes)
    source = open_source(run)
    if preview or export:
        require_writable((run if isinstance(source, SyntheticBank) else out).absolute().parent)
    if export:  # before anything is drawn
        require_free(export_place(source.root if isinstance(source, SyntheticBank) else out, export))
    if isinstance(source, SyntheticBank):
        if not (verify or preview or export):
            raise ValueError(
                f'{run} is a bank already; add --verify, --preview or --export, or give the folder of a generator'
            )
        bank = source
    else:
        generator = cast(Generator, source)
        if count > 0:  # write_bank says what is wrong with other counts
            require_writable(out, bank_bytes(generator.spec, count, out))
        drawn = draw(generator.to(device), count, out, labels, seed, devices, nodes)
        if drawn is None:  # another process continues
            return
        bank = drawn
        print(summary(bank))
    if verify:
        bank.verify(progress=True)
        print(f'{len(bank)} samples in {len(bank.shards)} shards: all checksums right')
    if preview:
        known = (run / RUN_FILE).is_file()
        print(f'preview: {preview_bank(bank, scene_dataset(*trained_on(run)) if known else None)}')
    if export:
        print(f'{export}: {export_beside(bank, export, progress=True)}')


def evaluate(
    run: Path,
    per_class: int = 200,
    count: int | None = None,
    device: str = 'auto',
    real: str | SceneConfig | None = None,
    split: SplitConfig | None = None,
    seed: int | None = None,
    out: Path | None = None,
    study: Path | None = None,
    no_gates: bool = False,
) -> None:
    """Measure how near synthetic samples come to real ones, of a trained generator or of a bank.

    Of a generator, figures and tables beside it, and its model card. Of a bank with --real one HTML page that stands
    alone: samples, spectra, what gates reject and why, what is memorised, class balance, fidelity, coverage.

    Args:
        run: folder that ``hsiaug train`` wrote, or of a bank.
        per_class: spectra per class, of a bank at most.
        count: synthetic pairs or images of a generator, 500 if null; of a bank samples that are looked at, at most,
            5000 spectra or 500 images if null.
        device: where a generator samples; auto takes a GPU where there is one.
        real: of a bank, what it is compared with: a scene; or the folder of the generator that ``hsiaug train`` wrote,
            or the config file of that command, which name scene, split and seed.
        split: how the scene is split, other than ``real`` says; random if nothing says it.
        seed: of the split, other than ``real`` says; 0 if nothing says it.
        out: of a bank, file of the page; <bank>_evaluation.html if null.
        study: of a bank, run folder of a study, or the file of a ratio search, whose curve the page shows.
        no_gates: of a bank, leave out gates, which take longest.
    """
    from ..datamodules.mixed import open_source
    from ..datasets import SyntheticBank, scene_dataset
    from ..report.change_evaluation import evaluate_changes
    from ..report.evaluation import evaluate_generator
    from ..report.page import write_page
    from ..report.patch_evaluation import evaluate_patches
    from ..report.scene_evaluation import evaluate_scenes
    from ..scenes.patches import PARTS
    from ..systems import Generator

    bank = open_source(run) if (run / BANK_FILE).exists() or (run / WRITING_FILE).exists() else None
    if isinstance(bank, SyntheticBank):
        if out is not None and out.is_dir():
            raise IsADirectoryError(f'{out} is a folder; give the file of the page')
        require_writable((out or run).absolute().parent)
        opened, parts = real_data(real, split, seed, run)
        path, glance = write_page(bank, opened, parts, out, count, per_class, not no_gates, study, progress=True)
        print('\n'.join(f'{name}: {value}' for name, value in glance))
        print(f'page: {path}')
        return
    if real is not None or study is not None or out is not None or no_gates:
        raise ValueError(
            f'{run} is no bank; real, out, study and no_gates are for banks: draw one with hsiaug sample {run}'
        )
    device = require_device(device)
    generator = Generator.from_pretrained(run, device)
    require_writable(run)
    opened, parts = trained_on(run)
    if not isinstance(parts, PatchSplit):
        print(evaluate_generator(generator, opened, parts, run, per_class))
        return
    measures: dict[Kind, Any] = {
        'segmentation': evaluate_patches, 'change': evaluate_changes, 'scene': evaluate_scenes,
    }  # fmt: skip
    train, test = (scene_dataset(opened, parts, part) for part in PARTS[::2])
    print(measures[generator.spec.kind](generator, train, test, run, count or 500))


def ratio(
    run: Path,
    ratios: tuple[float, ...] = (0.5, 1.0, 2.0, 5.0),
    labels: LabelPolicy = 'real',
    gated: bool = False,
    folds: int = 3,
    block: int = 8,
    trials: int = 6,
    k: float = 1.0,
    share: float = 1.0,
    classifier: ClassifierConfig | None = None,
    segmenter: SegmenterConfig | None = None,
    device: str = 'auto',
) -> None:
    """Choose a ratio on folds of the training area. Run it again to resume it.

    For each fold the generator is trained anew on the others. Nothing is mixed in (ratio 0) unless that is better by
    enough. The choice goes to <run>/ratio.json, which ``hsiaug evaluate BANK --real RUN --study RUN/ratio.json`` draws.

    Args:
        run: folder that ``hsiaug train`` wrote.
        ratios: synthetic samples per real sample; 0 is always among them.
        labels: classes of the synthetic samples: real, sqrt, uniform or inverse frequencies, or weights by class name.
        gated: put all gates in front of the generator, and leave out classes of which hardly anything passes.
        folds: that the training area is dealt to.
        block: side, in pixels or of patches in patches, of the blocks that go to a fold as a whole; smaller ones where
            a scene is small.
        trials: trainings of the best ratio; more than folds repeat the folds in other places.
        k: standard errors that the best ratio must be better than 0 by.
        share: share of the steps of a plain training.
        classifier: downstream classifier of spectra.
        segmenter: downstream network for image-mask pairs.
        device: where to train; auto takes a GPU where there is one.
    """
    from ..quality import PatchTrial, RatioSearch, Recorded, SpectraTrial, all_gates

    device = require_device(device)
    record, file = read_run(run), run / RUN_FILE
    if 'generator' not in read_json(file, 'a note of hsiaug train'):
        raise ValueError(f'{file} was written by an older version and does not name the generator; train again')
    require_writable(run)
    scene, split = open_split(record.scene, record.split, record.seed)
    kind = kind_of(record.scene, record.split)
    if kind not in ('spectrum', 'segmentation'):
        raise ValueError(
            f'{run} makes samples of kind {kind!r}; ratios are searched for spectra and image-mask pairs, '
            'others are compared by hsiaug ablate'
        )
    trial: Any = SpectraTrial if kind == 'spectrum' else PatchTrial
    config: Any = (classifier or ClassifierConfig()) if kind == 'spectrum' else (segmenter or SegmenterConfig())
    search = RatioSearch(tuple(ratios), (0.05,) if gated else (), folds, trials, min(2, trials), k, record.seed)
    measured = trial(
        scene, split, record.generator, config, record.settings, labels, folds=folds, block=block, share=share,
        device=device, gate=all_gates if gated else None,
    )  # fmt: skip
    trials_file = run / 'ratio_trials.jsonl'
    try:
        choice = search(Recorded(measured, trials_file))
    except KeyboardInterrupt:
        raise SystemExit(f'\ninterrupted; finished trials are in {trials_file}, the same command resumes it') from None
    write_json(run / 'ratio.json', choice.to_dict())
    print(choice)
    print(f'choice: {run / "ratio.json"}')


def ablate(
    out: Path = Path('runs/ablation'),
    scene: SceneConfig = SIMULATED,
    split: SplitConfig = RANDOM,
    per_class: tuple[int | None, ...] = (None,),
    arms: tuple[Arm, ...] | None = None,
    ratios: tuple[float, ...] = (0.25, 0.5, 1.0, 2.0, 5.0),
    seeds: int = 20,
    classifiers: tuple[Classifier, ...] | None = None,
    segmenters: tuple[Segmenter, ...] | None = None,
    detectors: tuple[Detector, ...] | None = None,
    scene_classifiers: tuple[SceneClassifier, ...] | None = None,
    title: str = 'Gain from synthetic samples',
    workers: int = 1,
    engine: Literal['process', 'ray'] = 'process',
    device: str = 'auto',
    quick: bool = False,
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
        classifiers: downstream classifiers of spectra; NN-1D if null.
        segmenters: downstream networks for patches (split.strategy patches); SegFormer if null.
        detectors: downstream networks for patches of two dates; ChangeFormer if null.
        scene_classifiers: downstream networks for labelled patches; a 2-D CNN if null.
        title: of the report.
        workers: processes at once.
        engine: local processes or a Ray cluster.
        device: where to train; auto takes a GPU where there is one.
        quick: 3 seeds, two ratios, short training; no basis for claims.
    """
    name = scene.name or scene.benchmark or (Path(scene.path).stem if scene.path else 'simulated')
    kind = kind_of(scene, split)
    patches = kind != 'spectrum'
    if patches and tuple(per_class) != (None,):
        raise ValueError('per_class budgets are for spectra; of patches, split.settings.max_train says how many to use')
    settings = tuple(
        Setting(
            name,
            f'{split.strategy}, ' + ('all labels' if budget is None else f'{budget} per class'),
            make_splitter(split, **({} if patches else {'per_class': budget})),
        )
        for budget in per_class
    )
    default, default_arms = DEFAULTS[kind]
    downstream: tuple[Downstream, ...] = classifiers or segmenters or detectors or scene_classifiers or (default(),)
    if downstream[0].kind != kind:
        raise ValueError(
            f'{type(downstream[0]).__name__} {downstream[0].name!r} works on samples of kind {downstream[0].kind!r}, '
            f'but split {split.strategy!r} of scene {name!r}, which has {scene.dates} date(s), gives {kind!r}; '
            f'give a {default.__name__}, or another split or scene'
        )
    arms = tuple(arms) if arms is not None else default_arms()
    for arm, model in product(arms, downstream):
        if arm.training and (config := getattr(model, 'config', None)) is not None:
            checked_arguments(type(config), arm.training, f'arm {arm.name!r}: training')
    study = Study(
        title=title,
        scenes={name: scene},
        settings=settings,
        arms=arms,
        ratios=tuple(ratios),
        seeds=tuple(range(seeds)),
        classifiers=tuple(downstream),
    )
    _run_and_report(quick_study(study) if quick else study, out, workers, engine, device)


def report(run: Path) -> None:
    """Draw the report of a study again.

    Args:
        run: run folder of ``hsiaug ablate`` or ``hsiaug demo``.
    """
    from ..report.ablation import text_table, write_report

    if (run / PLAN_FILE).is_file():  # elsewhere there is nothing to draw
        require_writable(run)
    paths = write_report(run)
    print(text_table(run))
    print(f'report: {paths.html}')


def _run_and_report(
    study: Study, out: Path, workers: int, engine: Literal['process', 'ray'] = 'process', device: str = 'auto'
) -> None:
    from ..systems.fit import require_settings

    device = require_device(device)
    _require_run_folder(out)
    for arm in study.arms:
        require_settings(arm.generator, arm.settings)
    try:
        run_study(study, out, workers, engine, device)
    except KeyboardInterrupt:
        raise SystemExit(f'\ninterrupted; finished cells are in {out}, the same command continues from there') from None
    if study.kind in ('segmentation', 'change'):
        from ..report.patch_evaluation import draw_pairs

        draw_pairs(study, out, device)
    if study.kind == 'change':
        from ..report.change_maps import draw_change_maps

        draw_change_maps(study, out)
    report(out)


def _require_run_folder(out: Path) -> None:
    """Refuse a folder that a study would write among the files of something else."""
    if found := [name for name in (CONFIG_FILE, BANK_FILE, WRITING_FILE) if (out / name).exists()]:
        raise FileExistsError(f'{out} holds a generator or a bank ({found[0]}), no study; choose another folder')
    require_writable(out)


FUNCTIONS: tuple[Callable[..., None], ...] = (demo, train, sample, evaluate, ratio, ablate, report)


def run(arguments: Sequence[str]) -> None:
    """Run a command. What a user can cause is one line on standard error and exit status 2, not a traceback.

    Args:
        arguments: the name of the command, and its options.
    """
    # jsonargparse wants a value for every bool; people type a bare flag.
    arguments = [f'{argument}=true' if argument in FLAGS else argument for argument in arguments]
    try:
        with terminated_like_interrupted():
            command, told = parse({f.__name__: f for f in FUNCTIONS}, arguments, 'hsiaug', DESCRIPTION)
            command(**told)
    except KeyboardInterrupt:
        raise SystemExit(
            '\ninterrupted; the same command starts again, or resumes where it has kept something'
        ) from None
    except (ArgumentError, ValueError, OSError, ImportError, MemoryError, RecursionError) as error:
        _give_up(error)
    except RuntimeError as error:
        if not (out_of_memory(error) or isinstance(error, WorkerDiedError)):
            raise
        _give_up(error)


def _give_up(error: Exception) -> NoReturn:
    said = ' '.join(str(error)[:LONGEST].split()) or type(error).__name__
    print(f'hsiaug: {said}', file=sys.stderr)
    raise SystemExit(2) from error
