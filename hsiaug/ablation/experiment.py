"""Resumable measurements other than studies of arms: cells, each measured once and recorded, in worker processes."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from ..json_lines import append_line
from ..progress import progress_bar
from ..records import json_ready, short_digest, write_json
from ..tasks.base import finite
from ..workers import Engine, check_workers, end_if_orphaned, naming, run_tasks
from .environment import command, environment, measured_with
from .identity import differences, require_same
from .results import PLAN_FILE, RESULTS_FILE, read_results
from .statistics import mean_interval

Record = dict[str, Any]
SUMMARY_FILE, TABLE_FILE = 'summary.json', 'table.md'


@dataclass(frozen=True)
class Experiment:
    """Cells, each of which is measured once.

    Args:
        title: title of the tables.
        cells: frozen dataclasses with the settings of one measurement each; cells with equal fields are the same.
        measure: module-level function, or a partial of one, that returns the JSON-ready record of a cell.
        settings: everything that the record of a cell depends on besides its own fields.
        group: function that maps cells to groups. Cells of a group are measured one after another in the same process,
            where ``measure`` may cache what they share, for example with ``functools.lru_cache(maxsize=1)``.
        about: further facts for the plan and the summary, on which no result depends.

    .. versionadded:: 0.1
    """

    title: str
    cells: Sequence[Any]
    measure: Callable[[Any], Mapping[str, Any]]
    settings: Mapping[str, Any] = field(default_factory=dict)
    group: Callable[[Any], Hashable] = short_digest
    about: Mapping[str, Any] = field(default_factory=dict)

    def run(
        self,
        out: str | os.PathLike[str],
        workers: int = 1,
        engine: Engine = 'process',
        device: str = 'cpu',
        progress: bool = True,
    ) -> list[Record]:
        """Measure missing cells, and return the records of all cells in their order.

        Every finished cell is one line of ``results.jsonl``: its fields, its record and its key, ``'cell'``. An
        interrupted run loses at most the cells being measured; repeat the call to resume it.

        Args:
            out: run folder.
            workers: number of parallel processes (or Ray tasks), one thread each; 1 measures in this process.
            engine: ``'process'`` or ``'ray'``.
            device: device of the measurement, for the record; ``measure`` has to use it.
            progress: show a progress bar with an estimate of the remaining time.

        Raises:
            ValueError: if the folder holds results of another experiment, naming what differs.
        """
        check_workers(self.title, workers, engine)
        folder = Path(out).expanduser().absolute()
        done = {row['cell'] for row in read_results(folder / RESULTS_FILE)}
        if done:
            mine = self._plan(device)['identity']
            require_same(folder, len(done), 'experiment', 'options', lambda found: differences(found, mine))
        write_json(folder / PLAN_FILE, {**self._plan(device), 'workers': workers})
        groups: dict[Hashable, list[Any]] = {}
        for key, cell in self._by_key().items():
            if key not in done:
                groups.setdefault(self.group(cell), []).append(cell)
        tasks, missing = [(cells,) for cells in groups.values()], sum(map(len, groups.values()))
        work_through(
            run_tasks(_measure, tasks, (self.measure, folder), workers, engine, device), self.title, missing, progress
        )
        return self.records(folder)

    def records(self, out: str | os.PathLike[str]) -> list[Record]:
        """Records of the cells measured so far, in order."""
        found = {row['cell']: row for row in read_results(Path(out).expanduser() / RESULTS_FILE)}
        return [found[key] for key in self._by_key() if key in found]

    def write(self, out: str | os.PathLike[str], text: str, records: Any, device: str = 'cpu') -> str:
        """Write ``table.md``, tables in Markdown, and ``summary.json``, their data; returns the text of the former.

        Both name the command, hardware, versions and commit.
        """
        folder, plan = Path(out).expanduser(), self._plan(device)
        text = f'# {self.title}\n\n{measured_with(plan)}\n\n{text}'
        write_json(folder / SUMMARY_FILE, {**plan, 'table': finite(records)})
        (folder / TABLE_FILE).write_text(text)
        return text

    def _by_key(self) -> dict[str, Any]:
        return {short_digest(cell): cell for cell in self.cells}

    def _plan(self, device: str) -> Record:
        identity = {'title': self.title, 'settings': json_ready(self.settings)}
        facts = {'title': self.title, 'command': command(), 'environment': environment(device)}
        return {**json_ready(self.about), **facts, 'identity': identity, 'cells': len(self._by_key())}


def work_through(running: Generator[int], title: str, missing: int, progress: bool) -> None:
    """Run tasks to the end, with a progress bar over the missing cells."""
    with progress_bar(progress, total=missing, unit='cell', desc=title, smoothing=0.05) as advance, closing(running):
        for finished in running:
            advance(finished)


def measure_each(file: Path, cells: Iterable[tuple[str, Callable[[], Record]]]) -> Iterator[int]:
    """Measure cells, each with a name for messages; append each record at once, and yield 1."""
    for what, measure in cells:
        end_if_orphaned()
        with naming(what):
            row = measure()
        append_line(file, row)
        yield 1


def _measure(measure: Callable[[Any], Mapping[str, Any]], folder: Path, cells: Sequence[Any]) -> Iterator[int]:
    """Measure the cells of one group."""

    def row(cell: Any) -> Record:
        return {**json_ready(cell), **measure(cell), 'cell': short_digest(cell)}

    yield from measure_each(folder / RESULTS_FILE, ((str(cell), partial(row, cell)) for cell in cells))


# --- tables -----------------------------------------------------------------------------------------------------------


def means(rows: Iterable[Mapping[str, Any]], by: Sequence[str], of: Sequence[str]) -> list[Record]:
    """Mean and 95 % interval of some values, ``of``, for each combination of others, ``by``, in the order of rows.

    Rows that lack a value are left out of its mean. Returns records of ``by``, ``'n'``, and ``{'mean', 'low', 'high'}``
    for each value.
    """
    groups: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault(tuple(row[name] for name in by), []).append(row)
    table = []
    for key, mine in groups.items():
        found: Record = {**dict(zip(by, key, strict=True)), 'n': len(mine)}
        for name in of:
            if values := [row[name] for row in mine if row.get(name) is not None]:
                mean, (low, high) = mean_interval(values)
                found[name] = {'mean': mean, 'low': low, 'high': high}
        table.append(found)
    return table


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A table in Markdown; see :func:`as_text` for the text of its cells."""
    lines = [header, ['---'] * len(header), *([as_text(value) for value in row] for row in rows)]
    return '\n'.join('| ' + ' | '.join(cells) + ' |' for cells in lines) + '\n'


def means_table(table: Iterable[Mapping[str, Any]], by: Sequence[str], of: Mapping[str, str]) -> str:
    """The result of :func:`means` in Markdown; ``of`` maps each value to its title."""
    rows = [[*(line[name] for name in by), line['n'], *(line.get(name) for name in of)] for line in table]
    return markdown_table([*by, 'seeds', *of.values()], rows)


Columns = Mapping[str, Callable[[Mapping[str, Any]], Any]]
"""Cells of a table row from a record, by column title."""


def records_table(records: Iterable[Mapping[str, Any]], columns: Columns) -> str:
    """A table in Markdown with a row for each record."""
    return markdown_table(list(columns), [[cell(record) for cell in columns.values()] for record in records])


def as_text(value: Any) -> str:
    """A value in a table: means ± half their interval, numbers with four digits, a dash for None."""
    if value is None:
        return '–'
    if isinstance(value, Mapping):
        half = (value['high'] - value['low']) / 2
        return f'{value["mean"]:.3g} ± {half:.2g}' if half > 0 else f'{value["mean"]:.4g}'
    return f'{value:.4g}' if isinstance(value, float) else str(value)
