"""``hsiaug reproduce specdm`` on small files in the layouts of SegMunich and OSCD."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from public_layouts import write_segmunich
from real_pairs import write_oscd

from hsiaug.cli import main
from hsiaug.reproduce import PAPERS, Work, find_files, reproduce
from hsiaug.reproduce.specdm import SPECDM
from hsiaug.reproduce.specdm_data import CLASSES, classes_of, part_of


def lines_of(out: Path, table: int) -> dict[tuple[str, str], dict[str, float | None]]:
    found = json.loads((out / 'tables.json').read_text())[f'table {table}']
    return {(line['row'], line['column']): line for line in found}


def test_segmunich_is_read_as_it_is_downloaded(tmp_path: Path) -> None:
    write_segmunich(tmp_path / 'TUM_128' / 'train', 6)
    write_segmunich(tmp_path / 'TUM_128' / 'val', 2)
    blank = np.zeros((1, 32, 32), dtype=np.uint8)  # background alone: the text leaves it out
    with rasterio.open(tmp_path / 'TUM_128' / 'train' / 'label' / '00004.tif', 'r+') as file:
        file.write(blank)
    work = Work(SPECDM, 'demo', find_files(SPECDM, tmp_path, 'demo'), tmp_path / 'run')
    train, test = part_of(work, 'SS', 'train'), part_of(work, 'SS', 'test')
    assert (len(train), len(test)) == (5, 2)
    assert train.spec.classes == ('background', 'arable land', 'surface water', 'buildings')  # codes 0, 21, 5 and 12


def test_windows_of_oscd_overlap_as_in_the_text(tmp_path: Path) -> None:
    write_oscd(tmp_path / 'oscd', {'beirut': (64, 58)})
    write_oscd(tmp_path / 'oscd', {'dubai': (32, 32)}, 'test')
    work = Work(SPECDM, 'demo', find_files(SPECDM, tmp_path, 'demo'), tmp_path / 'run')
    windows = part_of(work, 'CD', 'train')
    assert len(windows) == 3 * 3  # of 32 pixels, 13 apart: 0.4 of them
    assert torch.equal(windows[0]['image'][:, :, :, 13:], windows[1]['image'][:, :, :, :-13])


def test_incomplete_files_are_named(tmp_path: Path) -> None:
    archive = tmp_path / 's2_barkbeetle.npz'
    for spoil in (lambda: archive.write_text('cut off'), lambda: np.savez(archive, shape=np.zeros((1, 2), int))):
        spoil()
        work = Work(SPECDM, 'demo', find_files(SPECDM, tmp_path, 'demo'), tmp_path / 'run')
        with pytest.raises(ValueError, match=r'barkbeetle\.npz is no complete archive of pairs of dates'):
            part_of(work, 'CD', 'train')
    (tmp_path / 'part' / 'img').mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match='holds no label for the rest of the data of specdm: img, label'):
        find_files(SPECDM, tmp_path / 'part', 'demo')


def test_choices_without_effect_or_sense_are_refused_before_anything_is_trained(tmp_path: Path) -> None:
    work = Work(SPECDM, 'demo', {}, tmp_path)
    weights = tmp_path / 'weights.safetensors'
    for change, of, message in (
        ({'classes': ('forests',)}, SPECDM, 'no figure of specdm shows classes'),
        ({'inception': weights}, PAPERS['msrresgan'], 'msrresgan compares no images by features'),
        ({'inception': weights}, SPECDM, 'no file .*weights.safetensors'),
    ):
        with pytest.raises((ValueError, FileNotFoundError), match=message):
            reproduce(replace(work, paper=of, **change))  # type: ignore[arg-type]


def test_values_of_masks_are_codes_or_classes() -> None:
    codes = [0, 21, 22, 23, 31, 5, 32, 33, 41, 13, 14, 11, 12]
    for values in (sorted(codes), list(range(13))):
        classes, label_map = classes_of(values)
        assert tuple(classes) == CLASSES
        order = codes if values == sorted(codes) else values
        assert [label_map[value] for value in order] == list(range(13))
    assert classes_of([0, 77, 31]) == (['background', 'forests', 'class 77'], {0: 0, 31: 1, 77: 2})


@pytest.mark.slow
def test_all_tables_and_figures_of_both_data_sets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, out = tmp_path / 'data', tmp_path / 'run'
    write_segmunich(data / 'TUM_128' / 'train')
    write_segmunich(data / 'TUM_128' / 'val', 3)
    write_oscd(data / 'oscd', {'abudhabi': (64, 96), 'beirut': (64, 32)})
    write_oscd(data / 'oscd', {'dubai': (64, 64)}, 'test')
    arguments = ['reproduce', 'specdm', '--data', str(data), '--out', str(out), '--scale', 'demo', '--device', 'cpu']
    main(arguments)
    assert lines_of(out, 1)['Ours-SS', 'FID (Image)']['published'] == 5.19
    for table, cells in {
        1: [('LDM-SS', 'mSAD'), ('Ours-SS', 'FID (Mask)')],
        2: [('LDM-CD', 'FID (Image2)'), ('Ours-CD', 'FID (Mask)')],
        3: [('SegFormer-B5: synthetic', 'mIoU'), ('ChangeFormer V3: real + synthetic', 'F1')],
        4: [('Ours-SS w/o SAD loss', 'SAD'), ('Ours-CD', 'Cross Entropy')],
        5: [('LDM', 'SS mIoU'), ('Ours', 'CD F1')],
        6: [('2 ×', 'SS F1'), ('5 ×', 'CD mIoU')],
    }.items():
        for cell in cells:
            mean = lines_of(out, table)[cell]['mean']
            assert mean is not None
            assert mean >= 0
    assert lines_of(out, 4)['Ours-SS', 'FID (Image2)']['mean'] is None
    assert lines_of(out, 5)['Ours', 'SS mIoU']['mean'] == lines_of(out, 6)['5 ×', 'SS mIoU']['mean']
    assert (out / 'index.html').read_text().count('data:image/png') == 6
    # A second run trains nothing.
    monkeypatch.setattr('hsiaug.reproduce.base.fit_generator', None)
    first = (out / 'tables.json').read_text()
    main([*arguments])
    assert (out / 'tables.json').read_text() == first


def test_gains_are_compared_with_the_published_ones(tmp_path: Path) -> None:
    write_segmunich(tmp_path / 'data')
    out = tmp_path / 'run'
    arguments = ['reproduce', 'specdm', '--data', str(tmp_path / 'data'), '--out', str(out), '--scale', 'demo']
    main([*arguments, '--table', '5', '--device', 'cpu'])
    ours = lines_of(out, 5)['Ours', 'SS mIoU']
    assert ours['published'] == 0.3772
    assert ours['mean'] is not None
    assert ours['difference'] == pytest.approx(ours['mean'] - 0.3772)
    assert lines_of(out, 5)['Ours', 'CD F1']['mean'] is None


def test_what_is_missing_is_left_out_and_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_segmunich(tmp_path / 'data')
    out = tmp_path / 'run'
    arguments = ['reproduce', 'specdm', '--data', str(tmp_path / 'data'), '--out', str(out), '--scale', 'demo']
    main([*arguments, '--table', '2'])
    assert 'missing  OSCD' in capsys.readouterr().out
    assert lines_of(out, 2)['Ours-CD', 'FID (Mask)']['mean'] is None
    assert 'Table 2 is left out: it is of OSCD, which is missing.' in (out / 'index.html').read_text()
