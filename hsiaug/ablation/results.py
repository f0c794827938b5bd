"""The results file of a study: one line of JSON per finished cell, append only."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..json_lines import append_line, read_lines

RESULTS_FILE = 'results.jsonl'
PLAN_FILE = 'plan.json'

append_result = append_line


def require_fields(found: Mapping[str, Any], fields: Mapping[str, type | tuple[type, ...]], where: str) -> None:
    """Check that a record of a run folder has these fields."""
    wrong = [name for name, kind in fields.items() if not isinstance(found.get(name), kind)]
    if wrong:
        raise ValueError(f'{where} lacks {wrong}, or has something else there; is it complete, and of a study?')


def read_results(path: Path) -> list[dict[str, Any]]:
    """Rows of a results file, the first of each cell, in file order; none where there is no file."""
    rows: dict[str, dict[str, Any]] = {}
    for row in read_lines(path, 'cell', 'a result of a study'):
        if not isinstance(row['cell'], str):
            raise ValueError(f'{path}: the cell of a result must be text, found {row["cell"]!r}; is this another file?')
        rows.setdefault(row['cell'], row)
    return list(rows.values())
