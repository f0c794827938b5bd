"""Folders from anywhere: whatever their JSON says, an error of the project's own, no import, and no memory."""

from __future__ import annotations

import base64
import copy
import dataclasses
import inspect
import json
import resource
import sys
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hsiaug.ablation.read import read_run as read_study
from hsiaug.ablation.results import PLAN_FILE, RESULTS_FILE
from hsiaug.cli.config import RUN_FILE, Trained, read_run, read_train, trained_on
from hsiaug.cli.data import DataConfig
from hsiaug.cli.train import train
from hsiaug.datasets import SyntheticBank, write_bank
from hsiaug.report.html import Table
from hsiaug.report.page_ratio import ratio_section
from hsiaug.samples import require_unseen
from hsiaug.seen import Footprint
from hsiaug.systems import Generator, TrainingData
from hsiaug.trainers import fit_generator

MOST = 500 << 20
NASTY = (
    None, True, 0, -1, 1, 2, 10**6, 10**10, 10**30, 1e10, float('nan'), float('inf'), -0.5, '', 'text', '../../etc',
    'evil_module.X', {'class_path': 'evil_module.X', 'init_args': {}}, [], [[]], {}, [1, 'a'], 'x' * 5000, '\x00',
)  # fmt: skip

nasty = st.sampled_from(NASTY).map(copy.deepcopy)  # some are changed further

fuzzed = settings(
    max_examples=60, deadline=None, derandomize=True, database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)  # fmt: skip


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, one in inner:
        yield from places(one, (*path, key))


@st.composite
def spoilt(draw: st.DrawFn, record: Any) -> str:
    """The JSON of a record of which something is another value, gone, doubled or torn."""
    data = copy.deepcopy(record)
    for _ in range(draw(st.integers(1, 2))):
        path = draw(st.sampled_from(list(places(data))))
        how = draw(st.sampled_from(('change', 'change', 'delete', 'add')))
        if not path:
            data = draw(nasty) if how == 'change' and draw(st.booleans()) else data
            continue
        parent = data
        for key in path[:-1]:
            parent = parent[key]
        if how == 'change':
            parent[path[-1]] = draw(nasty)
        elif how == 'delete':
            del parent[path[-1]]
        elif isinstance(parent, dict):
            parent[draw(st.sampled_from(('class_path', 'extra', 'type')))] = draw(nasty)
    text = json.dumps(data)
    return text[: draw(st.integers(0, len(text)))] if draw(st.integers(0, 9)) == 0 else text


