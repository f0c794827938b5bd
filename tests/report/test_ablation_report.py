import json
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pytest
from scipy import stats

from hsiaug.report import text_table, write_report
from hsiaug.report.ablation import read_run
from hsiaug.report.figures import ratio_curves

REAL = [0.50, 0.52, 0.51, 0.53, 0.50, 0.55, 0.49, 0.52, 0.50, 0.51]
GAINS = [0.02, 0.03, 0.01, 0.04, 0.02, 0.03, 0.02, 0.01, 0.02, 0.03]  # at ratio 1, which validates best
CLASSES = ['<b>&', 'cost $x$ of $y$', 'water']


def row(arm: str, ratio: float, seed: int, val: float, oa: float, **more: Any) -> dict[str, Any]:
    metrics = {'oa': oa, 'aa': oa - 0.1, 'kappa': oa - 0.2, 'per_class': [oa, oa - 0.1, None]}
    return {
        'cell': f'{arm}-{ratio}-{seed}', 'scene': 'meadow', 'budget': '30 per class', 'classifier': 'nn1d', 'arm': arm,
        'ratio': ratio, 'seed': seed, 'split': f's{seed}', 'control': arm == 'duplicate', 'classes': CLASSES,
        'dropped': ['<b>& (4 pixels)'], 'train_real': 90, 'test_count': 900, 'setting': {'steps': 400},
        'val': {'oa': val, 'aa': val, 'kappa': val}, 'test': metrics, 'steps': 400, 'seconds': 1.0, **more,
    }  # fmt: skip


def rows(seeds: int = 10) -> Iterator[dict[str, Any]]:
    for seed in range(seeds):
        yield row('real', 0, seed, 0.5, REAL[seed])
        yield row('gan', 1, seed, 0.7, REAL[seed] + GAINS[seed])
        yield row('gan', 5, seed, 0.6, REAL[seed] - 0.1)
        yield row('duplicate', 1, seed, 0.6, REAL[seed])


def run_folder(folder: Path, seeds: int = 10, quick: bool = False, plan: dict[str, Any] | None = None) -> Path:
    arms = [{'name': 'gan', 'control': False}, {'name': 'duplicate', 'control': True}]
    content = {
        'title': 'A <study> & more', 'quick': quick, 'command': 'hsiaug ablate --out runs/x',
        'environment': {'hardware': 'a CPU', 'commit': 'abc123', 'versions': {'torch': '2.9'}, 'device': 'cpu'},
        'notes': ['class "soil" left out'], 'settings': [['meadow', '30 per class', 'RandomSplit']], 'arms': arms,
        'seeds': list(range(seeds)), 'cells': 4 * seeds, **(plan or {}),
    }  # fmt: skip
    folder.mkdir(exist_ok=True)
    (folder / 'plan.json').write_text(json.dumps(content))
    (folder / 'results.jsonl').write_text(''.join(json.dumps(r) + '\n' for r in rows(seeds)))
    return folder


def table_row(markdown: str, arm: str, ratio: str) -> list[str]:
    found = [line for line in markdown.splitlines() if line.startswith(f'| {arm} | {ratio} |')]
    assert len(found) == 1, found
    return [cell.strip() for cell in found[0].strip().strip('|').split('|')]


