"""Command line: ``hsiaug demo | train | sample | evaluate | ablate | report``."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from jsonargparse import auto_cli

from .ablation import Arm, Classifier, Detector, Downstream, SceneClassifier, Segmenter, Setting, Study, run_study
from .ablation.arms import change_arms, scene_arms, segmentation_arms, spectral_arms
from .ablation.arms import quick as quick_study
from .ablation.cells import write_json
from .datasets import LabelPolicy
from .datasets.bank_export import ExportFormat
from .samples import Kind, LeakageError, SpecMismatchError
from .scenes import LabelledPatchSplitter, PatchSplit, PatchSplitter, Scene, Split, make_splitter
from .scenes.config import SceneConfig
from .scenes.strategies import SPLITTERS

if TYPE_CHECKING:
    from .datasets import SyntheticBank
    from .generators import Generator

DESCRIPTION = 'Synthetic hyperspectral samples, mixed into real training at a ratio, and the gain measured honestly.'
RUN_FILE = 'run.json'
FLAGS = ('--quick', '--verify', '--preview')
MISTAKEN_PATH = (FileNotFoundError, FileExistsError, NotADirectoryError, PermissionError)


@dataclass(frozen=True)
class SplitConfig:
    """How a scene is split.

    Args:
        strategy: of pixels: ``random``, ``halves``, ``blocks`` or ``groups``; into image-mask pairs, or pairs of dates:
            ``patches``, or ``change_patches``, of which a share holds change; into patches with one label each:
            ``labelled_patches``.
        settings: of the strategy, for example ``{fraction: 0.03}``, ``{on_rare: drop}`` or ``{size: 32}``.
    """

    strategy: Literal['random', 'halves', 'blocks', 'groups', 'patches', 'change_patches', 'labelled_patches'] = (
        'random'
    )
    settings: dict[str, Any] = field(default_factory=dict)


SIMULATED, RANDOM = SceneConfig(), SplitConfig()
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
            Setting('simulated', '10 per class', make_splitter('blocks', per_class=10, block=10, on_rare='drop')),
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
    device: str = 'cpu',
) -> None:
    """Train a generator on the training part of a scene.

    Args:
        out: folder of the generator: config, weights, model card, and what it was trained on.
        scene: the scene; the simulated one by default.
        split: how it is split.
        generator: registered name.
        settings: of the generator.
        seed: of the split and the training.
        device: where to train.
    """
    from .generators.base import TRAINING_FOLDER
    from .trainers import fit_generator, training_data

    _require_device(device)
    opened, parts = _split(scene, split, seed)
    data = training_data(opened, parts)
    model = fit_generator(generator, data, settings, seed, device, progress=True, folder=out / TRAINING_FOLDER)
    model.save_pretrained(out)
    run = {'scene': dataclasses.asdict(scene), 'split': dataclasses.asdict(split), 'seed': seed}
    write_json(out / RUN_FILE, run)
    print(f'{generator} trained on {opened.name} (split {parts.fingerprint}): {out}')


def sample(
    run: Path,
    count: int = 1000,
    out: Path = Path('runs/bank'),
    labels: LabelPolicy = 'real',
    seed: int = 0,
    device: str = 'cpu',
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
        device: where to draw: cpu, cuda, cuda:1, ...
        devices: processes per machine that fill the bank together, each on its own device.
        nodes: machines that fill it together; torchrun or SLURM starts the same command on each.
        verify: read all shards and compare their checksums.
        preview: draw samples, beside the real ones that the generator was trained on, to <bank>_preview.png.
        export: write the bank in a format that others read too, to <bank>.npz, <bank>_geotiff or <bank>_webdataset.
    """
    from .datamodules.mixed import open_source
    from .datasets import SyntheticBank, scene_dataset
    from .generators import Generator
    from .report.bank import export_beside, preview_bank, summary

    _require_device(device, devices, nodes)
    source = open_source(run) if run.is_dir() else Generator.from_pretrained(run)
    if isinstance(source, SyntheticBank):
        if not (verify or preview or export):
            raise ValueError(
                f'{run} is a bank already; add --verify, --preview or --export, or give the folder of a generator'
            )
        bank = source
    else:
        drawn = _draw(cast(Generator, source).to(device), count, out, labels, seed, devices, nodes)
        if drawn is None:  # another process goes on
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