@pytest.fixture(autouse=True)
def trap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A module that must not be imported lies where Python would find it, and in the folder that is read."""
    for place in (tmp_path, tmp_path / 'read'):
        place.mkdir(exist_ok=True)
        (place / 'evil_module.py').write_text('class X: pass\n')
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path / 'read')
    path = list(sys.path)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    assert 'evil_module' not in sys.modules
    assert sys.path == path
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 < MOST


def refused_or_read(read: Callable[[], object]) -> None:
    """Either it is read, or the error is one that the command line says in a line."""
    said = 'read'
    try:
        read()
    except (json.JSONDecodeError, UnicodeDecodeError):
        raise
    except (ValueError, FileNotFoundError) as error:
        said = str(error)
    assert said


@pytest.mark.parametrize('kind', ['spectral_gan', 'variability', 'ensemble'])
def test_config_of_a_generator(data: TrainingData, tmp_path: Path, kind: str) -> None:
    made = {'spectral_gan': {'iterations': 1, 'hidden': 8}, 'ensemble': {'iterations': 1, 'hidden': 8, 'members': 2}}
    name = 'spectral_gan' if kind == 'ensemble' else kind
    folder = fit_generator(name, data, made.get(kind, {})).save_pretrained(tmp_path / 'read' / 'g')
    file = folder / 'config.json'
    record = json.loads(file.read_text())
    assert record['type'] == kind

    def opened() -> None:
        generator = Generator.from_pretrained(folder)
        assert generator.provenance is None or isinstance(generator.provenance.seed, int)
        if generator.provenance is not None and generator.provenance.seen is not None:
            require_unseen(generator.provenance, generator.provenance.seen.scene, np.array([3, 5]))

    @fuzzed
    @given(spoilt(record))
    def spoil(text: str) -> None:
        file.write_text(text)
        refused_or_read(opened)

    spoil()


def test_record_of_a_bank(data: TrainingData, tmp_path: Path) -> None:
    folder = tmp_path / 'read' / 'bank'
    write_bank(fit_generator('noise', data), 40, folder)
    file = folder / 'bank.json'

    @fuzzed
    @given(spoilt(json.loads(file.read_text())))
    def spoil(text: str) -> None:
        file.write_text(text)
        refused_or_read(lambda: SyntheticBank.open(folder).batch(range(3)))

    spoil()


def test_note_of_a_training(tmp_path: Path) -> None:
    folder = tmp_path / 'read'
    record = {
        'scene': {'path': None, 'labels': None, 'simulated': {'height': 24, 'width': 24, 'classes': 3}, 'name': 'x'},
        'split': {'strategy': 'random', 'settings': {'fraction': 0.2, 'on_rare': 'drop'}}, 'generator': 'noise',
        'settings': {'level': 0.1}, 'seed': 0,
    }  # fmt: skip
    (folder / RUN_FILE).write_text(json.dumps(record))
    assert isinstance(read_run(folder), Trained)
    assert trained_on(folder)[0].cube.shape[:2] == (24, 24)

    @fuzzed
    @given(spoilt(record))
    def spoil(text: str) -> None:
        (folder / RUN_FILE).write_text(text)
        refused_or_read(lambda: read_run(folder))

    spoil()


@pytest.mark.parametrize(
    'place', [('scene',), ('split',), ('scene', 'simulated'), ('settings',), ('split', 'settings'), ()], ids=str
)
def test_class_path_in_a_note_is_data_that_does_not_fit(tmp_path: Path, place: tuple[str, ...]) -> None:
    record: dict[str, Any] = {'scene': {'simulated': {}}, 'split': {'settings': {}}, 'settings': {}}
    inner = record
    for name in place:
        inner = inner[name]
    inner['class_path'] = 'evil_module.X'
    (tmp_path / 'read' / RUN_FILE).write_text(json.dumps(record))
    if place == ('settings',):  # of a generator, which is not made here
        assert read_run(tmp_path / 'read').settings == {'class_path': 'evil_module.X'}
        return
    with pytest.raises(ValueError, match='class_path'):
        trained_on(tmp_path / 'read')


def study_folder(folder: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    plan = {
        'title': 'a study', 'arms': [{'name': 'noise', 'generator': 'noise'}], 'quick': True,
        'settings': [['s', 'all labels']], 'metrics': ['oa', 'aa', 'kappa'],
    }  # fmt: skip
    scores = {'oa': 0.5, 'aa': 0.5, 'kappa': 0.4}
    rows = [
        {'cell': f'{arm}-{seed}', 'scene': 's', 'budget': 'all labels', 'classifier': 'nn1d', 'arm': arm,
         'ratio': ratio, 'seed': seed, 'control': False, 'val': scores, 'test': scores, 'train_real': 10,
         'test_count': 10}
        for seed in range(2) for arm, ratio in (('real', 0.0), ('noise', 1.0))
    ]  # fmt: skip
    (folder / PLAN_FILE).write_text(json.dumps(plan))
    (folder / RESULTS_FILE).write_text('\n'.join(map(json.dumps, rows)) + '\n')
    return plan, rows


def test_results_and_plan_of_a_study(tmp_path: Path) -> None:
    folder = tmp_path / 'read'
    plan, rows = study_folder(folder)
    assert len(read_study(folder).table) == 3

    @fuzzed
    @given(spoilt(rows[1]), spoilt(plan), st.booleans())
    def spoil(row: str, plan_text: str, of_plan: bool) -> None:
        study_folder(folder)
        if of_plan:
            (folder / PLAN_FILE).write_text(plan_text)
        else:
            lines = [json.dumps(rows[0]), row, *map(json.dumps, rows[2:])]
            (folder / RESULTS_FILE).write_text('\n'.join(lines) + '\n')
        refused_or_read(lambda: read_study(folder))

    spoil()


def test_file_of_a_ratio_search(tmp_path: Path) -> None:
    file = tmp_path / 'read' / 'ratio.json'
    candidate = {'ratio': 1.0, 'threshold': None}
    record = {
        'k': 1.0, 'chosen': candidate,
        'standings': [{'candidate': candidate, 'trials': 3, 'mean': 0.1, 'standard_error': 0.05}],
    }  # fmt: skip
    file.write_text(json.dumps(record))
    assert any(isinstance(part, Table) for part in ratio_section(file).parts)

    @settings(fuzzed, max_examples=40)
    @given(spoilt(record))
    def spoil(text: str) -> None:
        file.write_text(text)
        refused_or_read(lambda: ratio_section(file))

    spoil()


def test_a_footprint_unpacks_no_more_than_it_declares() -> None:
    held = Footprint.of('s', 1000, np.array([3, 8, 999]))
    assert held.pixels().tolist() == [3, 8, 999]
    assert held.within(np.array([999, 4, 3, -1, 5000])).tolist() == [3, 999]
    zeros, ones = (
        Footprint('s', 1 << 27, base64.b64encode(zlib.compress(byte * (1 << 24))).decode()) for byte in (b'\0', b'\xff')
    )
    assert zeros.pixels().size == 0
    for bomb in (
        Footprint('s', 10, zeros.packed),
        Footprint('s', 10**12, held.packed),
        Footprint('s', -8, held.packed),
        Footprint('s', 1000, 'no base64!'),
        Footprint('s', 1000, held.packed[:-8]),
    ):
        for read in (bomb.pixels, lambda one=bomb: one.within(np.array([1]))):
            with pytest.raises(ValueError, match='footprint'):
                read()
    with pytest.raises(ValueError, match='declares 1,024 MiB'):
        ones.pixels()
    assert ones.within(np.array([7])).tolist() == [7]


def test_a_note_of_before_took_the_scale_of_the_file(tmp_path: Path) -> None:
    def noted(**scene: Any) -> float | None:
        (tmp_path / RUN_FILE).write_text(json.dumps({'scene': {'path': 'x.tif', **scene}}))
        return read_run(tmp_path).scene.scale

    assert noted(scale=1.0) is None
    assert noted(scale=0.1) == 0.1
    assert noted(scale=1.0, ignore=None) == 1.0


def test_a_config_file_of_train_may_hold_whatever_that_command_takes(tmp_path: Path) -> None:
    datasets = {field.name for field in dataclasses.fields(DataConfig)}
    takes = set(inspect.signature(train).parameters) - {'samples'} | datasets
    assert {field.name for field in dataclasses.fields(Trained)} == takes | {'content'}  # which its note says as well
    (tmp_path / 'x.yaml').write_text('seed: 3\ndevices: 2\nnodes: 2\n')
    assert read_train(tmp_path / 'x.yaml').seed == 3
