"""The folder of a generator is believed only as far as it agrees with itself."""

from __future__ import annotations

import json
import multiprocessing
import os
import re
import resource
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from weights import same

from hsiaug.datamodules.mixed import open_source
from hsiaug.samples import SampleSpec
from hsiaug.systems import Generator, TrainingData
from hsiaug.systems.base import make_generator
from hsiaug.systems.saved import CheckpointError
from hsiaug.trainers import fit_generator

SMALL = {'iterations': 2, 'hidden': 8}


@pytest.fixture
def folder(data: TrainingData, tmp_path: Path) -> Path:
    return fit_generator('spectral_gan', data, SMALL).save_pretrained(tmp_path / 'gan')


def changed(folder: Path, **values: Any) -> None:
    config = json.loads((folder / 'config.json').read_text())
    for path, value in values.items():
        *parents, last = path.split('__')
        inner = config
        for name in parents:
            inner = inner[name]
        inner[last] = value
    (folder / 'config.json').write_text(json.dumps(config))


def peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


# --- weights bound to their config ------------------------------------------------------------------------------------


@pytest.mark.parametrize('step', range(3))
@pytest.mark.parametrize('old', ['with hash', 'of an older version', 'checkpoints only'])
def test_a_kill_while_saving_over_a_generator_mixes_no_two(
    data: TrainingData, folder: Path, old: str, step: int
) -> None:
    if old == 'of an older version':
        config = json.loads((folder / 'config.json').read_text())
        del config['weights']
        (folder / 'config.json').write_text(json.dumps(config))
    elif old == 'checkpoints only':
        for file in folder.iterdir():
            file.unlink()
        (folder / 'training').mkdir()
    second = fit_generator('spectral_gan', data, SMALL, seed=1)
    replace = os.replace

    def killed() -> None:
        done = []

        def stops(*args: Any) -> None:
            if len(done) == step:
                os.kill(os.getpid(), signal.SIGKILL)
            done.append(replace(*args))

        os.replace = stops
        second.save_pretrained(folder)

    process = multiprocessing.get_context('fork').Process(target=killed)
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    try:
        found = Generator.from_pretrained(folder)
    except CheckpointError as error:
        refused = re.search('saving was interrupted|holds no', str(error))
    else:
        refused = None
    if refused is None:
        assert found.provenance is not None
        expected = second if found.provenance.seed == 1 else fit_generator('spectral_gan', data, SMALL)
        assert same(found, expected)
    second.save_pretrained(folder)  # and saving again mends it
    again = Generator.from_pretrained(folder)
    assert again.provenance is not None
    assert again.provenance.seed == 1


def test_weights_of_another_training_are_refused_and_older_folders_open(
    data: TrainingData, folder: Path, tmp_path: Path
) -> None:
    other = fit_generator('spectral_gan', data, SMALL, seed=1).save_pretrained(tmp_path / 'other')
    shutil.copy(other / 'model.safetensors', folder)
    with pytest.raises(CheckpointError, match=r'config\.json next to it was written with'):
        Generator.from_pretrained(folder)
    config = json.loads((folder / 'config.json').read_text())
    del config['weights']  # as versions before wrote it
    (folder / 'config.json').write_text(json.dumps(config))
    assert Generator.from_pretrained(folder).sample(2, seed=0)['image'].shape == (2, 12)


def test_names_of_classes_are_plain_text_in_the_card() -> None:
    spec = SampleSpec('spectrum', 3, ('dry *soil*', 'a_b|<i>', '[x](y)\n# z'))
    card = make_generator('noise', spec, {}).card()
    assert r'- classes: dry \*soil\*, a\_b\|&lt;i>, \[x\](y) \# z' in card.splitlines()


def test_a_model_of_somebody_else_is_not_written_over(data: TrainingData, tmp_path: Path) -> None:
    (tmp_path / 'config.json').write_text('{"architectures": ["Bert"], "type": "bert"}')
    (tmp_path / 'model.safetensors').write_bytes(b'theirs')
    with pytest.raises(FileExistsError, match='holds no generator'):
        fit_generator('noise', data).save_pretrained(tmp_path)
    assert (tmp_path / 'model.safetensors').read_bytes() == b'theirs'


@pytest.mark.parametrize('kind', ['gaussian', 'variability', 'noise', 'spectral_gan'])
def test_weights_in_half_precision_load_and_sample(data: TrainingData, tmp_path: Path, kind: str) -> None:
    generator = fit_generator(kind, data, SMALL if kind == 'spectral_gan' else {})
    expected = generator.sample(6, seed=1)['image']
    generator.to(torch.bfloat16).save_pretrained(tmp_path / 'g')
    found = Generator.from_pretrained(tmp_path / 'g').sample(6, seed=1)['image']
    assert found.dtype == torch.float32
    assert torch.allclose(found, expected, atol=0.1, rtol=0.1)


