import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hsiaug.ablation.results import PLAN_FILE, RESULTS_FILE
from hsiaug.json_lines import append_line

sys.path.insert(0, str(Path(__file__).parents[2] / 'benchmarks'))
from trust_report import (
    ADVISED,
    NO_GATE,
    Block,
    by_k,
    followed,
    lines,
    markdown,
    primary,
    read_blocks,
    rejections,
    way_name,
    write_tables,
)

SEEDS = 10
# Test OA of each arm and ratio above real only, in points; scene 'far' differs.
GAINS = {('gan', 1.0): -1.0, ('gan', 2.0): -3.0, ('gan, gated', 1.0): 0.5, ('gan, gated', 2.0): 2.0}


def row(scene: str, seed: int, arm: str, ratio: float, points: float, **extra: Any) -> dict[str, Any]:
    score = (60 + seed + points + 0.05 * ((seed * 7 + len(arm)) % 5 - 2) * (ratio > 0)) / 100
    metrics = {'oa': score, 'aa': score - 0.1}
    return {
        'cell': f'{scene}{seed}{arm}{ratio}', 'scene': scene, 'budget': 'b', 'classifier': 'nn1d', 'arm': arm,
        'ratio': ratio, 'seed': seed, 'control': arm == 'copies', 'train_real': 100, 'test_count': 300,
        'val': metrics, 'test': metrics, 'classes': ['a', 'b', 'c', 'd'], 'left_out': ['a'] if 'gated' in arm else [],
        **extra,
    }  # fmt: skip


def planted(folder: Path, scenes: tuple[str, ...] = ('near', 'far', 'shut'), seeds: int = SEEDS) -> Path:
    """A study with known gains: gates help; the races choose gates at ratio 2, and nothing on the scene 'shut'."""
    folder.mkdir(parents=True)
    plan = {
        'title': 'Planted', 'quick': False, 'metrics': ['oa', 'aa', 'kappa'], 'command': 'trust.py',
        'settings': [[scene, 'b', 'S'] for scene in scenes], 'environment': {
            'hardware': 'none', 'versions': {'torch': '2'}, 'commit': 'abc'
        },
    }  # fmt: skip
    (folder / PLAN_FILE).write_text(json.dumps(plan))
    for scene in scenes:
        shut = scene == 'shut'
        for seed in range(seeds):
            append = folder / RESULTS_FILE
            append_line(append, row(scene, seed, 'real', 0.0, 0.0))
            append_line(append, row(scene, seed, 'copies', 2.0, 0.1))
            append_line(append, row(scene, seed, way_name('gan', 'light'), 2.0, -0.4))
            for (arm, ratio), gain in GAINS.items():
                if shut and arm == 'gan, gated':
                    append_line(append, {**row(scene, seed, 'real', 0.0, 0.0), 'cell': f'{scene}{seed}{arm}{ratio}',
                                           'arm': arm, 'ratio': ratio, 'refused': 'none passes'})  # fmt: skip
                else:
                    append_line(append, row(scene, seed, arm, ratio, 2 * gain if scene == 'far' else gain))
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
            append_line(
                folder / RESULTS_FILE,
                {'cell': f'{scene}{seed}', 'scene': scene, 'seed': seed, 'generator': 'gan',
                 **races, 'plain_cpu_seconds': 0.5, 'rejected': rejected},
            )  # fmt: skip
    return folder


@pytest.fixture(scope='module')
def blocks(tmp_path_factory: pytest.TempPathFactory) -> list[Block]:
    return read_blocks(planted(tmp_path_factory.mktemp('trust') / 'run'))


def test_the_chosen_policy_against_real_only(blocks: list[Block]) -> None:
    near, far, shut = primary(blocks)
    assert near['gain']['mean'] == pytest.approx(2.0, abs=0.06)
    assert far['gain']['mean'] == pytest.approx(4.0, abs=0.06)
    assert near['conclusion'] == far['conclusion'] == 'non-inferior, gains'
    assert shut['gain']['mean'] == 0
    assert shut['conclusion'] == 'non-inferior: never mixes'
    assert [r['mixes'] for r in (near, far, shut)] == [1.0, 1.0, 0.0]
    assert near['p_gain_holm'] == pytest.approx(3 / 512)  # all ten of one sign, the smallest of three p values
    assert near['trainings'] == 18
    assert near['cost'] == 60.0


def test_regret_is_against_what_the_others_advise(blocks: list[Block]) -> None:
    near, _, shut = primary(blocks)
    # The mean of far and shut is best behind gates at ratio 2, which was chosen: no regret.
    assert near['regret of gated']['advised'] == ['gan, gated', 2.0]
    assert near['regret of gated']['mean'] == 0
    # The other race chose ratio 1 without gates: 2 - (-1) points lost.
    assert near['regret of either']['mean'] == pytest.approx(3.0, abs=0.1)
    assert shut['regret of gated']['mean'] == 0  # the advice, too, comes to nothing where gates are shut
    (alone,) = primary(blocks[:1])
    assert alone['regret of gated'] is None


