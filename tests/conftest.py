import multiprocessing
import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from hsiaug.scenes import RandomSplit, Scene, Split
from hsiaug.systems import TrainingData
from hsiaug.tasks import change, segmentation
from hsiaug.tasks import scene as labelled_images
from hsiaug.trainers import training_data
from hsiaug.trainers.patch_encoder import train_date_encoder, train_patch_encoder


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption('--slow', action='store_true', help='run tests that take minutes')


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker('gpu') is not None:  # keywords hold names of folders too
                item.add_marker(pytest.mark.skip(reason='needs a CUDA device, torch finds none'))
    if not config.getoption('--slow'):
        for item in items:
            if 'slow' in item.keywords:
                item.add_marker(pytest.mark.skip(reason='takes minutes; run with --slow'))


@pytest.fixture(scope='session', autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope='session', autouse=True)
def short_encoders() -> Iterator[None]:
    """Encoders that fidelity is measured with are trained for few steps; what they learn is tested by itself."""
    with pytest.MonkeyPatch.context() as patch:
        for task in (labelled_images, segmentation):
            patch.setattr(task, 'train_patch_encoder', partial(train_patch_encoder, steps=20))
        patch.setattr(change, 'train_date_encoder', partial(train_date_encoder, steps=20))
        yield


@pytest.fixture
def forked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Worker processes are forks, which import nothing anew."""
    fork = multiprocessing.get_context('fork')
    monkeypatch.setattr(multiprocessing, 'get_context', lambda method=None: fork)


@pytest.fixture(scope='session')
def real_data() -> Path:
    """Folder of the real scenes."""
    if 'HSIAUG_DATA' not in os.environ:
        pytest.skip('HSIAUG_DATA is unset: it names the folder of the real scenes')
    return Path(os.environ['HSIAUG_DATA'])


def make_scene(height: int = 24, width: int = 20, bands: int = 12, classes: int = 3, seed: int = 0) -> Scene:
    """Stripes of classes, each a bump at its own band, with noise; one pixel in four unlabelled."""
    rng = np.random.default_rng(seed)
    labels = 1 + (np.arange(height)[:, None] // 2 + np.arange(width)[None, :] // 5) % classes
    centres = np.linspace(2, bands - 3, classes)
    bump = np.exp(-((np.arange(bands) - centres[:, None]) ** 2) / 4)
    cube = (
        0.2 + bump[labels - 1] * rng.uniform(0.7, 1.3, (height, width, 1)) + rng.normal(0, 0.05, (height, width, bands))
    )
    labels = np.where(rng.random((height, width)) < 0.25, 0, labels)
    return Scene(
        'stripes',
        cube.astype(np.float32),
        labels,
        {i + 1: f'material {i}' for i in range(classes)},
        np.linspace(400, 2400, bands),
        unit='reflectance',
    )


@pytest.fixture(scope='session')
def scene() -> Scene:
    return make_scene()


@pytest.fixture(scope='session')
def split(scene: Scene) -> Split:
    return RandomSplit(fraction=0.4)(scene, seed=0)


@pytest.fixture(scope='session')
def data(scene: Scene, split: Split) -> Iterator[TrainingData]:
    shared = training_data(scene, split)
    yield shared
    assert torch.equal(shared.x, training_data(scene, split).x), 'a test wrote into the training data that all share'
