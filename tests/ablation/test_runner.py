import json
import multiprocessing
import os
import pickle
import random
import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hsiaug.ablation import Arm, Classifier, Setting, Study, run_study
from hsiaug.ablation.arms import quick, spectral_arms
from hsiaug.ablation.results import read_results
from hsiaug.json_lines import append_line
from hsiaug.report import text_table, write_report
from hsiaug.scenes import make_splitter
from hsiaug.scenes.config import SceneConfig
from hsiaug.trainers import ClassifierConfig

SCENE = SceneConfig(simulated={'height': 32, 'width': 32, 'classes': 3})
FAST = Classifier(config=ClassifierConfig(hidden=16, layers=2), scalings=('standard',), steps=(5, 10))


def study(seeds: int = 2) -> Study:
    return Study(
        title='test',
        scenes={'simulated': SCENE},
        settings=(Setting('simulated', '10 per class', make_splitter('random', per_class=10)),),
        arms=(
            Arm('GAN', 'spectral_gan', {'iterations': 3, 'hidden': 8, 'layers': 1}, 'real', seeds=1),
            Arm('mixup', 'mixup', {'partners': 'across'}),
            Arm('copies', 'duplicate', labels='prior', control=True),
        ),
        ratios=(0.5, 2),
        seeds=tuple(range(seeds)),
        classifiers=(FAST, Classifier('linear_svm', c=(1.0, 10.0))),
    )


def rows(folder: Path) -> list[dict[str, Any]]:
    """Results without what may differ between two runs: the time that they took."""
    found = [{k: v for k, v in row.items() if k != 'seconds'} for row in read_results(folder / 'results.jsonl')]
    return sorted(found, key=lambda row: row['cell'])


@pytest.fixture(scope='module')
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_study(study(), tmp_path_factory.mktemp('run') / 'a', progress=False)


def test_every_cell_once_with_exact_counts(finished: Path) -> None:
    found = rows(finished)
    # per classifier and seed: real, mixup and copies at two ratios; the GAN in the first seed only
    assert len(found) == 2 * (2 * (1 + 4) + 2) == len(study().all_cells())
    for row in found:
        assert row['train_real'] == 21
        assert row['train_synthetic'] == round(row['ratio'] * 21)
        assert 0 <= row['test']['oa'] <= 1
    assert {row['seed'] for row in found if row['arm'] == 'GAN'} == {0}
    assert len({row['split'] for row in found}) == 2  # one split per seed, shared by all arms
    settings = {(r['classifier'], r['seed']): set() for r in found}  # type: ignore[var-annotated]
    for r in found:
        settings[r['classifier'], r['seed']].add(json.dumps(r['setting']))
    assert all(len(s) == 1 for s in settings.values())  # tuned once, on real only, for all arms


@pytest.mark.usefixtures('forked')
def test_workers_do_not_change_results(finished: Path, tmp_path: Path) -> None:
    sent = pickle.loads(pickle.dumps(study()))  # as to workers that begin anew
    run_study(sent, tmp_path / 'b', workers=2, progress=False)
    assert rows(tmp_path / 'b') == rows(finished)


def test_ray_gives_the_same(finished: Path, tmp_path: Path) -> None:
    ray = pytest.importorskip('ray', reason="the 'ray' extra is not installed")
    ray.init(
        num_cpus=1, include_dashboard=False, log_to_driver=False, runtime_env={'env_vars': {'OMP_NUM_THREADS': '1'}}
    )
    try:
        run_study(study(), tmp_path / 'c', engine='ray', progress=False)
    finally:
        ray.shutdown()
    assert rows(tmp_path / 'c') == rows(finished)


def test_more_seeds_keep_what_is_there(finished: Path, tmp_path: Path) -> None:
    folder = run_study(study(1), tmp_path / 'd', progress=False)
    before = (folder / 'results.jsonl').read_bytes()
    run_study(study(2), folder, progress=False)
    assert (folder / 'results.jsonl').read_bytes().startswith(before)
    assert rows(folder) == rows(finished)
    other = replace(study(), arms=(), settings=(Setting('simulated', 'x', make_splitter('random', per_class=12)),))
    with pytest.raises(ValueError, match='results of another study'):
        run_study(other, folder, progress=False)


def run_apart(out: Path, workers: int) -> None:
    os.setsid()  # a group of its own, which is killed with all workers
    run_study(study(), out, workers=workers, progress=False)


@pytest.mark.usefixtures('forked')
@pytest.mark.parametrize(('workers', 'most'), [(1, 3), (2, 2)])
def test_killed_at_random_moments_ends_with_the_same_table(
    finished: Path, tmp_path: Path, workers: int, most: int
) -> None:
    out, rng, kills = tmp_path / 'k', random.Random(workers), 0
    for _ in range(40):
        process = multiprocessing.get_context('fork').Process(target=run_apart, args=(out, workers))
        before = len(rows(out)) if out.exists() else 0
        process.start()
        # Wait until this attempt has written something, then kill it a random moment later: in the middle of work.
        while process.is_alive() and (len(rows(out)) if out.exists() else 0) <= before:
            time.sleep(0.005)
        time.sleep(rng.uniform(0, 0.03))  # a cell takes about as long
        if process.is_alive() and kills < most:
            assert process.pid is not None
            os.killpg(process.pid, signal.SIGKILL)
            kills += 1
        process.join()
        if process.exitcode == 0:
            break
        assert process.exitcode == -signal.SIGKILL
    assert kills >= 2
    assert rows(out) == rows(finished)
    for folder in (out, finished):
        write_report(folder)
    assert text_table(out) == text_table(finished)


def test_torn_line_runs_again(tmp_path: Path) -> None:
    file = tmp_path / 'results.jsonl'
    append_line(file, {'cell': 'a', 'x': 1})
    with file.open('ab') as handle:
        handle.write(b'{"cell": "b", "x"')
    append_line(file, {'cell': 'c', 'x': 3})
    append_line(file, {'cell': 'a', 'x': 99})
    assert read_results(file) == [{'cell': 'a', 'x': 1}, {'cell': 'c', 'x': 3}]
    file.write_text('[1, 2]\n')
    with pytest.raises(ValueError, match='not a result of a study'):
        read_results(file)


def test_study_mistakes_are_named() -> None:
    base = study()
    for change, message in (
        ({'ratios': (-1.0,)}, 'finite number >= 0'),
        ({'ratios': ()}, 'at least one of ratios'),
        ({'arms': base.arms * 2}, 'repeated arms'),
        ({'scenes': {}}, 'unknown scenes'),
    ):
        with pytest.raises(ValueError, match=message):
            replace(base, **change)
    with pytest.raises(ValueError, match='reserved for the arm without'):
        Arm('real', 'noise')
    with pytest.raises(ValueError, match='unknown classifier'):
        Classifier('svm')
    with pytest.raises(ValueError, match='unknown engine'):
        run_study(base, 'x', engine='slurm')  # type: ignore[arg-type]


def test_quick_keeps_all_arms_and_is_marked() -> None:
    small = quick(replace(study(5), arms=spectral_arms()))
    assert [a.name for a in small.arms] == [a.name for a in spectral_arms()]
    assert (len(small.seeds), len(small.ratios), small.quick) == (3, 2, True)
    assert all(a.settings['iterations'] == 200 for a in small.arms if a.generator == 'spectral_gan')
