"""Every report answers first: whether to mix in, at which ratio, with which gain."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_ablation_report import REAL, row, run_folder

import hsiaug.evidence
from hsiaug.ablation import Arm
from hsiaug.ablation.arms import at_defaults
from hsiaug.ablation.statistics import CHOSEN, summarise
from hsiaug.evidence import Evidence
from hsiaug.report import text_table, write_report
from hsiaug.report.ablation import answer
from hsiaug.report.figures import ratio_curves

GAIN = np.array([3, 1, 2, 4, 2, 3, 2, 1, 2, 3]) / 100


def cells(gain: Any, seeds: int = 10) -> list[dict[str, Any]]:
    found = []
    for seed in range(seeds):
        found.append(row('real', 0, seed, 0.9, REAL[seed]))  # validation would always choose it
        for ratio, more in ((1, -0.1), (2, 0.0)):
            found.append(row('ours', ratio, seed, 0.5, REAL[seed] + gain[seed] + more, default=ratio == 2))
    return found


@pytest.mark.parametrize(
    ('gain', 'seeds', 'quick', 'said'),
    [
        (
            GAIN,
            10,
            False,
            r'raises accuracy by \+2\.3 points \[\+1\.6, \+3\.0\] \(10 seeds\)\. Recommended: mix it in\.',
        ),
        (-GAIN, 10, False, r'lowers accuracy: -2\.3 points .* do not mix\.'),
        (GAIN - GAIN.mean(), 10, False, r'changes accuracy by .*may be chance\. Recommended: do not mix'),
        (GAIN, 4, False, r'.*too few seeds'),
        (GAIN, 10, True, r'.*too few seeds, or too short training'),
    ],
)
def test_it_is_a_sentence(gain: Any, seeds: int, quick: bool, said: str) -> None:
    sentence = answer(summarise(cells(gain, seeds)), 'oa', quick)
    assert re.search(r'^Mixing in 2 synthetic samples per real one \(ours\) ' + said, sentence), sentence


def test_the_default_ratio_is_tested_and_the_chosen_one_is_not() -> None:
    table = {line.ratio: line for line in summarise(cells(GAIN)) if line.arm == 'ours'}
    assert [ratio for ratio, line in table.items() if line.primary] == [2]
    assert table[2].p_holm == pytest.approx(2 / 2**10)
    assert table[CHOSEN].ratios == (0.0,) * 10
    without = [{**cell, 'default': False} for cell in cells(GAIN)]
    assert [line.ratio for line in summarise(without) if line.primary] == [CHOSEN]


def test_it_stands_first_on_the_page_and_last_on_the_console(tmp_path: Path) -> None:
    arms = [{'name': 'gan', 'control': False, 'default': 1}, {'name': 'duplicate', 'control': True}]
    run = run_folder(tmp_path, plan={'arms': arms})
    sentence = 'Mixing in 1 synthetic sample per real one (gan) raises accuracy by +2.3 points [+1.6, +3.0] (10 seeds).'
    assert text_table(run).splitlines()[-1].startswith(sentence)
    page = write_report(run).html.read_text()
    assert page.index(sentence) < page.index('<img') < page.index('What to do next') < page.index('<table')
    assert '| gan | 1 (default) |' in write_report(run).markdown.read_text()


def test_an_interval_that_is_cut_off_is_marked() -> None:
    wide = [0.5, -0.5] * 5
    table = summarise([*cells(GAIN), *(row('gan', 2, s, 0.5, REAL[s] + wide[s]) for s in range(3))])
    axes = ratio_curves(table).axes[0]
    bottom, top = axes.get_ylim()
    marks = {(line.get_marker(), float(line.get_ydata()[0])) for line in axes.lines if not line.get_clip_on()}
    assert marks == {('v', bottom), ('^', top)}


def test_arms_take_what_was_measured_as_their_default(monkeypatch: pytest.MonkeyPatch) -> None:
    few = Evidence('variability', 'spectrum', {}, 10.0, 3.0, 0.0, 'uniform', 'oa', 3.0, (1.0, 5.0), 16, {}, 'few.json')
    monkeypatch.setattr(hsiaug.evidence, 'known_evidence', lambda: (few,))
    arms = (Arm('ours', 'variability'), Arm('copies', 'duplicate', control=True))
    ours, copies = at_defaults(arms, (1.0, 5.0), (10,), 'spectrum')
    assert (ours.default, ours.labels, ours.ratios) == (3.0, 'uniform', (1.0, 3.0, 5.0))
    assert copies == arms[1]
