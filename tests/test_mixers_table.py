"""The comparison with other libraries: its table is its record, and the tests that it names are there."""

import importlib.util
import re
import sys
from pathlib import Path

import pytest

from hsiaug.records import read_json

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / 'benchmarks' / 'results' / 'mixers'


def test_every_feature_of_ours_has_its_test() -> None:
    rows = [line for line in (RESULTS / 'features.md').read_text().splitlines() if line.startswith('| ')][1:]
    assert len(rows) > 10
    for row in rows:
        cells = [cell.strip() for cell in row.strip('|').split('|')]
        named = re.findall(r'`(tests/\S+\.py)::(\w+)`', cells[-1])
        assert bool(named) == (not cells[1].startswith('–')), row
        for file, test in named:
            assert f'def {test}(' in (ROOT / file).read_text(), test


def test_the_table_is_what_was_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, 'path', [str(ROOT / 'benchmarks'), *sys.path])
    spec = importlib.util.spec_from_file_location('mixers', ROOT / 'benchmarks' / 'mixers.py')
    module = importlib.util.module_from_spec(spec)  # type: ignore[arg-type]
    spec.loader.exec_module(module)  # type: ignore[union-attr]
    record = read_json(RESULTS / 'mixers.json', 'a record')
    assert (RESULTS / 'table.md').read_text() == module.table(record) + '\n'
    assert not record['left_out']
    assert set(record['libraries']) == set(module.LIBRARIES)
