import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / 'benchmarks'))

from workers import run_in_workers


def test_every_task_is_run(tmp_path: Path) -> None:
    tasks = [(f'open({str(tmp_path / str(k))!r}, "w").write("{k}")',) for k in range(5)]
    run_in_workers(exec, tasks, 2, 'tasks', 'task')
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {str(k): str(k) for k in range(5)}


def test_the_first_failure_ends_all(tmp_path: Path) -> None:
    slow = [(f'import time; time.sleep(0.2); open({str(tmp_path / str(k))!r}, "w")',) for k in range(12)]
    with pytest.raises(ZeroDivisionError):
        run_in_workers(exec, [('1 / 0',), *slow], 1, 'tasks', 'task')
    assert len(list(tmp_path.iterdir())) < 6  # those that the pool had already handed out
