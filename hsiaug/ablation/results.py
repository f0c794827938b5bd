"""The results file of a study: one line of JSON per finished cell, append only."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..json_lines import append_line, read_lines

RESULTS_FILE = 'results.jsonl'
PLAN_FILE = 'plan.json'

append_result = append_line


def read_results(path: Path) -> list[dict[str, Any]]:
    """Rows of a results file, the first of each cell, in file order; none where there is no file.

    Raises:
        ValueError: if a whole line is not a result, which no kill leaves behind.
    """
    rows: dict[str, dict[str, Any]] = {}
    for row in read_lines(path, 'cell', 'a result of a study'):
        if not isinstance(row['cell'], str):
            raise ValueError(f'{path}: the cell of a result must be text, found {row["cell"]!r}; is this another file?')
        rows.setdefault(row['cell'], row)
    return list(rows.values())
