"""What defines a paper: the files it needs, its published numbers, and the functions that reproduce them."""

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
"""Our own figures, by row and column of a table: one per seed."""

SCORES_FILE, LOSSES_FILE = 'scores.jsonl', 'losses.csv'
ADVERSARIAL = ('critic', 'discriminator')
MAIN = ('loss', 'reconstruction', 'gradient', 'generator')
"""Losses of adversaries, and main losses, which show convergence only in stages without an adversary."""


@dataclass(frozen=True)
class Files:
    """Files of one data set, in the layout in which they are downloaded."""

    name: str
    paths: tuple[str, ...]  # in the data folder or in any folder below it; patterns of Path.glob
    source: str  # where they come from
    stands_in: bool = False  # not the paper's, but used at scales small and demo if all of the paper's own are missing


Published = Mapping[str, Sequence[float | None]]
"""Published numbers by row, one per column; None where the paper gives none or our copy lacks it."""


@dataclass(frozen=True)
class Table:
    """A table of a paper."""

    number: int  # in the paper; claims made in the text only are numbered after its tables
    title: str
    columns: tuple[str, ...]
    published: Published
    measure: Callable[[Work], Values]  # returns our own figures for the same cells, and possibly more
    digits: int = 2  # after the decimal point
    note: str = ''  # what a reader must know to compare the two
    otherwise: tuple[str, ...] = ()  # prefixes of columns that we measure differently, for which no difference is given
    configs: tuple[str, ...] = ()  # configurations with its published settings


@dataclass(frozen=True)
class Drawing:
    """Figures of a paper."""

    number: int  # in the paper
    title: str  # what they show, and what the paper concludes from them
    draw: Callable[[Work], Iterator[tuple[str, Figure]]]  # yields captions and figures


@dataclass(frozen=True)
class Paper:
    """A paper."""

    name: str  # on the command line
    citation: str  # authors, title, where and when
    files: tuple[Files, ...]  # of all data sets that it uses, then of their stand-ins
    tables: tuple[Table, ...]
    figures: tuple[Drawing, ...]
    settings: Mapping[Scale, Mapping[str, Any]]  # of a run at each scale, as shown on the page
    note: str = ''  # what is not reproduced, and why
    class_figures: bool = False  # whether figures show classes that can be chosen
    encoder: str = ''  # whose features give Fréchet distances of images if no Inception weights are given


@dataclass(frozen=True)
class Work:
    """One run of a paper."""

    paper: Paper
    scale: Scale
    found: Mapping[str, tuple[Path, ...]]  # files found, by data set
    folder: Path
    device: str = 'cpu'
    workers: int = 1  # parallel processes of a study
    classes: tuple[str, ...] = ()  # shown in figures; the paper's own if empty
    number: int | None = None  # number of seeds; that of the scale if None
    inception: Path | None = None  # weights whose features compare images; None: a network trained here
    kept: dict[Any, Any] = field(default_factory=dict, compare=False)  # shared by several tables and figures
    # What was trained, its key, and whether its loss still fell at the end (None if its losses cannot tell).
    noted: list[tuple[str, str, bool | None]] = field(default_factory=list, compare=False)

    @property
    def settings(self) -> Mapping[str, Any]:
        """Settings of the paper at this scale."""
        return self.paper.settings[self.scale]

    @property
    def seeds(self) -> range:
        """Seeds; each sets split, initialisation and draws together."""
        return range(self.number or self.settings['seeds'])

    @property
    def features(self) -> list[str]:
        """Part of the key of scores: the weights that compare images, if they are not those of the usual network."""
        return [] if self.inception is None else [self.inception.name]

    def measured(self, rows: Mapping[str, Callable[[int], Mapping[str, float]]], columns: Mapping[str, str]) -> Values:
        """Figures of a table: each row maps a seed to scores by name; ``columns`` names the score of each column."""
        values: dict[tuple[str, str], list[float]] = defaultdict(list)
        for row, scores_of in rows.items():
            for seed in self.seeds:
                scores = scores_of(seed)
                for column, name in columns.items():
                    if name in scores:
                        values[row, column].append(scores[name])
        return values

    def trained_scores(self, model: Any, learnt: Any, test: Any, seed: int) -> dict[str, Any]:
        """Test scores of a downstream model trained on ``learnt``, and whether its loss still fell at the end."""
        task = task_of(test.spec)
        trained = task.train(model, learnt, seed, self.device)
        image, target = whole(test)
        scores = task.score(task.predict(trained, image), target, test.spec)
        return {**scores, 'still_falls': bool(loss_still_falls(trained))}

    @property
    def falls(self) -> dict[tuple[str, str], bool | None]:
        """Whether losses still fell, by what was trained and its key."""
        return {(trained, key): falls for trained, key, falls in self.noted}

    def generator(self, name: str, kind: str, data: TrainingData, settings: Mapping[str, Any], seed: int) -> Generator:
        """A trained generator of a registered kind: the one saved under ``name`` by this run, or a new one."""
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
        """Scores saved by this run under ``key``, or new ones.

        ``still_falls`` among the scores, 0 or 1, is whether the loss of the network trained for them, named
        ``trained``, still fell at the end.
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
        """Folder and results of a finished study of this run; it is run once, however often it is asked for."""
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
        """The first setting and seed of a study."""
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
    """Cache the result in the run: several tables and figures share it."""

    @wraps(make)
    def get(work: Work, /, *args: P.args, **kwargs: P.kwargs) -> T:
        key = make, args, tuple(kwargs.items())
        if key not in work.kept:
            work.kept[key] = make(work, *args, **kwargs)
        found: T = work.kept[key]
        return found

    return get


def picture_row(pictures: Mapping[str, Tensor], common: bool = False) -> Figure:
    """A row of grey pictures (H, W) with titles, scaled separately or to a common range."""
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
    """The data of a table or figure are missing."""


# --- public scenes used by several papers, and their stand-in ---------------------------------------------------------

STANDS_IN = 'Salinas-A'


def scene_files(scenes: Mapping[str, str]) -> tuple[Files, ...]:
    """Files of benchmark scenes, by their names in the paper, and of the stand-in."""
    known = {name: BENCHMARK_SCENES[key] for name, key in scenes.items()}
    return (
        *(Files(name, (scene.cube_file, scene.labels_file), scene.url) for name, scene in known.items()),
        Files(STANDS_IN, ('salinas_a.npz',), BENCHMARK_SCENES['salinas_a'].url, stands_in=True),
    )


def scene_study(
    work: Work, name: str, scenes: Mapping[str, str], config: str, settings: tuple[Setting, ...], **fields: Any
) -> Study:
    """A study of one of these scenes: the configuration, with learned generators as the scale shortens them."""
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
