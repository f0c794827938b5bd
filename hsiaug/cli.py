"""Command line: ``hsiaug demo | train | sample | evaluate | ablate | report``."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from jsonargparse import auto_cli

from .ablation import Arm, Classifier, Setting, Study, run_study
from .ablation.arms import quick as quick_study
from .ablation.arms import spectral_arms
from .ablation.cells import write_json
from .datasets import LabelPolicy
from .samples import LeakageError, SpecMismatchError
from .scenes import Scene, Split, make_splitter
from .scenes.config import SceneConfig

DESCRIPTION = 'Synthetic hyperspectral samples, mixed into real training at a ratio, and the gain measured honestly.'
RUN_FILE = 'run.json'


@dataclass(frozen=True)
class SplitConfig:
    """How a scene is split.

    Args:
        strategy: ``random``, ``halves``, ``blocks`` or ``groups``.
        settings: of the strategy, for example ``{fraction: 0.03}`` or ``{on_rare: drop}``.
    """

    strategy: Literal['random', 'halves', 'blocks', 'groups'] = 'random'
    settings: dict[str, Any] = field(default_factory=dict)


SIMULATED, RANDOM = SceneConfig(), SplitConfig()


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
    from .trainers import fit_generator, training_data

    opened, parts = _split(scene, split, seed)
    model = fit_generator(generator, training_data(opened, parts), settings, seed, device, progress=True)
    model.save_pretrained(out)
    run = {'scene': dataclasses.asdict(scene), 'split': dataclasses.asdict(split), 'seed': seed}
    write_json(out / RUN_FILE, run)
    print(f'{generator} trained on {opened.name} (split {parts.fingerprint}): {out}')


def sample(
    run: Path, count: int = 1000, out: Path = Path('samples.npz'), labels: LabelPolicy = 'real', seed: int = 0
) -> None:
    """Draw samples from a trained generator.

    Args:
        run: folder that ``hsiaug train`` wrote.
        count: number of samples.
        out: ``.npz`` file with ``image``, ``label``, ``wavelengths`` and the spec and provenance as JSON.
        labels: classes of the samples: real, uniform, inverse, or weights by class name.
        seed: of labels and noise.
    """
    import numpy as np

    from .datasets import SyntheticDataset
    from .generators import Generator

    if count < 1:
        raise ValueError(f'count must be at least 1, found {count}')
    generator = Generator.from_pretrained(run)
    dataset = SyntheticDataset(generator, count, seed, labels)
    batch: dict[str, Any] = {key: value.numpy() for key, value in dataset.batch(range(count)).items()}
    record = {'spec': generator.spec.to_dict(), 'seed': seed}
    record['provenance'] = generator.provenance.to_dict() if generator.provenance else None
    if generator.spec.wavelengths is not None:
        batch['wavelengths'] = np.array(generator.spec.wavelengths)
    out = out if out.suffix == '.npz' else out.with_name(out.name + '.npz')
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = out.with_name(f'.{out.name}')
    with temporary.open('wb') as file:
        np.savez_compressed(file, record=np.array(json.dumps(record)), **batch)
    temporary.replace(out)
    counts = dict(zip(generator.spec.classes, dataset.counts.tolist(), strict=True))
    print(f'{count} samples, {counts}: {out}')


def evaluate(run: Path, per_class: int = 200, device: str = 'cpu') -> None:
    """Measure the fidelity of a trained generator: figures and tables beside it, and its model card.

    Args:
        run: folder that ``hsiaug train`` wrote.
        per_class: synthetic samples per class.
        device: where to sample.
    """
    from .generators import Generator
    from .report.evaluation import evaluate_generator

    generator = Generator.from_pretrained(run, device)
    if not (run / RUN_FILE).is_file():
        raise FileNotFoundError(f'{run} holds no {RUN_FILE}, which says what it was trained on; use hsiaug train')
    record = json.loads((run / RUN_FILE).read_text())
    scene, parts = _split(SceneConfig(**record['scene']), SplitConfig(**record['split']), record['seed'])
    print(evaluate_generator(generator, scene, parts, run, per_class))


def ablate(
    out: Path = Path('runs/ablation'),
    scene: SceneConfig = SIMULATED,
    split: SplitConfig = RANDOM,
    per_class: tuple[int | None, ...] = (None,),
    arms: tuple[Arm, ...] | None = None,
    ratios: tuple[float, ...] = (0.25, 0.5, 1.0, 2.0, 5.0),
    seeds: int = 20,
    classifiers: tuple[Classifier, ...] | None = None,
    title: str = 'Gain from synthetic spectra',
    workers: int = 1,
    engine: Literal['process', 'ray'] = 'process',
    device: str = 'cpu',
    quick: bool = False,
) -> None:
    """Measure how much synthetic spectra help a classifier, and at which ratio. Run it again to resume it.

    Args:
        out: run folder.
        scene: the scene; the simulated one by default.
        split: how it is split.
        per_class: label budgets, labelled pixels per class; null for all of the training area.
        arms: ways of making synthetic samples; GANs, our own generator, rivals and controls if null.
        ratios: synthetic samples per real sample.
        seeds: number of paired seeds.
        classifiers: downstream classifiers; NN-1D if null.
        title: of the report.
        workers: processes at once.
        engine: local processes or a Ray cluster.
        device: where to train.
        quick: 3 seeds, two ratios, short training; no basis for claims.
    """
    name = scene.name or scene.benchmark or (Path(scene.path).stem if scene.path else 'simulated')
    settings = tuple(
        Setting(
            name,
            f'{split.strategy}, ' + ('all labels' if budget is None else f'{budget} per class'),
            make_splitter(split.strategy, **{**split.settings, 'per_class': budget}),
        )
        for budget in per_class
    )
    study = Study(
        title=title,
        scenes={name: scene},
        settings=settings,
        arms=spectral_arms() if arms is None else tuple(arms),
        ratios=tuple(ratios),
        seeds=tuple(range(seeds)),
        classifiers=(Classifier(),) if classifiers is None else tuple(classifiers),
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


def _split(scene: SceneConfig, split: SplitConfig, seed: int) -> tuple[Scene, Split]:
    opened = scene()
    return opened, make_splitter(split.strategy, **split.settings)(opened, seed)


def _run_and_report(
    study: Study, out: Path, workers: int, engine: Literal['process', 'ray'] = 'process', device: str = 'cpu'
) -> None:
    try:
        run_study(study, out, workers, engine, device)
    except KeyboardInterrupt:
        raise SystemExit(f'\ninterrupted; finished cells are in {out}, the same command goes on from there') from None
    report(out)


def main(args: Sequence[str] | None = None) -> None:
    """Entry point. A user's mistake is one line on standard error and exit status 2, not a traceback."""
    arguments = sys.argv[1:] if args is None else args
    # jsonargparse wants a value for every bool; people type a bare flag.
    arguments = ['--quick=true' if argument == '--quick' else argument for argument in arguments]
    functions: tuple[Callable[..., None], ...] = (demo, train, sample, evaluate, ablate, report)
    commands: dict[str, Any] = {f.__name__: f for f in functions}
    try:
        auto_cli(commands, args=arguments, prog='hsiaug', description=DESCRIPTION)
    except (ValueError, FileNotFoundError, LeakageError, SpecMismatchError, ImportError) as error:
        print(f'hsiaug: {error}', file=sys.stderr)
        raise SystemExit(2) from error


if __name__ == '__main__':
    main()
