"""Records: read as data, written whole."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest

from hsiaug.records import as_record, read_json, require_plausible, write_json


@dataclass(frozen=True)
class Inner:
    rate: float = 0.5
    sizes: tuple[int, ...] = ()


@dataclass(frozen=True)
class Outer:
    name: str
    inner: Inner = field(default_factory=Inner)
    other: Inner | None = None
    mode: Literal['a', 'b'] = 'a'
    path: Path | None = None
    free: dict[str, Any] = field(default_factory=dict)


def test_record_comes_back_as_its_dataclass():
    found = as_record(
        Outer, {'name': 'x', 'inner': {'rate': 1, 'sizes': [1, 2]}, 'path': 'a/b', 'free': {'q': [1]}}, ''
    )
    assert found == Outer('x', Inner(1.0, (1, 2)), path=Path('a/b'), free={'q': [1]})


@pytest.mark.parametrize(
    ('data', 'named'),
    [
        ({'name': 'x', 'class_path': 'evil.X'}, "unknown field 'class_path'"),
        ({'name': 'x', 'inner': {'class_path': 'evil.X'}}, "unknown field 'class_path'"),
        ({'name': 'x', 'other': {'class_path': 'evil.X'}}, "unknown field 'class_path'"),
        ({'name': 'x', 'inner': {'rate': 'fast'}}, 'inner.rate'),
        ({'name': 'x', 'inner': {'sizes': [True]}}, 'inner.sizes.0'),
        ({'name': 'x', 'mode': 'c'}, 'mode'),
        ({'name': None}, 'name'),
        ({}, 'name'),
        ([], 'object'),
    ],
)
def test_what_does_not_fit_is_named(data, named):
    with pytest.raises(ValueError, match=r'run\.json: ') as raised:
        as_record(Outer, data, 'run.json')
    assert named in str(raised.value)


@pytest.mark.parametrize('text', ['', '{"a": ', '[' * 100_000, '[]', '3', b'\xff\xfe'])
def test_torn_or_foreign_json_is_an_error_that_names_the_file(tmp_path, text):
    file = tmp_path / 'bank.json'
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ValueError, match=r'bank.json is not a bank'):
        read_json(file, 'a bank')


def test_enormous_json_is_not_read(tmp_path):
    file = tmp_path / 'run.json'
    file.touch()
    os.truncate(file, 1 << 32)
    with pytest.raises(ValueError, match='at most'):
        read_json(file, 'a run')


def test_a_failed_write_leaves_the_old_record_and_nothing_else(tmp_path):
    file = tmp_path / 'run.json'
    write_json(file, {'a': 1})
    with pytest.raises(TypeError):
        write_json(file, {'a': object()})
    assert read_json(file, 'a run') == {'a': 1}
    assert list(tmp_path.iterdir()) == [file]


def test_declared_sizes_are_compared_with_stored_ones():
    require_plausible(200 << 20, 10, 'x')
    require_plausible(2 << 30, 1 << 30, 'x')
    with pytest.raises(ValueError, match='8,192 MiB'):
        require_plausible(8 << 30, 1 << 20, 'x.h5')
