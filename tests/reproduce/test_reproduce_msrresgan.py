"""``hsiaug reproduce msrresgan`` on small pairs of cubes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from commands import refused
from public_layouts import write_casi_pair

from hsiaug.cli import main


def test_pairs_are_scored_beside_the_published_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    data, out = tmp_path / 'data', tmp_path / 'run'
    write_casi_pair(data / 'zhangye', 'SWIR')
    (data / 'zhangye' / 'HR_SWIR.aux.xml').write_text('<PAMDataset/>')
    arguments = ['reproduce', 'msrresgan', '--data', str(data), '--out', str(out), '--scale', 'demo', '--device', 'cpu']
    main(arguments)
    lines = {(line['row'], line['column']): line for line in json.loads((out / 'tables.json').read_text())['table 1']}
    ours = lines['SWIR: MSRResGAN', 'PSNR (dB)']
    assert (ours['published'], ours['seeds']) == (52.6751, 2)
    assert ours['mean'] > 0
    assert lines['SWIR: SRGAN', 'SSIM']['mean'] is not None
    assert lines['VNIR: Bicubic', 'MRAE'] == {
        'row': 'VNIR: Bicubic', 'column': 'MRAE', 'published': 0.1661, 'mean': None, 'interval': None, 'seeds': 0,
        'comparable': True, 'difference': None,
    }  # fmt: skip
    page = (out / 'index.html').read_text()
    assert page.count('data:image/png') == 2
    assert 'HR_VNIR.*' in page
    # What is scored is kept: a second run trains and measures nothing.
    monkeypatch.setattr('hsiaug.reproduce.base.fit_generator', None)
    monkeypatch.setattr('hsiaug.reproduce.msrresgan.super_resolution_scores', None)
    main(arguments)
    assert {
        (line['row'], line['column']): line for line in json.loads((out / 'tables.json').read_text())['table 1']
    } == lines
    # Nor does one of the table alone, from data that lie elsewhere; which trainings had not converged is still known.
    data.rename(tmp_path / 'elsewhere')
    main([*arguments, '--data', str(tmp_path / 'elsewhere'), '--table', '1'])
    told = [
        {
            row
            for row in text.split('Whether trainings')[1].split('How it was measured')[0].splitlines()
            if '<td>' in row
        }
        for text in (page, (out / 'index.html').read_text())
    ]
    assert told[0] == told[1]
    assert 'SWIR-msrresnet, generator' in str(told[0])
    # What is kept is of these files; others come beside it, or under another folder.
    write_casi_pair(tmp_path / 'elsewhere' / 'zhangye', 'SWIR', bands=7)
    said = refused(capsys, *arguments, '--data', str(tmp_path / 'elsewhere'))
    assert 'holds scores of other files of SWIR than those that are there now' in said


def test_srgan_learns_from_whole_pixels_of_the_coarse_image_inside_the_same_windows(tmp_path: Path) -> None:
    from dataclasses import replace

    import torch

    from hsiaug.reproduce import PAPERS, Work, find_files
    from hsiaug.reproduce.msrresgan import _on_coarse_grid, _pair, _split
    from hsiaug.systems.data import training_data

    write_casi_pair(tmp_path, 'SWIR')
    work = Work(PAPERS['msrresgan'], 'demo', find_files(PAPERS['msrresgan'], tmp_path, 'demo'), tmp_path / 'run')
    scene, split = _pair(work, 'SWIR'), _split(work, 'SWIR', 0)
    for shift, pixels in ((0, 20), (1, 15)):  # windows that begin with a coarse pixel, and between two
        moved = replace(split, train=split.train[:3] + shift)
        found = _on_coarse_grid(training_data(scene, moved), scene, moved)
        assert found.coarse is not None
        assert found.x.shape[2:] == (pixels, pixels) == found.spec.size
        means = torch.nn.functional.avg_pool2d(found.x, 5)
        assert torch.allclose(found.coarse.image, means, rtol=0.02)  # as the pair was made


def test_bicubic_is_the_mean_of_pixels_interpolated(tmp_path: Path) -> None:
    """The score of a network without weights is that of torch's own interpolation of the low resolution."""
    import numpy as np
    import torch
    from scipy.io import loadmat
    from torch.nn.functional import interpolate

    from hsiaug.reproduce import PAPERS, Work, find_files
    from hsiaug.reproduce.msrresgan import _split, score_table

    write_casi_pair(tmp_path, 'SWIR')
    paper = PAPERS['msrresgan']
    work = Work(paper, 'demo', find_files(paper, tmp_path, 'demo'), tmp_path / 'run')
    found = score_table(work)['SWIR: Bicubic', 'PSNR (dB)'][0]
    low, high = (
        torch.from_numpy(loadmat(tmp_path / f'{r}_SWIR.mat')['cube']).movedim(-1, 0)[None] for r in ('LR', 'HR')
    )
    fine, split = interpolate(low, scale_factor=5, mode='bicubic', antialias=True), _split(work, 'SWIR', 0)
    windows = [[x[0, :, r : r + 20, c : c + 20] for x in (fine, high)] for r, c in split.test_windows.tolist()]
    mine, true = (torch.stack(side) for side in zip(*windows, strict=True))
    psnr = 10 * np.log10(float(true.max()) ** 2 / float((mine - true).square().mean()))
    assert found == pytest.approx(psnr, abs=0.1)
