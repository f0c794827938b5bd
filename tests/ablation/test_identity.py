"""A run folder belongs to one study, and cells to one scene."""

import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hsiaug.ablation import Arm, Classifier, Setting, Study, run_study
from hsiaug.ablation.cells import Group
from hsiaug.ablation.results import file_stem, read_results
from hsiaug.ablation.runner import fidelity_files, file_name
from hsiaug.report.ablation import write_report
from hsiaug.scenes import RandomSplit, Scene
from hsiaug.scenes.config import SceneConfig

SVM = Classifier('linear_svm', c=(1.0,))


def written(folder: Path, separable: bool, dtype: str = 'uint16') -> SceneConfig:
    """A scene in a file of one name, of two classes that can be told apart, or not."""
    rng = np.random.default_rng(0)
    label = np.repeat([1, 2], 100).reshape(20, 10)
    cube = rng.integers(1000, 1200, (20, 10, 6)) + (800 * (label == 2)[..., None] if separable else 0)
    folder.mkdir(exist_ok=True)
    np.savez(folder / 'scene.npz', cube=cube.astype(dtype), labels=label)
    return SceneConfig(path=str(folder / 'scene.npz'), labels='labels', cube_key='cube')


def study(scene: Callable[[], Scene], **changes: Any) -> Study:
    fields: dict[str, Any] = {
        'title': 'test',
        'scenes': {'scene': scene},
        'settings': (Setting('scene', '20 %', RandomSplit(fraction=0.2)),),
        'arms': (Arm('noise', 'noise', {}, 'real'),),
        'ratios': (1.0,),
        'seeds': (0, 1),
        'classifiers': (SVM,),
    }
    return Study(**{**fields, **changes})


def accuracy(folder: Path) -> float:
    return float(np.mean([row['test']['oa'] for row in read_results(folder / 'results.jsonl') if row['arm'] == 'real']))


def test_another_file_of_the_same_name_is_never_reported_as_the_first(tmp_path: Path) -> None:
    run_study(study(written(tmp_path / 'a', True)), tmp_path / 'run', progress=False)
    assert accuracy(tmp_path / 'run') == 1
    other = study(written(tmp_path / 'b', False))
    with pytest.raises(ValueError, match=r"results of another study.*\n  scene 'scene', cube: there '\w+', here '\w+'"):
        run_study(other, tmp_path / 'run', progress=False)
    run_study(other, tmp_path / 'other', progress=False)
    assert accuracy(tmp_path / 'other') < 0.8
    assert not {c.key for c in other.all_cells()} & {c.key for c in study(written(tmp_path / 'a', True)).all_cells()}


def test_a_file_that_is_overwritten_is_another_scene_to_the_same_study(tmp_path: Path) -> None:
    plan = study(written(tmp_path / 'a', True))
    run_study(plan, tmp_path / 'run', progress=False)
    written(tmp_path / 'a', False)
    with pytest.raises(ValueError, match="scene 'scene', cube"):
        run_study(plan, tmp_path / 'run', progress=False)


def test_a_file_that_changes_while_the_study_runs_is_named(tmp_path: Path) -> None:
    config, opened = written(tmp_path / 'a', True), []

    def changing() -> Scene:
        opened.append(1)
        return written(tmp_path / 'a', len(opened) == 1)()

    assert config().num_pixels == 200
    with pytest.raises(ValueError, match='has changed since the study was planned: cube: there'):
        run_study(study(changing), tmp_path / 'run', progress=False)


def test_the_same_values_stored_otherwise_go_on(tmp_path: Path) -> None:
    plan = study(written(tmp_path / 'a', True), seeds=(0,))
    run_study(plan, tmp_path / 'run', progress=False)
    before = (tmp_path / 'run' / 'results.jsonl').read_bytes()
    again = study(written(tmp_path / 'b', True, '>f4'), title='another title')
    run_study(again, tmp_path / 'run', workers=1, progress=False)
    after = (tmp_path / 'run' / 'results.jsonl').read_bytes()
    assert after.startswith(before)
    assert len(after.splitlines()) == 4
    assert {row['split'] for row in read_results(tmp_path / 'run' / 'results.jsonl')} == {
        RandomSplit(fraction=0.2)(again.scenes['scene'](), seed).fingerprint for seed in (0, 1)
    }