def evaluate(run: Path, per_class: int = 200, count: int = 500, device: str = 'cpu') -> None:
    """Measure the fidelity of a trained generator: figures and tables beside it, and its model card.

    Args:
        run: folder that ``hsiaug train`` wrote.
        per_class: synthetic spectra per class.
        count: synthetic image-mask pairs, or pairs of dates.
        device: where to sample.
    """
    from .datasets import scene_dataset
    from .generators import Generator
    from .report.change_evaluation import evaluate_changes
    from .report.evaluation import evaluate_generator
    from .report.patch_evaluation import evaluate_patches
    from .scenes.patches import PARTS

    _require_device(device)
    generator = Generator.from_pretrained(run, device)
    if not (run / RUN_FILE).is_file():
        raise FileNotFoundError(f'{run} holds no {RUN_FILE}, which says what it was trained on; use hsiaug train')
    opened, parts = trained_on(run)
    if not isinstance(parts, PatchSplit):
        print(evaluate_generator(generator, opened, parts, run, per_class))
        return
    measures: dict[Kind, Any] = {'segmentation': evaluate_patches, 'change': evaluate_changes}
    if (kind := generator.spec.kind) not in measures:
        raise ValueError(f'{run}: samples of kind {kind!r} have no fidelity report, those of {list(measures)} have')
    train, test = (scene_dataset(opened, parts, part) for part in PARTS[::2])
    print(measures[kind](generator, train, test, run, count))


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
    device: str = 'cpu',
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
        device: where to train.
        quick: 3 seeds, two ratios, short training; no basis for claims.
    """
    name = scene.name or scene.benchmark or (Path(scene.path).stem if scene.path else 'simulated')
    kind = _kind(scene, split)
    patches = kind != 'spectrum'
    if patches and tuple(per_class) != (None,):
        raise ValueError('per_class budgets are for spectra; of patches, split.settings.max_train says how many to use')
    settings = tuple(
        Setting(
            name,
            f'{split.strategy}, ' + ('all labels' if budget is None else f'{budget} per class'),
            make_splitter(split.strategy, **split.settings, **({} if patches else {'per_class': budget})),
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
    study = Study(
        title=title,
        scenes={name: scene},
        settings=settings,
        arms=tuple(arms) if arms is not None else default_arms(),
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
    from .report.ablation import text_table, write_report

    paths = write_report(run)
    print(text_table(run))
    print(f'report: {paths.html}')


def _split(scene: SceneConfig, split: SplitConfig, seed: int) -> tuple[Scene, Split | PatchSplit]:
    opened = scene()
    return opened, make_splitter(split.strategy, **split.settings)(opened, seed)


def _kind(scene: SceneConfig, split: SplitConfig) -> Kind:
    """Kind of the samples that a split gives, without opening the scene."""
    splitter = SPLITTERS[split.strategy]
    if issubclass(splitter, LabelledPatchSplitter):
        return 'scene'
    if issubclass(splitter, PatchSplitter):
        return 'change' if scene.dates == 2 else 'segmentation'
    return 'spectrum'


def trained_on(run: Path) -> tuple[Scene, Split | PatchSplit]:
    """The scene and the split that ``hsiaug train`` noted."""
    record = json.loads((run / RUN_FILE).read_text())
    return _split(SceneConfig(**record['scene']), SplitConfig(**record['split']), record['seed'])


def _require_device(name: str, devices: int = 1, nodes: int = 1) -> None:
    """Check that this machine has what is asked for, before any work is done.

    Raises:
        ValueError: for an unknown device, or fewer GPUs than asked for.
    """
    import torch

    if min(devices, nodes) < 1:
        raise ValueError(f'devices and nodes must be at least 1, found {devices} and {nodes}')
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(f'unknown device {name!r}; choose cpu, cuda, cuda:0, cuda:1, ...') from error
    if devices * nodes > 1 and device.index is not None:
        raise ValueError(f'device {name!r} names a single one; for many choose --device {device.type}')
    wanted, found = max(devices, (device.index or 0) + 1), torch.cuda.device_count()
    if device.type == 'cuda' and wanted > found:
        raise ValueError(f'device {name!r} needs {wanted} GPUs, PyTorch finds {found}; choose fewer, or --device cpu')


def _draw(
    generator: Generator, count: int, out: Path, labels: LabelPolicy, seed: int, devices: int, nodes: int
) -> SyntheticBank | None:
    """Write a bank on one or many devices; None in processes that only help."""
    from lightning.fabric import Fabric
    from torch import distributed

    from .datasets import write_bank

    if out.suffix == '.npz':
        raise ValueError(f'{out}: out is the folder of a bank; for an .npz file beside it add --export npz')
    fabric = None
    if devices * nodes > 1:
        fabric = Fabric(accelerator=generator.device.type, devices=devices, num_nodes=nodes)
        fabric.launch()
    helper = fabric is not None and fabric.global_rank > 0
    try:
        bank = write_bank(generator, count, out, labels=labels, seed=seed, fabric=fabric, progress=True)
    except KeyboardInterrupt:
        said = f'\ninterrupted; finished shards are in {out}, the same command goes on from there'
        raise SystemExit(1 if helper else said) from None
    finally:
        if fabric is not None:  # the threads of its process group must not outlive the interpreter
            distributed.destroy_process_group()
    return None if helper else bank


def _run_and_report(
    study: Study, out: Path, workers: int, engine: Literal['process', 'ray'] = 'process', device: str = 'cpu'
) -> None:
    try:
        run_study(study, out, workers, engine, device)
    except KeyboardInterrupt:
        raise SystemExit(f'\ninterrupted; finished cells are in {out}, the same command goes on from there') from None
    if study.kind in ('segmentation', 'change'):
        from .report.patch_evaluation import draw_pairs

        draw_pairs(study, out, device)
    if study.kind == 'change':
        from .report.change_maps import draw_change_maps

        draw_change_maps(study, out)
    report(out)


def main(args: Sequence[str] | None = None) -> None:
    """Entry point. A user's mistake is one line on standard error and exit status 2, not a traceback."""
    arguments = sys.argv[1:] if args is None else args
    # jsonargparse wants a value for every bool; people type a bare flag.
    arguments = [f'{argument}=true' if argument in FLAGS else argument for argument in arguments]
    functions: tuple[Callable[..., None], ...] = (demo, train, sample, evaluate, ablate, report)
    commands: dict[str, Any] = {f.__name__: f for f in functions}
    try:
        auto_cli(commands, args=arguments, prog='hsiaug', description=DESCRIPTION)
    except (ValueError, *MISTAKEN_PATH, LeakageError, SpecMismatchError, ImportError) as error:
        print(f'hsiaug: {error}', file=sys.stderr)
        raise SystemExit(2) from error


if __name__ == '__main__':
    main()
