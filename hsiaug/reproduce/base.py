"""What a paper is: the files it needs, the numbers it prints, and what measures and draws the same again."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import wraps
from pathlib import Path
from typing import Any, Concatenate, Literal, ParamSpec, TypeVar

import torch
from matplotlib.figure import Figure
from torch import Tensor

from ..ablation import Arm, Setting, Study, run_study
from ..ablation.cells import Group
from ..ablation.results import RESULTS_FILE, read_results
from ..ablation.runner import open_group
from ..engine.loss_log import read_losses
from ..json_lines import append_line, read_lines
from ..named_configs import published_config
from ..records import as_record, short_digest
from ..scenes import BENCHMARK_SCENES
from ..scenes.config import SceneConfig
from ..systems.base import Generator, TrainingData
from ..systems.fit import fit_generator
from ..systems.saved import CONFIG_FILE, TRAINING_FOLDER
from ..systems.training import trainer_of
from ..tasks import task_of, whole
from ..trainers.convergence import loss_still_falls, still_falls

T = TypeVar('T')
P = ParamSpec('P')
Scale = Literal['paper', 'small', 'demo']
Values = Mapping[tuple[str, str], Sequence[float]]
"""Figures of our own, by row and column of a table: one of each seed."""

SCORES_FILE, LOSSES_FILE = 'scores.jsonl', 'losses.csv'
ADVERSARIAL = ('critic', 'discriminator')
MAIN = ('loss', 'reconstruction', 'gradient', 'generator')
"""Losses of opponents: a stage that has one does not say by its losses whether it has converged; and what it would."""


@dataclass(frozen=True)
class Files:
    """Files of one data set, in the layout that they are downloaded in."""

    name: str
    paths: tuple[str, ...]  # below the folder of data, or in any folder of it; patterns of Path.glob
    source: str  # where they come from
    stands_in: bool = False  # not the paper's, but taken at small and demo where all of the paper's own are missing


Published = Mapping[str, Sequence[float | None]]
"""What a paper prints, by row: a number for each column, None where it prints none or its text has lost it."""


@dataclass(frozen=True)
class Table:
    """A table of a paper."""

    number: int  # in the paper; of what a text claims without a table, a number after its tables
    title: str
    columns: tuple[str, ...]
    published: Published
    measure: Callable[[Work], Values]  # gives the same figures of our own, and others
    digits: int = 2  # after the decimal point
    note: str = ''  # what a reader must know to compare both
    otherwise: tuple[str, ...] = ()  # beginnings of columns that we measure otherwise, so that no difference is given
    configs: tuple[str, ...] = ()  # configurations with its published settings


@dataclass(frozen=True)
class Drawing:
    """Figures of a paper."""

    number: int  # in the paper
    title: str  # what they show, and what the paper sees in them
    draw: Callable[[Work], Iterator[tuple[str, Figure]]]  # gives a caption and a figure each


@dataclass(frozen=True)
class Paper:
    """A paper."""

    name: str  # on the command line
    citation: str  # authors, title, where and when
    files: tuple[Files, ...]  # of all data sets that it uses, then of those that stand in for them
    tables: tuple[Table, ...]
    figures: tuple[Drawing, ...]
    settings: Mapping[Scale, Mapping[str, Any]]  # of a run at each scale, as the page says them
    note: str = ''  # what of the paper is not made again, and why
    encoder: str = ''  # of whose features Fréchet distances of images are, where no weights of Inception are given


@dataclass(frozen=True)
class Work:
    """One run of a paper."""

    paper: Paper
    scale: Scale
    found: Mapping[str, tuple[Path, ...]]  # files that are there, by data set
    folder: Path
    device: str = 'cpu'
    workers: int = 1  # processes at once, where a study takes more than one
    classes: tuple[str, ...] = ()  # that figures show; the paper's own if empty
    number: int | None = None  # of seeds; that of the scale if None
    inception: Path | None = None  # weights by whose features images are compared; None: a network that learns them
    kept: dict[Any, Any] = field(default_factory=dict, compare=False)  # what several tables and figures share
    # What was trained, which of those of one name, and whether its loss still fell at its end, None if no loss says it.
    noted: list[tuple[str, str, bool | None]] = field(default_factory=list, compare=False)

    @property
    def settings(self) -> Mapping[str, Any]:
        """Of the paper at this scale."""
        return self.paper.settings[self.scale]

    @property
    def seeds(self) -> range:
        """Of split, initialisation and draws together."""
        return range(self.number or self.settings['seeds'])

    @property
    def features(self) -> list[str]:
        """What images are compared by, where it is not the usual network: a part of keys of scores."""
        return [] if self.inception is None else [self.inception.name]

    def measured(self, rows: Mapping[str, Callable[[int], Mapping[str, float]]], columns: Mapping[str, str]) -> Values:
        """Figures of a table, whose rows give scores by name for a seed; ``columns`` say which of these each shows."""
        values: dict[tuple[str, str], list[float]] = defaultdict(list)
        for row, scores_of in rows.items():
            for seed in self.seeds:
                scores = scores_of(seed)
                for column, name in columns.items():
                    if name in scores:
                        values[row, column].append(scores[name])
        return values

    def trained_scores(self, model: Any, learnt: Any, test: Any, seed: int) -> dict[str, Any]:
        """Scores on test samples of a downstream model that learns from others; and whether its loss still fell."""
        task = task_of(test.spec)
        trained = task.train(model, learnt, seed, self.device)
        image, target = whole(test)
        scores = task.score(task.predict(trained, image), target, test.spec)
        return {**scores, 'still_falls': bool(loss_still_falls(trained))}

    @property
    def falls(self) -> dict[str, dict[str, bool | None]]:
        """What is noted of trainings, by what was trained."""
        found: dict[str, dict[str, bool | None]] = {}
        for trained, which, falls in self.noted:
            found.setdefault(trained, {})[which] = falls
        return found

    def generator(self, name: str, kind: str, data: TrainingData, settings: Mapping[str, Any], seed: int) -> Generator:
        """A trained generator of a registered kind: the one that this run has kept under ``name``, or a new one."""
        named = {key: value.name if isinstance(value, Path) else value for key, value in settings.items()}
        decides = [kind, named, seed, data.provenance.split if data.provenance else None, data.spec.bands]
        folder = self.folder / 'generators' / f'{name}-{seed}-{short_digest(decides)}'
        if (folder / CONFIG_FILE).is_file():
            made = Generator.from_pretrained(folder, self.device)
        else:
            place = folder / TRAINING_FOLDER
            made = fit_generator(
                kind, data, dict(settings), seed, self.device, progress=True, folder=place, losses=place / LOSSES_FILE
            )
            made.save_pretrained(folder)
        curves = read_losses(folder / TRAINING_FOLDER / LOSSES_FILE)
        opposed = {stage for stage, loss in curves if loss in ADVERSARIAL}
        for (stage, loss), curve in curves.items():
            if loss in MAIN:
                falls = None if stage in opposed else still_falls(curve)
                self.noted.append((f'{name}, {stage}', folder.name, falls))
        return made

    def scored(
        self, key: Sequence[Any], measure: Callable[[], dict[str, float]], trained: str = ''
    ) -> dict[str, float]:
        """Scores that this run has kept, or new ones.

        ``key`` decides on them, next to paper and scale. ``still_falls`` among the scores, 0 or 1, says so of the
        network, named ``trained``, that was trained for them.
        """
        file = self.folder / SCORES_FILE
        digest = short_digest([list(key), {k: v for k, v in self.settings.items() if k != 'seeds'}])
        row = next((row for row in read_lines(file, 'key', SCORES_FILE) if row['key'] == digest), None)
        if row is None:
            start = len(self.noted)
            scores = {name: float(value) for name, value in measure().items() if value == value}
            noted = self.noted[start:]
            row = {'key': digest, 'of': [str(part) for part in key], 'scores': scores, 'noted': noted}
            append_line(file, row)
        else:
            self.noted.extend(row.get('noted', ()))
        scores = dict(row['scores'])
        if 'still_falls' in scores:
            self.noted.append((trained, digest, bool(scores.pop('still_falls'))))
        return scores

    def study(self, study: Study, name: str) -> tuple[Path, list[dict[str, Any]]]:
        """The folder of a study in that of this run, finished, and its results; run once, however often it is asked."""
        if name in self.kept:
            found: tuple[Path, list[dict[str, Any]]] = self.kept[name]
            return found
        folder = self.folder / 'studies' / name.replace(' ', '_')
        run_study(study, folder, self.workers, device=self.device)
        rows = [row for row in read_results(folder / RESULTS_FILE) if row['seed'] in study.seeds]
        for row in rows:
            named = f'{row["classifier"]}, {row["arm"]}, {row["scene"]}'
            self.noted.append((named, row['cell'], row.get('still_falls')))
        for arm in (arm for arm in study.arms if trainer_of(arm.generator)):
            for setting, seed in study.groups():
                self.noted.append((f'{arm.name}, {setting.scene}', f'{setting.budget}, {seed}', None))
        self.kept[name] = folder, rows
        return folder, rows

    def group(self, study: Study, name: str) -> Group:
        """The first setting and seed of a study, which is run first."""
        folder, _ = self.study(study, name)
        return open_group(study, study.settings[0], study.seeds[0], folder, self.device)

    def scores_of(
        self,
        study_of: Callable[[Work, str], Study],
        metric: str,
        row: Callable[[Any], str],
        column: Callable[[Any], str],
    ) -> Values:
        """Test scores in percent of a study of each scene, by what names the row and column of a result."""
        values: dict[tuple[str, str], list[float]] = defaultdict(list)
        for name in self.found:
            for found in self.study(study_of(self, name), name)[1]:
                values[row(found), column(found)].append(100 * found['test'][metric])
        return values


def kept(make: Callable[Concatenate[Work, P], T]) -> Callable[Concatenate[Work, P], T]:
    """What several tables and figures of a run share: made when it is first asked for, and kept by the run."""

    @wraps(make)
    def get(work: Work, /, *args: P.args, **kwargs: P.kwargs) -> T:
        key = make, args, tuple(kwargs.items())
        if key not in work.kept:
            work.kept[key] = make(work, *args, **kwargs)
        found: T = work.kept[key]
        return found

    return get


def picture_row(pictures: Mapping[str, Tensor], common: bool = False) -> Figure:
    """Grey pictures (H, W) with titles; each of its own range of values, or all of a common one."""
    figure = Figure(figsize=(2.4 * len(pictures), 2.7), layout='constrained')
    low, high = (
        (min(map(torch.amin, pictures.values())), max(map(torch.amax, pictures.values()))) if common else (None,) * 2
    )
    for axes, (title, picture) in zip(figure.subplots(1, len(pictures)), pictures.items(), strict=True):
        axes.imshow(picture.numpy(), cmap='gray', vmin=low, vmax=high)
        axes.set_title(title, fontsize=9)
        axes.set_axis_off()
    return figure


class MissingDataError(ValueError):
    """A table or figure whose data are not there."""


# --- public scenes that several papers are measured on, and the one that stands in for them ---------------------------

STANDS_IN = 'Salinas-A'


def scene_files(scenes: Mapping[str, str]) -> tuple[Files, ...]:
    """The files of benchmark scenes, by the paper's names for them, and of the one that stands in."""
    known = {name: BENCHMARK_SCENES[key] for name, key in scenes.items()}
    return (
        *(Files(name, (scene.cube_file, scene.labels_file), scene.url) for name, scene in known.items()),
        Files(STANDS_IN, ('salinas_a.npz',), BENCHMARK_SCENES['salinas_a'].url, stands_in=True),
    )


def scene_study(
    work: Work, name: str, scenes: Mapping[str, str], config: str, settings: tuple[Setting, ...], **fields: Any
) -> Study:
    """A study of one of them, as a configuration has it but for what the scale changes of learned generators."""
    found, file = published_config(config), work.found[name][0]
    arms = [as_record(Arm, arm, config) for arm in found['arms']]
    return Study(
        scenes={
            name: SceneConfig(benchmark=scenes[name], root=str(file.parent))
            if name in scenes
            else SceneConfig(path=str(file), labels_key='gt', name=name, on_bad_bands='drop')
        },
        settings=settings,
        arms=tuple(
            replace(arm, settings={**arm.settings, **work.settings['gan']}) if trainer_of(arm.generator) else arm
            for arm in arms
        ),
        ratios=tuple(found['ratios']),
        seeds=tuple(work.seeds),
        quick=work.scale == 'demo',
        **fields,
    )
