"""Pages as people see them, on a phone, on paper and on a desk: nothing runs off the side, and there is something."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from browser import WIDTHS, looked_at, needs_browser
from conftest import make_scene
from matplotlib.image import imread
from test_ablation_report import run_folder

from hsiaug.datasets import write_bank
from hsiaug.quality.inspection import inspect_bank
from hsiaug.report import write_report
from hsiaug.report.page import write_page
from hsiaug.scenes import BlockSplit
from hsiaug.trainers import fit_generator, training_data

pytestmark = [pytest.mark.slow, needs_browser]


@pytest.fixture(scope='module')
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp('pages')
    scene = make_scene(48, 40)
    split = BlockSplit(block=8, per_class=30)(scene, 0)
    bank = write_bank(fit_generator('variability', training_data(scene, split)), 200, folder / 'bank')
    page, _ = write_page(inspect_bank(bank, scene, split))
    return {'study': write_report(run_folder(folder / 'study')).html, 'bank': page}


@pytest.mark.parametrize('width', WIDTHS)
@pytest.mark.parametrize('kind', ['study', 'bank'])
def test_nothing_runs_off_the_side(pages: dict[str, Path], kind: str, width: str) -> None:
    picture, wide = looked_at(pages[kind], WIDTHS[width])
    assert not wide
    seen = imread(picture)[:, : WIDTHS[width], :3]
    assert seen.shape[0] > 800
    assert 0.02 < np.mean(seen.min(axis=2) < 0.5) < 0.5  # ink on paper


def test_what_runs_off_is_found(tmp_path: Path) -> None:
    page = tmp_path / 'page.html'
    page.write_text('<p>fits</p><div style="overflow-x: auto"><p style="width: 900px">moves</p></div>')
    assert looked_at(page, 360)[1] == []
    page.write_text('<p style="width: 400px">runs off</p>')
    assert looked_at(page, 360)[1] == ['<p style="width: 400px">runs off</p>']
