"""Python in Markdown, run as a reader would paste it."""

from __future__ import annotations

import re
from typing import Any


def examples(text: str) -> list[tuple[str, str]]:
    """Name, which may be empty, and source of each block of Python, in order."""
    return re.findall(r'^```python ?(\w*)\n(.+?)^```', text, flags=re.DOTALL | re.MULTILINE)


def run_example(source: str, where: str, given: dict[str, Any]) -> dict[str, Any]:
    """Run an example in the namespace ``given``, which is changed and given back."""
    exec(compile(source, where, 'exec', dont_inherit=True), given)
    return given
