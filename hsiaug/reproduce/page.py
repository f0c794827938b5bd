"""The page of a reproduction: published tables next to our results, and the figures."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import matplotlib

from ..records import write_json
from ..report.html import Picture, Section, Table, write_evaluation_page
from ..trainers.convergence import FALL
from ..trainers.inception import said_of_inception
from .base import Paper, Work
from .run import Against, Reproduction

PAGE_FILE, VALUES_FILE = 'index.html', 'tables.json'


def describe_files(paper: Paper, found: Mapping[str, tuple[Path, ...]], paths: bool = True) -> list[str]:
    """A line per data set: the paths or names found, or what is missing and where to get it."""
    instead = any(files.stands_in and files.name in found for files in paper.files)
    return [
        f'found    {files.name}: {", ".join(str(path) if paths else path.name for path in found[files.name])}'
        + (" (not the paper's data)" if files.stands_in else '')
        if files.name in found
        else f'missing  {files.name}: {", ".join(files.paths)}, from {files.source}'
        for files in paper.files
        if instead or not files.stands_in
    ]


def write_page(done: Reproduction) -> Path:
    """Write ``index.html``, with embedded pictures, and ``tables.json``; returns the path of the page."""
    work = done.work
    paper, path = work.paper, work.folder / PAGE_FILE
    with matplotlib.rc_context({'text.parse_math': False}):
        drawn = [
            Section(
                f'Figure {drawing.number}',
                [drawing.title + '.', *(Picture.of_figure(figure, caption) for caption, figure in figures)],
            )
            for drawing, figures in done.figures
        ]
    tables = []
    for table, lines in done.tables:
        rows = [_cells(line, table.digits) for line in lines if line.published is not None or line.mean is not None]
        header = ('', 'column', 'paper', 'ours', '95 % interval', 'ours − paper', 'seeds')
        settings = f'Published settings: configs/{", ".join(table.configs)}.' if table.configs else ''
        notes = [text for text in (table.note, settings, done.left_out.get(f'Table {table.number}', '')) if text]
        tables.append(Section(f'Table {table.number}: {table.title}', [*notes, Table(header, rows)]))
    encoder = f'features of {paper.encoder}' if work.inception is None else said_of_inception(work.inception)
    facts = [
        ('paper', paper.citation),
        *([('not reproduced, or differently', paper.note)] if paper.note else []),
        *([('FID of images', f'by {encoder}; in the paper, by those of the original FID')] if paper.encoder else []),
        *(tuple(line.split(None, 1)) for line in describe_files(paper, work.found, paths=False)),
    ]
    write_evaluation_page(
        path, f'{paper.name} at scale {work.scale}: published figures and ours', _warnings(done), facts,
        [*tables, *drawn, *_convergence(work)],
        json.dumps({**work.settings, 'seeds': len(work.seeds)}, default=str), device=work.device,
    )  # fmt: skip
    write_json(work.folder / VALUES_FILE, {
        f'table {table.number}': [{**line._asdict(), 'difference': line.difference} for line in lines]
        for table, lines in done.tables
    })  # fmt: skip
    return path


def _convergence(work: Work) -> list[Section]:
    falls = work.falls
    if not falls:
        return []
    note = (
        'A loss still falls where its mean over the last third of the steps is below that over the third before by '
        f'more than {FALL:.0%} of what it began with. Losses of networks that train against each other do not say it.'
    )
    rows = []
    for trained in dict.fromkeys(name for name, _ in falls):
        found = [value for (name, _), value in falls.items() if name == trained]
        known = [value for value in found if value is not None]
        rows.append((trained, str(len(found)), str(sum(known) or 'none') if known else '–'))
    return [Section('Whether trainings were long enough', [note, Table(('what', 'trainings', 'still falling'), rows)])]


def _warnings(done: Reproduction) -> list[str]:
    found, work, scale = list[str](), done.work, done.work.scale
    if others := [files.name for files in work.paper.files if files.stands_in and files.name in work.found]:
        found.append(f"Not the paper's data: {', '.join(others)} stand in. Differences to the paper mean nothing.")
    if scale == 'demo':
        found.append('Scale demo: trainings of a few steps, which show that everything runs. No figure means anything.')
    if scale == 'small':
        seeds = len(work.seeds)
        found.append(f'Scale small: smaller networks and shorter trainings than published; number of seeds: {seeds}.')
    found += [f'{name} is left out: {why}.' for name, why in done.left_out.items()]
    known = [falls for falls in work.falls.values() if falls is not None]
    if any(known) and scale != 'demo':
        found.append(
            f'Not converged: the loss of {sum(known)} of {len(known)} trainings still fell at their end; see below.'
        )
    return found


def _cells(line: Against, digits: int) -> tuple[str, ...]:
    def number(value: float | None, sign: str = '') -> str:
        return '–' if value is None else f'{value:{sign}.{digits}f}'

    interval = '–' if line.interval is None else ' to '.join(map(number, line.interval))
    return (
        line.row, line.column, number(line.published), number(line.mean), interval, number(line.difference, '+'),
        str(line.seeds),
    )  # fmt: skip


def text_table(done: Reproduction) -> str:
    """All tables as text for the terminal."""
    out = []
    for table, lines in done.tables:
        out += [f'Table {table.number}: {table.title}', '  paper      ours  difference']
        for line in lines:
            _, _, paper, ours, _, difference, _ = _cells(line, table.digits)
            out.append(f'{paper:>7} {ours:>9} {difference:>11}  {line.row}, {line.column}')
    return '\n'.join(out)
