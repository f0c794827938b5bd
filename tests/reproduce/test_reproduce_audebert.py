"""``hsiaug reproduce audebert2018`` on small files in the public layout."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from public_layouts import write_benchmark_scene

from hsiaug.cli import main
from hsiaug.named_configs import published_config
from hsiaug.reproduce.audebert2018 import AUDEBERT2018, CONFIGS, HALVES, RANDOM
from hsiaug.tasks import TASKS


@pytest.fixture(scope='module')
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp('public')
    write_benchmark_scene(folder / 'Pavia', 'pavia_university')
    return folder


@pytest.fixture(scope='module')
def run(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp('runs') / 'audebert'
    main(['reproduce', 'audebert2018', '--data', str(data), '--out', str(out), '--scale', 'demo', '--device', 'cpu'])
    return out


def test_tables_hold_the_published_numbers_beside_ours(run: Path) -> None:
    found = {(line['row'], line['column']): line for line in json.loads((run / 'tables.json').read_text())['table 2']}
    ours = found['ss-GAN', f'PaviaU {HALVES}']
    assert ours['published'] == 87.20
    assert ours['seeds'] == 2
    assert ours['difference'] == pytest.approx(ours['mean'] - 87.20)
    assert ours['interval'] is not None
    assert ours['interval'][0] <= ours['mean'] <= ours['interval'][1]
    missing = found['∅', f'Botswana {RANDOM}']
    assert (missing['published'], missing['mean']) == (86.90, None)


@pytest.mark.parametrize('name', CONFIGS.values())
def test_the_classifier_is_without_what_the_text_lacks(name: str) -> None:
    """No dropout, no decorrelated bands; ``hsiaug ablate --config`` and ``hsiaug reproduce`` read it from one place."""
    (model,) = (TASKS['spectrum'].model(one) for one in published_config(name)['models'])
    assert (model.name, model.scalings, model.config.dropout) == ('nn1d', ('standard', 'minmax'), 0.0)


def test_a_table_whose_numbers_are_lost_has_ours_alone(run: Path) -> None:
    lines = json.loads((run / 'tables.json').read_text())['table 1']
    assert len(lines) == 16
    assert all(line['published'] is None and 0 <= line['mean'] <= 100 for line in lines)


def test_the_page_says_what_is_missing_and_shows_each_figure(run: Path) -> None:
    page = (run / 'index.html').read_text()
    assert 'Figure 2' in page
    assert 'Figure 3' in page
    assert 'Figure 4' in page
    assert page.count('data:image/png') == 4
    assert 'Botswana.mat' in page
    assert 'No figure means anything' in page
    assert 'http-equiv' not in page
    assert 'src="http' not in page


def test_it_resumes_and_refuses_another_run(
    run: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    again = tmp_path / 'again'
    shutil.copytree(run, again)
    monkeypatch.setattr('hsiaug.ablation.cells.Group.run', None)  # nothing is left to run
    arguments = ['reproduce', 'audebert2018', '--data', str(data), '--out', str(again), '--device', 'cpu']
    main([*arguments, '--scale', 'demo', '--table', '2'])
    assert 'Table 2' in (said := capsys.readouterr().out)
    assert 'Table 1' not in said
    assert 'found    PaviaU' in said
    assert 'missing  Botswana' in said
    for options, wrong in (
        (['--scale', 'paper'], 'at scale demo'),
        (['--scale', 'demo', '--table', '7'], 'no table 7'),
        (['--scale', 'demo', '--classes', '[maize]'], "no ['maize']"),
    ):
        with pytest.raises(SystemExit):
            main([*arguments, *options])
        assert wrong in capsys.readouterr().err


def test_figures_show_the_classes_that_are_asked_for(run: Path, data: Path, tmp_path: Path) -> None:
    from hsiaug.reproduce import Work, find_files

    found = find_files(AUDEBERT2018, data, 'demo')
    work = Work(AUDEBERT2018, 'demo', found, run, classes=('gravel', 'asphalt'))
    ((_, moments),) = AUDEBERT2018.figures[0].draw(work)
    assert [axes.get_title() for axes in moments.axes] == ['gravel', 'asphalt']
    captions = [caption for caption, _ in AUDEBERT2018.figures[2].draw(work)]
    assert captions == ['two samples of asphalt, PaviaU', 'gravel to asphalt, fixed noise, PaviaU']


def test_without_data_it_says_where_they_come_from(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(['reproduce', 'audebert2018', '--data', str(tmp_path), '--out', str(tmp_path / 'out')])
    said = capsys.readouterr().err
    assert 'PaviaU.mat' in said
    assert 'https://www.ehu.eus' in said
    assert not (tmp_path / 'out').exists()
