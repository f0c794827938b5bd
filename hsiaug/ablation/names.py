"""Names and numbers of a plan: checked, and made into file names."""

from __future__ import annotations

import re
from typing import Any

from ..ratio import require_ratio
from ..records import short_digest


def file_stem(*names: str) -> str:
    """The beginning of a file name for something with these names: readable, safe, and another for others.

    Spaces become underscores. Names of other signs than letters, digits and common punctuation, long ones, and the last
    one if it holds an underscore itself, are distinguished by a digest.
    """
    text = '-'.join(names)
    plain = re.sub(r'[^\w.,;+%=()\[\]~-]', '_', text.replace(' ', '_')).encode()[:120].decode(errors='ignore')
    unsure = plain != text.replace(' ', '_') or '_' in names[-1] or plain.startswith('.')
    return f'{plain}-{short_digest(names)[:8]}' if unsure else plain


def require_name(name: Any, what: str) -> None:
    """Check a name."""
    if not isinstance(name, str) or not name.strip():
        raise ValueError(f'{what}: a name expected, found {name!r}')


def require_ratios(ratios: Any, who: str) -> tuple[float, ...]:
    """Ratios as floats: at least one, and none twice."""
    found = tuple(require_ratio(ratio, f'{who}: ratio') for ratio in ratios)
    if not found or len(set(found)) < len(found):
        raise ValueError(f'{who}: at least one ratio, and none twice, expected, found {found}')
    return found
