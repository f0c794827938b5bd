"""Files of a run folder: finished cells (one line of JSON each, append only), the plan, names of other files."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..json_lines import read_lines
from ..records import short_digest

RESULTS_FILE = 'results.jsonl'
PLAN_FILE = 'plan.json'


def require_fields(found: Mapping[str, Any], fields: Mapping[str, type | tuple[type, ...]], where: str) -> None:
    """Check that a record of a run folder has these fields."""
    wrong = [name for name, kind in fields.items() if not isinstance(found.get(name), kind)]
    if wrong:
        raise ValueError(f'{where} lacks {wrong}, or has something else there; is it complete, and of a study?')


def read_results(path: Path) -> list[dict[str, Any]]:
    """Rows of a results file, the first of each cell, in file order; empty if there is no file."""
    rows: dict[str, dict[str, Any]] = {}
    for row in read_lines(path, 'cell', 'a result of a study'):
        if not isinstance(row['cell'], str):
            raise ValueError(f'{path}: the cell of a result must be text, found {row["cell"]!r}; is this another file?')
        rows.setdefault(row['cell'], row)
    return list(rows.values())


def file_stem(*names: str) -> str:
    """A readable, safe stem of a file name, unique for these names.

    Spaces become underscores. A digest distinguishes names with characters other than letters, digits and common
    punctuation, long names, and a last name with an underscore of its own.
    """
    text = '-'.join(names)
    plain = re.sub(r'[^\w.,;+%=()\[\]~-]', '_', text.replace(' ', '_')).encode()[:120].decode(errors='ignore')
    unsure = plain != text.replace(' ', '_') or '_' in names[-1] or plain.startswith('.')
    return f'{plain}-{short_digest(names)[:8]}' if unsure else plain
