import re
import sys
from pathlib import Path
from typing import Any

import pytest

from hsiaug.records import read_json

sys.path.insert(0, str(Path(__file__).parents[2] / 'benchmarks'))
from trust_report import ADVISED, MEAN, NO_GATE, PRIMARY, Block, blocks_of, draw, lines, markdown, primary, way_name

SEEDS = 10
# Test OA of each arm and ratio above real only, in points; scene 'far' differs.
GAINS = {('gan', 1.0): -1.0, ('gan', 2.0): -3.0, ('gan, gated', 1.0): 0.5, ('gan, gated', 2.0): 2.0}


def row(scene: str, seed: int, arm: str, ratio: float, points: float, **extra: Any) -> dict[str, Any]:
    score = (60 + seed + points + 0.05 * ((seed * 7 + len(arm)) % 5 - 2) * (ratio > 0)) / 100
    metrics = {'oa': score, 'aa': score - 0.1}
    return {
        'scene': scene, 'budget': 'b', 'classifier': 'nn1d', 'arm': arm,
        'ratio': ratio, 'seed': seed, 'control': arm == 'copies', 'train_real': 100, 'test_count': 300,
        'val': metrics, 'test': metrics, 'classes': ['a', 'b', 'c', 'd'], 'left_out': ['a'] if 'gated' in arm else [],
        **extra,
    }  # fmt: skip


def planted(scenes: tuple[str, ...] = ('near', 'far', 'shut'), seeds: int = SEEDS) -> list[dict[str, Any]]:
    """A study with known gains: gates help; the races choose gates at ratio 2, and nothing on the scene 'shut'."""
    found = []
    for scene in scenes:
        shut = scene == 'shut'
        for seed in range(seeds):
            found += [
                row(scene, seed, 'real', 0.0, 0.0), row(scene, seed, 'copies', 2.0, 0.1),
                row(scene, seed, way_name('gan', 'light'), 2.0, -0.4),
            ]  # fmt: skip
            for (arm, ratio), gain in GAINS.items():
                if shut and arm == 'gan, gated':
                    found.append({**row(scene, seed, 'real', 0.0, 0.0), 'arm': arm, 'ratio': ratio, 'refused': 'all'})
                else:
                    found.append(row(scene, seed, arm, ratio, 2 * gain if scene == 'far' else gain))
            chosen = [0.0, None] if shut else [2.0, 0.05]
            races = {
                race: {
                    'ratio': ratio, 'threshold': gate, 'trainings': 18, 'cpu_seconds': 30.0,
                    'by_k': {'0.0': [ratio, gate], '0.5': [ratio, gate], '1.0': [0.0, None], '2.0': [0.0, None]},
                }
                for race, (ratio, gate) in {'gated': chosen, 'either': [1.0, NO_GATE]}.items()
            }  # fmt: skip
            kept = 0 if shut else 80
            rejected = {'samples': 100, 'kept': kept, 'rejected': {'range': 100 - kept, 'novelty': 5}}
            about = {'scene': scene, 'seed': seed, 'generator': 'gan', 'plain_cpu_seconds': 0.5}
            found.append({**about, **races, 'rejected': rejected})
    return found


@pytest.fixture(scope='module')
def blocks() -> list[Block]:
    return blocks_of(planted(), ['oa', 'aa', 'kappa'])


def test_the_chosen_policy_against_real_only(blocks: list[Block]) -> None:
    near, far, shut = primary(blocks)
    assert near['gain']['mean'] == pytest.approx(2.0, abs=0.06)
    assert far['gain']['mean'] == pytest.approx(4.0, abs=0.06)
    assert near['conclusion'] == far['conclusion'] == 'non-inferior, gains'
    assert shut['gain']['mean'] == 0
    assert shut['conclusion'] == 'non-inferior: never mixes'
    assert [r['mixes'] for r in (near, far, shut)] == [1.0, 1.0, 0.0]
    assert near['p_gain_holm'] == pytest.approx(3 / 512, abs=1e-4)  # all of one sign, the smallest of three p values
    assert near['trainings'] == 18
    assert near['cost'] == 60.0


def test_following_the_advice_of_the_others(blocks: list[Block]) -> None:
    """The mean of the other scenes is best behind gates at ratio 2; where gates are shut this comes to nothing."""
    found = {line['scene']: line for line in lines(blocks) if line['policy'] == ADVISED}
    assert [found[scene]['oa']['mean'] for scene in ('near', 'far', 'shut')] == pytest.approx([2, 4, 0], abs=0.06)
    assert [found[scene]['mixes'] for scene in ('near', 'far', 'shut')] == [1.0, 1.0, 0.0]
    assert ADVISED not in {line['policy'] for line in lines(blocks[:1])}


