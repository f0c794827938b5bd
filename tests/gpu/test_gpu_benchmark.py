"""The command for the minutes on a GPU: a failing part is recorded and the rest goes on; nothing is done twice."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / 'benchmarks'))
import gpu


def test_a_failing_part_is_recorded_and_the_rest_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ran = []

    def run(name: str, device: str, toy: bool, seconds: float, out: Path) -> dict[str, Any]:
        ran.append((name, seconds))
        found = {'error': 'ValueError: no such scene'} if name == 'change' else {'result': {'cells': 3, 'whole': True}}
        return {'part': name, 'toy': toy, 'seconds': 1.0, 'machine': {'device': 'a GPU'}, **found}

    monkeypatch.setattr(gpu, 'run_part', run)
    call = ['gpu.py', '--device', 'cpu', '--out', str(tmp_path), '--parts', 'change', 'segmentation']
    monkeypatch.setattr(sys, 'argv', [*call, '--minutes', '2'])
    gpu.main()
    assert [name for name, _ in ran] == ['change', 'segmentation']
    assert 40 < ran[0][1] < 50  # its share of the two
    assert 110 < ran[1][1] <= 120  # all that is left
    rows = [json.loads(line) for line in (tmp_path / 'parts.jsonl').read_text().splitlines()]
    assert [('error' in row, row['part']) for row in rows] == [(True, 'change'), (False, 'segmentation')]
    table = (tmp_path / 'table.md').read_text()
    assert '| change | two-stream above real only | error: ValueError: no such scene |' in table
    assert '| segmentation | two-stream above real only | 3 cells |' in table
    assert '| sampling | at most 10 ms a pair, at least 40 times | not run |' in table
    gpu.main()  # again: what has a result is left as it is
    assert [name for name, _ in ran] == ['change', 'segmentation', 'change']
    assert table.splitlines()[2] == 'Device: a GPU.'


@pytest.mark.slow
def test_every_part_runs_on_the_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, 'argv', ['gpu.py', '--device', 'cpu', '--toy', '--minutes', '2', '--out', str(tmp_path)])
    gpu.main()
    rows = [json.loads(line) for line in (tmp_path / 'parts.jsonl').read_text().splitlines()]
    assert [row['part'] for row in rows] == list(gpu.PARTS)
    for row in rows[:5]:
        assert 'result' in row, row
