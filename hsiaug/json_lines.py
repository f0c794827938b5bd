"""Files of JSON, one object a line, append only: what is measured in hours survives a kill."""

from __future__ import annotations

import fcntl
import json
import os
from pathlib import Path
from typing import Any


def append_line(path: Path, row: dict[str, Any]) -> None:
    """Append one line, atomically between processes and durable before it returns.

    A line that a kill tore off stays behind as a line of its own, which :func:`read_lines` skips.
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


def read_lines(path: Path, key: str, what: str) -> list[dict[str, Any]]:
    """All objects of a file in their order; none where there is no file.

    Each must have a ``key``, or the file is refused; ``what`` says in the message what an object is.
    """
    rows = []
    for number, line in enumerate(path.read_bytes().split(b'\n') if path.exists() else [], start=1):
        try:
            row = json.loads(line) if line else None
        except (ValueError, RecursionError):  # no JSON, no UTF-8, or nested without end
            continue  # torn off by a kill
        if row is None:
            continue
        if not isinstance(row, dict) or key not in row:
            raise ValueError(f'{path}, line {number}: not {what} ({line[:60]!r}); is this another file?')
        rows.append(row)
    return rows