def test_following_the_advice_of_the_others(blocks: list[Block]) -> None:
    near, far, shut = followed(blocks)
    assert near['advised'] == far['advised'] == shut['advised'] == ['gan, gated', 2.0]
    assert [row['gain']['mean'] for row in (near, far, shut)] == pytest.approx([2, 4, 0], abs=0.06)
    assert [row['mixes'] for row in (near, far, shut)] == [1.0, 1.0, 0.0]
    assert near['conclusion'] == 'non-inferior, gains'
    advised = {line['scene']: line['gain']['mean'] for line in lines(blocks) if line['policy'] == ADVISED}
    assert advised == {row['scene']: row['gain']['mean'] for row in (near, far, shut)}
    assert followed(blocks[:1]) == []
    assert ADVISED not in {line['policy'] for line in lines(blocks[:1])}


def test_policies_read_the_cells_that_they_name(blocks: list[Block]) -> None:
    found = {(line['scene'], line['policy']): line for line in lines(blocks)}
    means = {key: line['gain']['mean'] for key, line in found.items()}
    assert means['near', 'naive, r = 1'] == pytest.approx(-1, abs=0.06)
    assert means['near', 'naive, r = 2'] == pytest.approx(-3, abs=0.06)
    assert means['near', 'gated, r = 1'] == pytest.approx(0.5, abs=0.06)
    assert means['near', 'gate and ratio chosen on folds'] == means['near', 'naive, r = 1']
    assert means['near', 'gated, ratio validated'] == means['near', 'gated, r = 2']  # validation says what test does
    assert means['near', 'copies, r = 2'] == pytest.approx(0.1, abs=0.06)
    assert means['near', 'light, r = 2'] == pytest.approx(-0.4, abs=0.06)
    assert [policy for (scene, policy), line in found.items() if scene == 'near' and line['control']] == [
        'copies, r = 2'
    ]
    assert means['shut', 'gated, r = 2'] == 0
    assert found['shut', 'gated, r = 2']['mixes'] == 0
    assert found['near', 'gated, r = 2']['second']['mean'] == pytest.approx(means['near', 'gated, r = 2'])


def test_rejections_and_k(blocks: list[Block]) -> None:
    near, _, shut = rejections(blocks)
    assert near == {
        'scene': 'near', 'generator': 'gan', 'kept': 0.8, 'rejected': {'range': 0.2, 'novelty': 0.05}, 'refused': 0.0,
        'left_out': 0.25,
    }  # fmt: skip
    assert (shut['refused'], shut['left_out']) == (1.0, 0.0)
    at = {(r['policy'], r['k']): r for r in by_k(blocks)}
    assert at['gated, ratio chosen on folds', 0.5]['gain'] == pytest.approx(2.0, abs=0.06)  # (2 + 4 + 0) / 3
    assert at['gated, ratio chosen on folds', 0.5]['mixes'] == pytest.approx(2 / 3)
    strict = at['gated, ratio chosen on folds', 1.0]
    assert (strict['gain'], strict['mixes'], strict['interval']) == (0.0, 0.0, (0.0, 0.0))


def test_few_seeds_are_no_basis_and_files_are_written(tmp_path: Path) -> None:
    folder = planted(tmp_path / 'run', seeds=4)
    text = write_tables(folder)
    assert (folder / 'trust.md').read_text() == text
    assert text.count('too few seeds (4 of 10)') == 2 * 3
    assert 'non-inferior,' not in text.replace('p non-inferior, Holm', '')
    summary = json.loads((folder / 'trust.json').read_text())
    assert [line['scene'] for line in summary['primary']] == ['near', 'far', 'shut']
    assert (folder / 'trust.png').stat().st_size > 10_000
    assert markdown({**summary, 'quick': True}).count('no basis for claims') == 1
    header, _, *rows = text.split('## Gated, ratio chosen on folds\n\n')[1].split('\n\n')[0].split('\n')
    assert len(rows) == 3
    assert all(line.count('|') == header.count('|') for line in rows)


def test_a_killed_study_counts_seeds_that_are_whole(tmp_path: Path) -> None:
    folder = planted(tmp_path / 'run', ('near', 'far'))
    path = folder / RESULTS_FILE
    kept = [
        line
        for line in path.read_text().splitlines()
        if not ('gated' in (row := json.loads(line)) and row['seed'] == 9)
    ]
    path.write_text('\n'.join(kept) + '\n')
    found = primary(read_blocks(folder))
    assert [line['seeds'] for line in found] == [9, 9]
    assert np.isfinite(found[0]['gain']['mean'])
    path.unlink()
    with pytest.raises(ValueError, match='no finished search'):
        write_tables(folder)
