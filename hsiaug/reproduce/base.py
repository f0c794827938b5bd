"""What a paper is: the files it needs, the numbers it prints, and what measures and draws the same again."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml  # type: ignore[import-untyped]
from matplotlib.figure import Figure

from ..ablation import Study, run_study
from ..ablation.results import RESULTS_FILE, read_results
from ..engine.loss_log import read_losses
from ..json_lines import append_line, read_lines
from ..named_configs import find_config
from ..records import short_digest
from ..systems.base import Generator, TrainingData
from ..systems.fit import fit_generator
from ..systems.saved import CONFIG_FILE, TRAINING_FOLDER
from ..systems.training import trainer_of
from ..trainers.convergence import still_falls

T = TypeVar('T')
Scale = Literal['paper', 'small', 'demo']
Values = Mapping[tuple[str, str], Sequence[float]]
"""Figures of our own, by row and column of a table: one of each seed."""

SCORES_FILE, LOSSES_FILE = 'scores.jsonl', 'losses.csv'
ADVERSARIAL = ('critic', 'discriminator')
MAIN = ('loss', 'reconstruction', 'gradient', 'generator')
"""Losses of opponents: a stage that has one does not say by its losses whether it has converged; and what it would."""


@dataclass(frozen=True)
class Files:
    """Files of one data set, in the layout that they are downloaded in.

    Args:
        name: of the data set.
        paths: files and folders below the folder of data, or in any folder of it; as patterns of ``Path.glob``.
        source: where they come from.
        stands_in: not the paper's, but taken at ``small`` and ``demo`` where all of the paper's own are missing.
    """

    name: str
    paths: tuple[str, ...]
    source: str
    stands_in: bool = False


Published = Mapping[str, Sequence[float | None]]
"""What a paper prints, by row: a number for each column, None where it prints none or its text has lost it."""


@dataclass(frozen=True)
class Table:
    """A table of a paper.

    Args:
        number: in the paper; of what a text claims without a table, a number behind its tables.
        title: what is in it.
        columns: names of its columns.
        published: its rows.
        measure: gives the same figures of our own, and others beside them.
        digits: after the decimal point.
        note: what a reader must know to compare both.
        otherwise: beginnings of columns that we measure otherwise than the paper, so that no difference is given.
        configs: names of the configurations with its published settings.
    """

    number: int
    title: str
    columns: tuple[str, ...]
    published: Published
    measure: Callable[[Work], Values]
    digits: int = 2
    note: str = ''
    otherwise: tuple[str, ...] = ()
    configs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Drawing:
    """Figures of a paper.

    Args:
        number: in the paper.
        title: what they show, and what the paper sees in them.
        draw: gives a caption and a figure each.
    """

    number: int
    title: str
    draw: Callable[[Work], Iterator[tuple[str, Figure]]]


@dataclass(frozen=True)
class Paper:
    """A paper.

    Args:
        name: on the command line.
        citation: authors, title, where and when.
        files: of all data sets that it uses, then of those that stand in for them.
        tables: of the paper, in its order.
        figures: of the paper, in its order.
        settings: of a run at each scale, as the page says them.
        note: what of the paper is not made again, and why.
        judge: of whose features Fréchet distances of images are, where no weights of Inception are given.
    """

    name: str
    citation: str
    files: tuple[Files, ...]
    tables: tuple[Table, ...]
    figures: tuple[Drawing, ...]
    settings: Mapping[Scale, Mapping[str, Any]]
    note: str = ''
    judge: str = ''


@dataclass(frozen=True)
class Work:
    """One run.

    Args:
        paper: what is made again.
        scale: how large.
        found: files that are there, by data set.
        folder: of the run.
        device: where to train.
        workers: processes at once, where a study takes more than one.
        classes: that figures show; the paper's own if empty.
        number: of seeds; that of the scale if None.
        inception: weights of the network by whose features images are compared; None for one that learns from the data.
        kept: what several tables and figures share, by name.
        falls: whether the loss of a training still fell at its end, None where no loss says it; by what was trained,
            and for which seed.
        noted: the same in the order in which it was said.
    """

    paper: Paper
    scale: Scale
    found: Mapping[str, tuple[Path, ...]]
    folder: Path
    device: str = 'cpu'
    workers: int = 1
    classes: tuple[str, ...] = ()
    number: int | None = None
    inception: Path | None = None
    kept: dict[str, Any] = field(default_factory=dict, compare=False)
    falls: dict[str, dict[str, bool | None]] = field(default_factory=dict, compare=False)
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

    def once(self, name: str, make: Callable[[], T]) -> T:
        """What several tables and figures share, made when it is first asked for."""
        if name not in self.kept:
            self.kept[name] = make()
        found: T = self.kept[name]
        return found

    def measured(self, rows: Mapping[str, Callable[[int], Mapping[str, float]]], columns: Mapping[str, str]) -> Values:
        """Figures of a table.

        Args:
            rows: gives scores by name, for a seed.
            columns: names of the scores, by column.
        """
        values: dict[tuple[str, str], list[float]] = defaultdict(list)
        for row, scores_of in rows.items():
            for seed in self.seeds:
                scores = scores_of(seed)
                for column, name in columns.items():
                    if name in scores:
                        values[row, column].append(scores[name])
        return values

    def note(self, trained: str, which: str, falls: bool | None) -> None:
        """Say whether the loss of a training still fell at its end.

        Args:
            trained: what was, in words.
            which: of these trainings, such as the seed.
            falls: see :class:`Work`.
        """
        self.falls.setdefault(trained, {})[which] = falls
        self.noted.append((trained, which, falls))

    def generator(self, name: str, kind: str, data: TrainingData, settings: Mapping[str, Any], seed: int) -> Generator:
        """A trained generator: the one that this run has kept, or a new one.

        Args:
            name: of its folder, beside the digest of what it is trained on.
            kind: registered name.
            data: what it learns from.
            settings: of its training.
            seed: of its training.
        """
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
                self.note(f'{name}, {stage}', folder.name, None if stage in opposed else still_falls(curve))
        return made

    def scored(
        self, key: Sequence[Any], measure: Callable[[], dict[str, float]], trained: str = ''
    ) -> dict[str, float]:
        """Scores that this run has kept, or new ones.

        Args:
            key: decides on them, beside paper and scale.
            measure: gives them; ``still_falls`` among them, 0 or 1, says so of the network that was trained for it.
            trained: name of that network.
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
            for said in row.get('noted', ()):
                self.note(*said)
        scores = dict(row['scores'])
        if 'still_falls' in scores:
            self.note(trained, digest, bool(scores.pop('still_falls')))
        return scores

    def study(self, study: Study, name: str) -> tuple[Path, list[dict[str, Any]]]:
        """A study in the folder of this run, finished, and its results; run once however often it is asked for.

        Args:
            study: the study.
            name: of its folder.
        """
        return self.once(f'study {name}', lambda: self._run(study, self.folder / 'studies' / name.replace(' ', '_')))

    def _run(self, study: Study, folder: Path) -> tuple[Path, list[dict[str, Any]]]:
        run_study(study, folder, self.workers, device=self.device)
        rows = [row for row in read_results(folder / RESULTS_FILE) if row['seed'] in study.seeds]
        for row in rows:
            self.note(f'{row["classifier"]}, {row["arm"]}, {row["scene"]}', row['cell'], row.get('still_falls'))
        for arm in (arm for arm in study.arms if trainer_of(arm.generator)):
            for setting, seed in study.groups():
                self.note(f'{arm.name}, {setting.scene}', f'{setting.budget}, {seed}', None)
        return folder, rows


def published_config(name: str) -> dict[str, Any]:
    """A configuration that comes with the package, as data."""
    found: dict[str, Any] = yaml.safe_load(find_config(name).read_text(encoding='utf-8'))
    return found


class MissingDataError(ValueError):
    """A table or figure whose data are not there."""