@pytest.mark.parametrize('kind', ['gaussian', 'variability'])
def test_a_model_that_holds_a_generator_loads_its_state(data: TrainingData, kind: str) -> None:
    trained = fit_generator(kind, data, {})
    holder = torch.nn.ModuleDict({'source': make_generator(kind, data.spec, {})})
    holder.load_state_dict(torch.nn.ModuleDict({'source': trained}).state_dict())
    made = holder['source']
    assert isinstance(made, Generator)
    assert same(made, trained)
    assert torch.equal(made.sample(9, seed=1)['image'], trained.sample(9, seed=1)['image'])


# --- nothing is allocated that is merely declared ---------------------------------------------------------------------


@pytest.mark.parametrize(
    'changes',
    [
        {'settings__hidden': 40_000},
        {'settings__layers': 10**9},
        {'settings__noise_dim': 10**10},
        {'settings__components': 10**15},
        {'settings__hidden': 10**30},
        {'settings__hidden': -5},
        {'spec__bands': 10**10, 'spec__wavelengths': None},
        {'type': 'ensemble', 'settings': {'members': [{'type': 'spectral_gan', 'settings': {'hidden': 40_000}}]}},
        {'type': 'ensemble', 'settings': {'members': [{'type': 'gaussian', 'settings': {'components': 10**12}}] * 999}},
        {'type': 'ensemble', 'settings': {'members': 10**9}},
        {'type': 'augmented', 'settings': {'source': {'type': 'noise'}, 'augmenter': {}}},
        {'type': [], 'settings': {}},
        {'settings': None},
        {'settings__hidden': None},
        {'settings__hidden': 'big'},
        {'settings__depth': 3},
        {'spec__wavelengths': [float('nan')] * 12},
        {'spec__classes': []},
        {'spec__classes': ['a', 'a', 'b']},
        {'provenance': {'seen': 3}},
        {'provenance__seen__size': 'all'},
    ],
    ids=str,
)
def test_a_config_that_its_weights_do_not_fill_is_refused_at_once(folder: Path, changes: dict[str, Any]) -> None:
    changed(folder, **changes)
    before, start = peak(), time.monotonic()
    with pytest.raises(CheckpointError):
        Generator.from_pretrained(folder)
    assert peak() - before < 500 << 20
    assert time.monotonic() - start < 10


def test_parts_that_cost_no_weights_are_counted(data: TrainingData, tmp_path: Path) -> None:
    folder = fit_generator('noise', data).save_pretrained(tmp_path / 'g')
    part = {'type': 'noise', 'settings': {}}
    changed(folder, type='ensemble', settings={'members': [part] * 50_000})
    with pytest.raises(CheckpointError, match='far more than its weights can fill'):
        Generator.from_pretrained(folder)


# --- names ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def no_hub(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    asked: list[str] = []

    def download(repo: str, **_: Any) -> str:
        asked.append(repo)
        raise OSError('no network')

    monkeypatch.setattr('huggingface_hub.snapshot_download', download)
    return asked


@pytest.mark.parametrize('name', ['runs/gna', 'gna', 'a/b/c', './runs/gna', 'owner/name/', 'https://x.y/a/b'])
@pytest.mark.parametrize('as_path', [False, True])
def test_a_mistyped_folder_is_not_looked_for_on_the_hub(no_hub: list[str], name: str, as_path: bool) -> None:
    for opened in (Generator.from_pretrained, open_source):
        with pytest.raises(CheckpointError, match=r'no folder .*hf://owner/name') as raised:
            opened(Path(name) if as_path else name)
        assert isinstance(raised.value, FileNotFoundError)
    assert not no_hub


@pytest.mark.parametrize('name', ['hf://owner/name', Path('hf://owner/name')])
def test_the_hub_is_asked_where_it_is_named(
    no_hub: list[str], folder: Path, monkeypatch: pytest.MonkeyPatch, name: Any
) -> None:
    with pytest.raises(CheckpointError, match=r'hf://owner/name could not be had .*no network'):
        Generator.from_pretrained(name)
    assert no_hub == ['owner/name']
    monkeypatch.setattr('huggingface_hub.snapshot_download', lambda repo, **_: str(folder))
    assert isinstance(open_source(name), Generator)
