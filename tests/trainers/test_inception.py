"""Inception's features, with random weights that are saved to files: nothing is downloaded."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torchvision.models import inception_v3

from hsiaug.records import write_json
from hsiaug.trainers.inception import InceptionFeatures, cached_weights, load_inception


@pytest.fixture(scope='module')
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As torchvision's own file holds them: with the auxiliary head and the last layer."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = inception_v3(weights=None, init_weights=False)
    file = tmp_path_factory.mktemp('hub') / 'checkpoints' / 'inception_v3_google-0.safetensors'
    file.parent.mkdir()
    save_file(network.state_dict(), file)
    return file


def test_features_are_those_before_the_last_layer(weights: Path) -> None:
    network = inception_v3(weights=None, init_weights=False)
    network.load_state_dict(load_file(weights))
    x = torch.rand(1, 3, 299, 299, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.no_grad():
        features = load_inception(weights)(x)
        assert torch.allclose(network.fc.cpu()(features), network.eval()(x), atol=1e-5)
    assert features.shape == (1, 2048)


def test_pictures_are_natural_colour_in_a_fixed_stretch(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = torch.rand(6, 4, 12, 12, generator=torch.Generator().manual_seed(1))
    encoder = InceptionFeatures(weights, images, (480.0, 550.0, 650.0, 860.0))
    assert encoder.bands == [2, 1, 0]
    seen: list[torch.Tensor] = []
    monkeypatch.setattr(encoder.network, 'forward', lambda x: (seen.append(x), x.mean(dim=(2, 3)))[1])
    features = encoder(torch.full((1, 4, 12, 12), 0.5))
    assert seen[0].shape == (1, 3, 299, 299)
    assert features.abs().max() < 0.1  # the middle of the stretch
    assert torch.equal(encoder(torch.full((1, 4, 12, 12), 9.0)), torch.ones(1, 3))
    assert torch.equal(encoder(images[:1, :]), encoder(images)[:1])
    # The fourth band is none of the three.
    other = images.clone()
    other[:, 3] += 1
    assert torch.equal(encoder(other), encoder(images))


def test_weights_are_found_in_the_cache_alone(weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.hub, '_hub_dir', str(weights.parents[1]))
    assert cached_weights() == weights
    monkeypatch.setattr(torch.hub, '_hub_dir', str(tmp_path))
    with pytest.raises(FileNotFoundError, match='holds no inception_v3_google'):
        cached_weights()


def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match='it should hold the state of torchvision'):
        load_inception(tmp_path / 'missing.pth')
    save_file({'Conv2d_1a_3x3.conv.weight': torch.zeros(1)}, tmp_path / 'other.safetensors')
    (tmp_path / 'text.pth').write_text('no weights')
    (tmp_path / 'code.pth').write_bytes(pickle.dumps(print))
    torch.save([1, 2], tmp_path / 'list.pth')
    for name in ('other.safetensors', 'text.pth', 'code.pth', 'list.pth'):
        with pytest.raises(ValueError, match=f'{name}.*expected the state of torchvision'):
            load_inception(tmp_path / name)


def test_studies_compare_images_by_them(weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from hsiaug.ablation import Arm, Setting, Study
    from hsiaug.ablation.runner import _fidelity_key, describe, open_group, unmeasured
    from hsiaug.scenes import PatchSplitter, SimulatedScene
    from hsiaug.tasks import TASKS

    monkeypatch.setattr('hsiaug.trainers.inception.SIDE', 2)
    monkeypatch.setattr('hsiaug.trainers.inception.load_inception', lambda file: nn.Flatten())
    study = Study(
        title='pairs',
        scenes={'fields': lambda: SimulatedScene(48, 48, classes=3)},
        settings=(Setting('fields', 'patches', PatchSplitter(16, 8, regions='halves', val_fraction=0.2)),),
        arms=(Arm('flips', 'patch_augment', {'kind': 'flips'}, labels='real'),),
        ratios=(1.0,),
        seeds=(0,),
        classifiers=(TASKS['segmentation'].model('segformer'),),
        inception=weights,
    )
    group = open_group(study, study.settings[0], 0, tmp_path)
    record = group.measure_fidelity(study.arms[0])
    assert record['dimensions'][0] == 12  # three bands of two by two pixels
    assert weights.name in ' '.join(describe(study, 'cpu', 1)['notes'])
    # A folder that was measured with the usual network is measured again.
    (_, file), *_ = unmeasured(study, study.settings[0], 0, tmp_path)
    plain = replace(study, inception=None)
    write_json(file, {'key': _fidelity_key(plain, study.settings[0], 0, study.arms[0])})
    assert not unmeasured(plain, study.settings[0], 0, tmp_path)
    assert unmeasured(study, study.settings[0], 0, tmp_path)


def test_pages_of_papers_name_them(weights: Path, tmp_path: Path) -> None:
    from hsiaug.reproduce import PAPERS, Work
    from hsiaug.reproduce.page import write_page
    from hsiaug.reproduce.run import Reproduction

    for inception, said in ((None, 'by features of a network that learnt the classes'), (weights, weights.name)):
        work = Work(PAPERS['specdm'], 'demo', {}, tmp_path, inception=inception)
        assert said in write_page(Reproduction(work)).read_text()
