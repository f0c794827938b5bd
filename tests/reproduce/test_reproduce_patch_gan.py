"""``hsiaug reproduce patch_gan``, and what holds for all papers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import get_args, get_type_hints

from public_layouts import write_benchmark_scene

from hsiaug.cli import main
from hsiaug.cli.reproduce import reproduce
from hsiaug.reproduce import PAPERS
from hsiaug.reproduce.run import against


def test_gains_stand_alone_where_a_text_prints_none(tmp_path: Path) -> None:
    write_benchmark_scene(tmp_path / 'data', 'pavia_university', side=64)
    out = tmp_path / 'run'
    arguments = ['reproduce', 'patch_gan', '--data', str(tmp_path / 'data'), '--out', str(out), '--scale', 'demo']
    main([*arguments, '--device', 'cpu'])
    lines = json.loads((out / 'tables.json').read_text())['table 1']
    arms = ('patch GAN', 'patch GAN, WGAN-GP', 'affine')
    assert {line['row'] for line in lines} == {'real only', *(f'{arm}, ratio {r}' for arm in arms for r in (1, 4))}
    assert {line['column'] for line in lines} == {
        f'PaviaU, {network}, {metric}' for network in ('2-D CNN', '3-D CNN') for metric in ('OA', 'κ')
    }
    assert all(line['published'] is None and line['seeds'] == 2 and -100 <= line['mean'] <= 100 for line in lines)
    assert (out / 'index.html').read_text().count('data:image/png') == 2


def test_every_paper_is_a_command_and_every_row_is_as_long_as_its_header() -> None:
    assert list(PAPERS) == list(get_args(get_type_hints(reproduce)['paper']))
    for paper in PAPERS.values():
        assert set(paper.settings) == {'paper', 'small', 'demo'}
        assert [table.number for table in paper.tables] == sorted({table.number for table in paper.tables})
        for table in paper.tables:
            assert all(len(numbers) == len(table.columns) for numbers in table.published.values())


def test_other_data_than_the_papers_give_no_difference() -> None:
    table = PAPERS['specdm'].tables[0]
    own, other = (against(table, {('Ours-SS', 'mSAD'): [0.05, 0.07]}, comparable)[-1] for comparable in (True, False))
    assert own.difference is not None
    assert round(own.difference, 6) == 0.03
    assert (other.mean, other.difference) == (own.mean, None)


def test_what_is_measured_otherwise_than_in_the_paper_gives_no_difference() -> None:
    table = PAPERS['specdm'].tables[0]
    found = {
        one.column: one
        for one in against(table, {('Ours-SS', column): [1.0, 3.0] for column in table.columns})
        if one.row == 'Ours-SS'
    }
    assert {column: one.difference is None for column, one in found.items()} == {
        'FID (Image)': True, 'FID (Mask)': True, 'mSAD': False,
    }  # fmt: skip
    assert found['FID (Image)'].mean == 2
