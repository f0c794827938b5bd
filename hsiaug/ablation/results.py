"""The results file of a study: one line of JSON per finished cell, append only."""

from __future__ import annotations

import fcntl
import json
import os
from pathlib import Path
from typing import Any

RESULTS_FILE = 'results.jsonl'
PLAN_FILE = 'plan.json'


def append_result(path: Path, row: dict[str, Any]) -> None:
    """Append one line, atomically between processes and durable before it returns.

    A line that a kill tore off stays behind as a line of its own, which :func:`read_results` skips.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open('ab+') as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        line = json.dumps(row, allow_nan=False).encode() + b'\n'
        if file.seek(0, os.SEEK_END):
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b'\n':
                line = b'\n' + line
        file.write(line)
        file.flush()
        os.fsync(file.fileno())


def read_results(path: Path) -> list[dict[str, Any]]:
    """Rows of a results file, the first of each cell, in file order; none where there is no file.

    Raises:
        ValueError: if a whole line is not a result, which no kill leaves behind.
    """
    if not path.exists():
        return []
    rows: dict[str, dict[str, Any]] = {}
    for number, line in enumerate(path.read_bytes().split(b'\n'), start=1):
        try:
            row = json.loads(line) if line else None
        except (json.JSONDecodeError, UnicodeDecodeError):
            continue  # torn off by a kill; the cell runs again
        if row is None:
            continue
        if not isinstance(row, dict) or 'cell' not in row:
            raise ValueError(f'{path}, line {number}: not a result of a study ({line[:60]!r}); is this another file?')
        rows.setdefault(row['cell'], row)
    return list(rows.values())
