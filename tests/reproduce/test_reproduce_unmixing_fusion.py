"""``hsiaug reproduce unmixing_fusion`` on small files in the layouts of Chikusei, AID and HSRS-SC."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from public_layouts import write_aid, write_chikusei, write_hsrs_sc

from hsiaug.cli import main


def lines_of(out: Path, table: int) -> dict[tuple[str, str], dict[str, float | None]]:
    found = json.loads((out / 'tables.json').read_text())[f'table {table}']
    return {(line['row'], line['column']): line for line in found}


@pytest.mark.slow
def test_all_tables_and_figures(tmp_path: Path) -> None:
    for write in (write_chikusei, write_aid, write_hsrs_sc):
        write(tmp_path / 'data')
    out = tmp_path / 'run'
    arguments = ['reproduce', 'unmixing_fusion', '--data', str(tmp_path / 'data'), '--out', str(out)]
    main([*arguments, '--scale', 'demo', '--device', 'cpu'])
    assert lines_of(out, 1)['UBF+DDPM', 'FID']['published'] == 8.23
    for table, cells in {
        1: [('UBF+VDVAE', 'FID'), ('UBF+StyleGAN3', 'Precision'), ('UBF+DDPM', 'Recall')],
        2: [('Abundance(15)', 'RMSE'), ('Abundance(3)', 'SAD')],
        3: [('×', 'AlexNet'), ('Affine Trans., 4k', 'VGG-16'), ('Our UBF, 8k', 'ResNet-18')],
    }.items():
        for cell in cells:
            mean = lines_of(out, table)[cell]['mean']
            assert mean is not None
            assert mean >= 0
    assert lines_of(out, 2)['Abundance(5)', 'FID']['mean'] == pytest.approx(lines_of(out, 1)['UBF+DDPM', 'FID']['mean'])
    assert (out / 'index.html').read_text().count('data:image/png') == 9


def test_generators_are_compared_with_the_published_ones(tmp_path: Path) -> None:
    write_chikusei(tmp_path / 'data')
    write_aid(tmp_path / 'data')
    out = tmp_path / 'run'
    arguments = ['reproduce', 'unmixing_fusion', '--data', str(tmp_path / 'data'), '--out', str(out)]
    main([*arguments, '--scale', 'demo', '--table', '1', '--device', 'cpu'])
    ours = lines_of(out, 1)['UBF+DDPM', 'FID']
    assert ours['published'] == 8.23
    assert ours['mean'] is not None
    assert ours['difference'] is None  # other features than the paper's
    seconds = lines_of(out, 1)['UBF+DDPM', 'Sampling (s)']
    assert (seconds['published'], seconds['difference']) == (90, None)
    assert seconds['mean'] is not None
    assert seconds['mean'] > 0
