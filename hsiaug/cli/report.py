"""``hsiaug report``."""

from __future__ import annotations

from pathlib import Path

from ..ablation.results import PLAN_FILE
from .guard import require_writable


def report(run: Path) -> None:
    """Redraw the report of a study.

    Args:
        run: folder written by ``hsiaug ablate`` or ``hsiaug demo``.
    """
    from ..report.ablation import text_table, write_report

    if (run / PLAN_FILE).is_file():  # elsewhere there is nothing to draw
        require_writable(run)
    paths = write_report(run)
    print(f'report: {paths.html}')
    print(text_table(run))