def library(scale: float = 1.0, labels: int = 0, **fields: Any) -> Scene:
    rng = np.random.default_rng(0)
    label = np.roll(np.repeat([1, 2], 60), labels)
    spectra = rng.integers(1, 200, (120, 5)) + 800 * (label == 2)[:, None]
    return Scene.from_spectra('s', spectra, label, scale=scale, **fields)


CHANGES: dict[str, tuple[dict[str, Any], str]] = {
    'scale': ({'scenes': {'scene': partial(library, scale=0.01)}}, "scene 'scene', scale: there 1.0, here 0.01"),
    'unit': ({'scenes': {'scene': partial(library, unit='radiance')}}, "scene 'scene', unit: there None"),
    'nodata': ({'scenes': {'scene': partial(library, nodata=-1)}}, "scene 'scene', nodata: there None, here -1.0"),
    'labels': ({'scenes': {'scene': partial(library, labels=1)}}, "scene 'scene', labels: there"),
    'split': (
        {'settings': (Setting('scene', '20 %', RandomSplit(fraction=0.3)),)},
        "setting 'scene, 20 %', fraction: there 0.2, here 0.3",
    ),
    'classifier': ({'classifiers': (replace(SVM, c=(10.0,)),)}, "classifier 'linear_svm', c: there"),
    'arm': (
        {'arms': (Arm('noise', 'noise', {'level': 0.5}, 'real'),)},
        "arm 'noise', settings.level: there None, here 0.5",
    ),
    'labels of an arm': ({'arms': (Arm('noise', 'noise', {}, 'sqrt'),)}, "arm 'noise', labels: there 'real'"),
}


@pytest.mark.parametrize('what', CHANGES)
def test_a_folder_of_another_study_is_refused_naming_the_field(what: str, finished: Path) -> None:
    change, message = CHANGES[what]
    before = (finished / 'plan.json').read_bytes(), (finished / 'results.jsonl').read_bytes()
    with pytest.raises(ValueError, match='holds 4 results of another study') as error:
        run_study(study(library, **change), finished, progress=False)
    assert message in str(error.value)
    assert before == ((finished / 'plan.json').read_bytes(), (finished / 'results.jsonl').read_bytes())


@pytest.fixture(scope='module')
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_study(study(library), tmp_path_factory.mktemp('study') / 'run', progress=False)


def test_title_ratios_seeds_and_what_is_added_go_on(finished: Path, tmp_path: Path) -> None:
    folder = run_study(study(library), tmp_path / 'run', progress=False)
    before = (folder / 'results.jsonl').read_bytes()
    more = study(
        library, title='more', ratios=(1.0, 2.0), seeds=(0, 1, 2), fidelity_seeds=2,
        arms=(Arm('noise', 'noise', {}, 'real', control=True), Arm('copies', 'duplicate', {}, 'real')),
    )  # fmt: skip
    run_study(more, folder, progress=False)
    assert (folder / 'results.jsonl').read_bytes().startswith(before)
    assert len(read_results(folder / 'results.jsonl')) == 3 * 5
    text = write_report(folder).markdown.read_text()
    assert 'noise (control)' in text  # measured before it was one


def test_an_older_folder_cannot_be_told_and_is_still_drawn(finished: Path, tmp_path: Path) -> None:
    plan = json.loads((finished / 'plan.json').read_text())
    del plan['identity']
    (tmp_path / 'plan.json').write_text(json.dumps(plan))
    (tmp_path / 'results.jsonl').write_bytes((finished / 'results.jsonl').read_bytes())
    with pytest.raises(ValueError, match='by an older version, which did not note'):
        run_study(study(library), tmp_path, progress=False)
    assert write_report(tmp_path).html.is_file()


