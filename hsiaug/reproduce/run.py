"""A run of a paper: find its files, measure and compare its tables, draw its figures."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.figure import Figure

from ..ablation.statistics import mean_interval
from ..records import checksum, read_json, short_digest, write_json
from ..trainers.inception import load_inception
from .base import Drawing, MissingDataError, Paper, Scale, Table, Values, Work

RUN_FILE = 'reproduction.json'


class Against(NamedTuple):
    """One of our figures next to the published one; None where there is none."""

    row: str
    column: str
    published: float | None
    mean: float | None  # ours, over seeds
    interval: tuple[float, float] | None  # 95 % t interval of the mean; None for fewer than two seeds
    seeds: int
    comparable: bool = True  # measured on the paper's data and in the same way

    @property
    def difference(self) -> float | None:
        """Our figure minus the published one; None if they are not comparable."""
        if self.published is None or self.mean is None or not self.comparable:
            return None
        return self.mean - self.published


def against(table: Table, values: Values, comparable: bool = True) -> list[Against]:
    """Every published number of a table next to ours, then those of ours that the paper lacks."""
    printed = {
        (row, column): number
        for row, numbers in table.published.items()
        for column, number in zip(table.columns, numbers, strict=True)
    }
    found = []
    for row, column in dict.fromkeys([*printed, *values]):
        mine = [float(value) for value in values.get((row, column), ())]
        mean, interval = mean_interval(mine) if mine else (None, None)
        interval = interval if len(mine) > 1 else None
        alike = comparable and not column.startswith(table.otherwise)
        found.append(Against(row, column, printed.get((row, column)), mean, interval, len(mine), alike))
    return found


def find_files(paper: Paper, data: Path, scale: Scale) -> dict[str, tuple[Path, ...]]:
    """Data sets found in a folder or below it: those of the paper or, except at scale ``paper``, their stand-ins.

    Raises:
        FileNotFoundError: there are none; the message says where to get them.
    """
    if not data.is_dir():
        raise FileNotFoundError(f'{data} is not a folder; give the folder with the files of {paper.name} as --data')
    there = {p: _matching(data, p) or _matching(data, f'**/{p}') for files in paper.files for p in files.paths}
    for stands_in in (False, True) if scale != 'paper' else (False,):
        of_kind = [files for files in paper.files if files.stands_in == stands_in]
        found = {f.name: tuple(there[p][0] for p in f.paths) for f in of_kind if all(there[p] for p in f.paths)}
        if found:
            return found
    own = [files for files in paper.files if not files.stands_in]
    missing = [p for f in own for p in f.paths if not there[p] and any(there[other] for other in f.paths)]
    what = f'no {", ".join(missing)} for the rest of' if missing else 'none of'
    wanted = '; '.join(f'{", ".join(f.paths)} ({f.name}: {f.source})' for f in own)
    raise FileNotFoundError(f'{data} holds {what} the data of {paper.name}: {wanted}')


def _matching(data: Path, pattern: str) -> list[Path]:
    """Files that match a pattern, without sidecar files of other programs."""
    return sorted(path for path in data.glob(pattern) if path.suffix.lower() not in ('.xml', '.ovr', '.enp', '.sta'))


def _content(place: Path) -> str:
    """Digest of a file, or of the names and sizes of the files in a folder."""
    if place.is_file():
        return checksum(place)
    files = sorted(file for file in place.rglob('*') if file.is_file())
    return short_digest([[file.relative_to(place), file.stat().st_size] for file in files])


@dataclass
class Reproduction:
    """Results of a run."""

    work: Work
    tables: list[tuple[Table, list[Against]]] = field(default_factory=list)
    figures: list[tuple[Drawing, list[tuple[str, Figure]]]] = field(default_factory=list)  # with captions
    left_out: dict[str, str] = field(default_factory=dict)  # reason why a table or figure was left out, by its name


def reproduce(work: Work, table: int | None = None) -> Reproduction:
    """Reproduce every table and figure for which there are data, or one table only; a second call resumes the first."""
    paper = work.paper
    tables = [one for one in paper.tables if table in (None, one.number)]
    if not tables:
        raise ValueError(f'{paper.name} has the tables {[t.number for t in paper.tables]}, no table {table}')
    if work.classes and not paper.class_figures:
        raise ValueError(f'no figure of {paper.name} shows classes that could be chosen; leave classes out')
    if work.inception is not None:
        if not paper.encoder:
            raise ValueError(f'{paper.name} compares no images by features of a network; leave inception out')
        load_inception(work.inception)  # what is wrong with it is said before anything is trained
    mine: dict[str, Any] = {'paper': paper.name, 'scale': work.scale}
    file, data = work.folder / RUN_FILE, {name: [*map(_content, places)] for name, places in work.found.items()}
    if file.is_file():
        theirs = read_json(file, 'the note of hsiaug reproduce')
        noted = theirs.pop('data', {})  # older versions did not write it
        if theirs != mine:
            raise ValueError(
                f'{work.folder} holds {theirs.get("paper")} at scale {theirs.get("scale")}, this is {paper.name} '
                f'at {work.scale}; choose another folder'
            )
        if changed := [name for name in data if noted.get(name, data[name]) != data[name]]:
            raise ValueError(
                f'{work.folder} holds scores of other files of {", ".join(changed)} than those that are there now; '
                'bring them back, or choose another folder'
            )
        data = {**noted, **data}
    write_json(file, {**mine, 'data': data})
    done = Reproduction(work)
    own = not any(files.stands_in and files.name in work.found for files in paper.files)
    for one in tables:
        try:
            done.tables.append((one, against(one, one.measure(work), own)))
        except MissingDataError as error:
            done.left_out[f'Table {one.number}'] = str(error)
            done.tables.append((one, against(one, {})))
    for drawing in paper.figures if table is None else ():
        try:
            done.figures.append((drawing, list(drawing.draw(work))))
        except MissingDataError as error:
            done.left_out[f'Figure {drawing.number}'] = str(error)
    return done