@pytest.fixture(scope='module')
def markdown(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_report(run_folder(tmp_path_factory.mktemp('run'))).markdown.read_text()


def test_numbers_by_hand(markdown: str) -> None:
    points = 100 * np.array(GAINS)
    t = stats.ttest_1samp(points, 0).confidence_interval(0.95)
    chosen = table_row(markdown, 'gan', 'chosen')
    assert chosen[2] == '53.60'  # mean of REAL 51.3 and of GAINS 2.3
    assert chosen[3] == '+2.30'
    assert chosen[4] == f'[{t.low:+.2f}, {t.high:+.2f}]'
    half = stats.t.ppf(0.975, 9) * points.std(ddof=1) * np.sqrt(1 / 10 + 900 / 90)
    assert chosen[6] == f'[{2.3 - half:+.2f}, {2.3 + half:+.2f}]'
    assert chosen[7:9] == ['0.0020', '0.0020']  # all ten signs agree: 2 / 2^10, a family of one
    assert chosen[9:11] == ['43.60', '+2.30']
    assert chosen[-1] == '10'
    assert table_row(markdown, 'gan', '1')[8] == 'exploratory'
    assert table_row(markdown, 'gan', '5')[3:5] == ['-10.00', '[-10.00, -10.00]']
    duplicate = table_row(markdown, 'duplicate (control)', 'chosen')
    assert duplicate[3:5] == ['+0.00', '[+0.00, +0.00]']
    assert duplicate[7:9] == ['1.0000', 'exploratory']
    assert table_row(markdown, 'real', '0')[2:5] == ['51.30', '–', '–']
    assert '| 30 per class | nn1d | gan | +2.30 |' in markdown


def test_what_the_reader_must_know(markdown: str) -> None:
    assert 'Significantly above real only' in markdown
    assert 'gan on meadow, 30 per class (+2.30)' in markdown
    assert 'QUICK' not in markdown
    for fact in (
        'a CPU',
        'abc123',
        'torch 2.9',
        'hsiaug ablate --out runs/x',
        '40 of 40 cells',
        'class "soil" left out',
    ):
        assert fact in markdown
    assert 'Left out: &lt;b>& (4 pixels).' in markdown


def test_no_gain_is_said(tmp_path: Path) -> None:
    run = run_folder(tmp_path)
    worse = [{**r, 'test': {**r['test'], 'oa': 0.3}} if r['arm'] == 'gan' else r for r in rows()]
    (run / 'results.jsonl').write_text(''.join(json.dumps(r) + '\n' for r in worse))
    text = write_report(run).markdown.read_text()
    assert 'No arm is significantly above real only' in text
    assert 'Significantly below: gan on meadow' in text


@pytest.mark.parametrize(('seeds', 'quick'), [(3, False), (10, True)])
def test_quick_runs_claim_nothing(tmp_path: Path, seeds: int, quick: bool) -> None:
    paths = write_report(run_folder(tmp_path, seeds, quick))
    for path in (paths.markdown, paths.html):
        text = path.read_text()
        assert 'QUICK RUN: no basis for claims' in text
        assert 'ignificantly' not in text
    assert 'no basis for claims' in text_table(tmp_path)


def test_few_seeds_of_one_arm_mark_that_arm_alone(tmp_path: Path) -> None:
    run = run_folder(tmp_path)
    with (run / 'results.jsonl').open('a') as file:
        for seed in range(3):
            file.write(json.dumps(row('ss-gan', 1, seed, 0.9, 0.9)) + '\n')
    text = write_report(run).markdown.read_text()
    assert 'QUICK' not in text
    assert table_row(text, 'ss-gan', 'chosen')[-1] == '3 °'
    assert table_row(text, 'ss-gan', 'chosen')[8] == 'exploratory'


class Resources(HTMLParser):
    """What a page would load, and whether its tags close in order."""

    def __init__(self) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.loaded += [value or '' for name, value in attrs if name in ('src', 'href', 'srcset', 'data')]


def test_the_page_stands_alone(tmp_path: Path) -> None:
    paths = write_report(run_folder(tmp_path))
    page, text = Resources(), paths.html.read_text()
    page.feed(text)
    assert len(page.loaded) == len(paths.figures) == 3
    assert all(source.startswith('data:image/png;base64,iVBOR') for source in page.loaded)
    assert not re.search(r'url\(|@import|<script|<link', text)
    assert 'A &lt;study&gt; &amp; more' in text
    assert '&lt;b&gt;&amp; (4 pixels)' in text
    assert 'b' not in page.tags
    assert '53.60' in text
    for path in paths.figures:
        assert path.read_bytes().startswith(b'\x89PNG')


def test_an_own_scene_gets_no_advice_to_measure_one(tmp_path: Path) -> None:
    text = write_report(run_folder(tmp_path / 'own')).html.read_text()
    assert 'Measure it on your own scene' not in text
    assert '<td class="text">nn1d</td>' in text  # words stand left, numbers right
    assert '<td>+2.30</td>' in text
    settings = [['simulated', '30 per class', 'RandomSplit']]
    for kind, said, unsaid in (('spectrum', '--config verdict', 'scene.second'), ('change', 'scene.second', 'verdict')):
        run = run_folder(tmp_path / kind, plan={'settings': settings, 'identity': {'kind': kind}})
        text = write_report(run).html.read_text()
        assert 'Measure it on your own scene' in text
        assert said in text
        assert unsaid not in text


def test_few_intervals_are_drawn_whole(tmp_path: Path) -> None:
    lines = [line for line in read_run(run_folder(tmp_path)).table if line.arm == 'gan' and line.ratio == 1]
    (axes,) = ratio_curves(lines).axes
    assert lines[0].gain is not None
    assert axes.get_ylim()[1] > lines[0].gain.interval[1]


def test_torn_and_doubled_lines_and_order_change_nothing(tmp_path: Path) -> None:
    run = run_folder(tmp_path)
    first = write_report(run)
    before = {path: path.read_bytes() for path in (first.markdown, first.html, *first.figures)}
    lines = (run / 'results.jsonl').read_text().splitlines()
    doubled = json.dumps({**json.loads(lines[0]), 'test': {'oa': 0.0, 'aa': 0.0, 'kappa': 0.0, 'per_class': [0.0] * 3}})
    (run / 'results.jsonl').write_text('\n'.join([*lines[::-1], doubled, lines[3][:40]]))
    write_report(run)
    assert {path: path.read_bytes() for path in before} == before
    assert sorted(p.name for p in run.iterdir()) == [
        'figures',
        'plan.json',
        'report.html',
        'report.md',
        'results.jsonl',
    ]


def test_only_real_cells_yet(tmp_path: Path) -> None:
    run = run_folder(tmp_path)
    (run / 'results.jsonl').write_text(json.dumps(next(rows())) + '\n')
    paths = write_report(run)
    assert paths.figures == ()
    assert '| real | 0 | 50.00 |' in paths.markdown.read_text()


def test_fidelity_is_shown(tmp_path: Path) -> None:
    run = run_folder(tmp_path)
    (run / 'fidelity').mkdir()
    svm = {'real_real': 0.9, 'real_fake': 0.8, 'fake_fake': 0.95, 'fake_real': 0.7}
    record = {
        'scene': 'meadow', 'budget': '30 per class', 'arm': 'gan', 'seed': 0, 'msad': 0.0123, 'svm': svm,
        'authenticity_share_closer': 0.4, 'std_ratio': 0.75, 'roughness_ratio': 4.5,
    }  # fmt: skip
    (run / 'fidelity' / 'x.json').write_text(json.dumps(record))
    (run / 'fidelity' / 'y.json').write_text(json.dumps({**record, 'seed': 1, 'msad': 0.0223}))
    text = write_report(run).markdown.read_text()
    line = '| meadow | 30 per class | gan | 2 | 0.0173 | 0.75 | 4.50 | 0.900 | 0.800 | 0.950 | 0.700 | 0.40 |'
    assert line in text  # mean of two seeds


def test_fidelity_of_pairs_stands_beside_its_reference(tmp_path: Path) -> None:
    run = run_folder(tmp_path)
    (run / 'fidelity').mkdir()
    figures = {
        'fid_image': 5.25, 'fid_mask': 10.79, 'msad': 0.03, 'std_ratio': 0.9, 'precision': 0.5, 'recall': None,
        'coverage': 0.25, 'class_share_error': 0.125, 'alignment': 0.75,
    }  # fmt: skip
    record = {
        'kind': 'segmentation', 'scene': 'meadow', 'budget': '32 px', 'arm': 'two-stream', 'seed': 0, 'compared': 40,
        **figures, 'against_train': {**figures, 'fid_image': 2.5, 'fid_mask': 3.5},
        'real_reference': {**figures, 'fid_image': 1.0, 'recall': 0.5},
        'reconstruction': {'rmse': 0.025, 'sad': 0.103, 'mask_accuracy': 0.9876},
    }  # fmt: skip
    (run / 'fidelity' / 'x.json').write_text(json.dumps(record))
    (run / 'figures').mkdir()
    (run / 'figures' / 'pairs-meadow-32_px-two-stream.png').write_bytes(b'PNG')
    paths = write_report(run)
    text = paths.markdown.read_text()
    assert '| meadow | 32 px | two-stream | 1 | 40 | 2.50 | 5.25 (1.00) | 3.50 | 10.79 (10.79) | 0.030' in text
    assert '| – (0.50) |' in text
    assert '| 0.0250 | 0.103 | 0.988 |' in text
    assert '](figures/pairs-meadow-32_px-two-stream.png)' in text
    assert 'Real pairs above, synthetic below: meadow-32 px-two-stream' in paths.html.read_text()


def test_links_to_figures_hold_whatever_budgets_are_called(tmp_path: Path) -> None:
    run = run_folder(tmp_path)
    (run / 'figures').mkdir()
    names = ['pairs-meadow-3_%,_5_[small]_(a)-gan.png', 'changes-50%25-x.png']
    for name in names:
        (run / 'figures' / name).write_bytes(b'PNG')
    text = write_report(run).markdown.read_text()
    links = re.findall(r'^!\[(?:[^\[\]\\]|\\.)*\]\(figures/([^()\s]+)\)$', text, re.M)
    assert sorted(unquote(link) for link in links if '-' in link) == sorted(names)
    assert not any(character in link for link in links for character in ',[]')
    assert len(links) == 5


def test_console_table(tmp_path: Path) -> None:
    text = text_table(run_folder(tmp_path))
    line = next(line for line in text.splitlines() if line.startswith('gan') and 'chosen' in line)
    assert re.fullmatch(r'gan +chosen +53\.60 +\+2\.30 \[\+1\.62, \+2\.98\]', line)
    assert 'Significantly above real only' in text


def test_bad_folders(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r'plan\.json'):
        write_report(tmp_path / 'nowhere')
    run = run_folder(tmp_path / 'run')
    (run / 'results.jsonl').write_text('')
    with pytest.raises(ValueError, match='no finished cell'):
        write_report(run)