def test_policies_read_the_cells_that_they_name(blocks: list[Block]) -> None:
    found = {(line['scene'], line['policy']): line for line in lines(blocks)}
    means = {key: line['oa']['mean'] for key, line in found.items()}
    assert means['near', 'naive, r = 1'] == pytest.approx(-1, abs=0.06)
    assert means['near', 'naive, r = 2'] == pytest.approx(-3, abs=0.06)
    assert means['near', 'gated, r = 1'] == pytest.approx(0.5, abs=0.06)
    assert means['near', 'gate and ratio chosen on folds'] == means['near', 'naive, r = 1']
    assert means['near', 'gated, ratio validated'] == means['near', 'gated, r = 2']  # validation says what test does
    assert means['near', 'copies, r = 2'] == pytest.approx(0.1, abs=0.06)
    assert means['near', 'light, r = 2'] == pytest.approx(-0.4, abs=0.06)
    assert [policy for (scene, policy), line in found.items() if scene == 'near' and line['generator'] != 'gan'] == [
        'copies, r = 2'
    ]
    assert means['shut', 'gated, r = 2'] == 0
    assert found['shut', 'gated, r = 2']['mixes'] == 0
    assert found['near', 'gated, r = 2']['aa']['mean'] == pytest.approx(means['near', 'gated, r = 2'])


def test_means_over_scenes_and_k(blocks: list[Block]) -> None:
    at = {line['policy']: line for line in lines(blocks) if line['scene'] == MEAN}
    loose = at['gated, ratio chosen on folds, k = 0.5']
    assert loose['oa']['mean'] == pytest.approx(2.0, abs=0.06)  # (2 + 4 + 0) / 3
    assert loose['oa']['interval'][0] < loose['oa']['mean'] < loose['oa']['interval'][1]
    assert loose['mixes'] == pytest.approx(2 / 3, abs=1e-4)
    strict = at['gated, ratio chosen on folds, k = 1']
    assert (strict['oa']['mean'], strict['mixes'], strict['oa']['interval']) == (0.0, 0.0, [0.0, 0.0])


def test_rejections(blocks: list[Block]) -> None:
    near, _, shut = primary(blocks)
    assert near['kept'] == 0.8
    assert near['rejected'] == {'range': 0.2, 'novelty': 0.05}
    assert (near['refused'], near['left_out']) == (0.0, 0.25)
    assert (shut['refused'], shut['left_out']) == (1.0, 0.0)


def test_few_seeds_are_no_basis_and_tables_are_whole() -> None:
    blocks = blocks_of(planted(seeds=4), ['oa', 'aa'])
    summary = {'primary': primary(blocks), 'lines': lines(blocks)}
    text = markdown(summary, ['oa', 'aa'])
    assert text.count('too few seeds (4 of 10)') == 3
    assert 'non-inferior,' not in text.replace('p non-inferior, Holm', '')
    assert markdown(summary, ['oa', 'aa'], quick=True).count('no basis for claims') == 1
    header, _, *rows = text.split('## Gated, ratio chosen on folds\n\n')[1].split('\n\n')[0].split('\n')
    assert len(rows) == 3
    assert all(line.count('|') == header.count('|') for line in rows)
    panel, *_ = draw(summary['lines'], 'oa').axes
    assert [label.get_text() for label in panel.get_xticklabels()] == ['near', 'far', 'shut']
    assert len(panel.containers) == 6 + 1  # policies, and the control


def test_the_means_of_the_results_page_are_those_of_the_record() -> None:
    results = Path(__file__).parents[2] / 'benchmarks' / 'results'
    record = read_json(results / 'trust/spectrum/summary.json', 'the summary of a study')['table']['lines']
    at = {(line['generator'], line['policy']): line['oa'] for line in record if line['scene'] == MEAN}
    policies = 'naive, r = 1', 'naive, r = 2', 'gated, r = 2', PRIMARY
    rows = re.findall(r'^\| \*\*mean\*\* \|(.+)\|$', (results / 'README.md').read_text().replace('−', '-'), re.M)
    for generator, row in zip(('spectral_gan', 'variability'), rows, strict=True):
        cells = [[float(x) for x in re.findall(r'[+-]\d+\.\d', cell)] for cell in row.split('|')]
        for policy, cell in zip(policies, cells, strict=True):
            gain = at[generator, policy]
            assert cell == pytest.approx([gain['mean'], *gain['interval']], abs=0.051) if cell else gain['mean'] == 0


def test_races_of_fewer_seeds_are_compared_on_these() -> None:
    found = [row for row in planted(('near', 'far')) if 'gated' not in row or row['seed'] != 9]
    assert [line['gain']['n'] for line in primary(blocks_of(found, ['oa', 'aa']))] == [9, 9]