def test_torn_and_foreign_files_of_a_folder_are_named(finished: Path, tmp_path: Path) -> None:
    for name, file in (('plan.json', 'plan.json'), ('fidelity', None)):
        folder = tmp_path / name.replace('.', '_')
        run_study(study(library), folder, progress=False)
        broken = folder / file if file else next((folder / 'fidelity').iterdir())
        whole = broken.read_text()
        for content in (whole[: len(whole) // 2], '[1, 2]', '\x00'):
            broken.write_text(content)
            for use in (partial(run_study, study(library), folder, progress=False), partial(write_report, folder)):
                with pytest.raises(ValueError, match=broken.name.replace('+', '.')):
                    use()
        broken.write_text('{"x": 1}')
        with pytest.raises(ValueError, match='lacks'):
            write_report(folder)
    folder = tmp_path / 'plan_json'
    (folder / 'plan.json').write_text(json.dumps(json.loads((finished / 'plan.json').read_text())))
    with (folder / 'results.jsonl').open('a') as rows:
        rows.write('{"cell": "x"}\n')
    with pytest.raises(ValueError, match=r'results\.jsonl: cell x lacks'):
        write_report(folder)


def test_results_without_a_plan_are_refused(finished: Path, tmp_path: Path) -> None:
    (tmp_path / 'results.jsonl').write_bytes((finished / 'results.jsonl').read_bytes())
    with pytest.raises(ValueError, match=r'no plan\.json'):
        run_study(study(library), tmp_path, progress=False)


def test_fidelity_of_another_generator_is_measured_anew(tmp_path: Path) -> None:
    folder = run_study(study(library), tmp_path, progress=False)
    ((_, file),) = fidelity_files(study(library), study(library).settings[0], 0, folder)
    record = json.loads(file.read_text())
    file.write_text(json.dumps({**record, 'key': 'of another', 'msad': 9.0}))
    run_study(study(library), folder, progress=False)
    assert json.loads(file.read_text()) == record


def test_generators_are_kept_for_one_scene(tmp_path: Path) -> None:
    """Two scenes of one name and one split: other labels of the same classes, or another scale."""
    arm = Arm('GAN', 'spectral_gan', {'iterations': 2, 'hidden': 4, 'layers': 1}, 'real')
    setting = Setting('scene', '20 %', RandomSplit(fraction=0.2))
    for scene in (library(), library(), library(scale=0.5)):
        Group(scene, setting, 0, tmp_path).generator(arm)
    assert len(list((tmp_path / 'generators').iterdir())) == 2


NAMES = ('a b', 'a/b', 'a_b', 'a\\b', 'a:b', '../a', '.a', 'a' * 300, 'a' * 301, 'ä' * 200, 'a-b')


def test_other_names_have_other_files() -> None:
    setting = Setting('scene', '20 %', RandomSplit(fraction=0.2))
    files = {file_name(setting, f'{name}-{seed}', 'json') for name in NAMES for seed in (0, 1)}
    assert len(files) == 2 * len(NAMES)
    for file in files:
        assert '/' not in file
        assert len(file.encode()) < 200
    assert file_stem('scene', '32 px', 'two-stream') == 'scene-32_px-two-stream'


def test_arms_whose_names_look_alike_keep_their_own_figures(tmp_path: Path) -> None:
    arms = tuple(
        Arm(name, 'noise', {'level': level}, 'real') for name, level in (('a/b', 0.1), ('a_b', 0.3), ('a b', 0.5))
    )
    plan = study(library, arms=arms, seeds=(0,))
    folder = run_study(plan, tmp_path, progress=False)
    records = [json.loads(file.read_text()) for file in (folder / 'fidelity').iterdir()]
    assert {record['arm'] for record in records} == {'a/b', 'a_b', 'a b'}
    assert len({record['std_ratio'] for record in records}) == 3


def test_settings_that_would_share_files_are_refused() -> None:
    split = RandomSplit(fraction=0.2)
    for one, other in ((('scene', 'a b'), ('scene', 'a_b')), (('scene', 'x-y'), ('scene-x', 'y'))):
        with pytest.raises(ValueError, match='would share files'):
            study(
                library,
                scenes={'scene': library, 'scene-x': library},
                settings=(Setting(*one, split), Setting(*other, split)),
            )
