"""The page on banks of images: pairs with masks, pairs of dates and labelled images."""

from pathlib import Path

import numpy as np
import pytest
import torch
from pages import Reader, reported
from torch import Tensor

from hsiaug.datasets import ChangeDataset, PatchDataset, SceneDataset, scene_dataset, write_bank
from hsiaug.quality import inspection
from hsiaug.quality.inspection import inspect_bank
from hsiaug.report.page import write_page
from hsiaug.samples import LeakageError, Provenance
from hsiaug.scenes import BitemporalScene, LabelledPatchSplitter, PatchSplitter, Scene, SimulatedScene
from hsiaug.scenes.labelled_patches import LabelledPatchSplit
from hsiaug.systems import Generator
from hsiaug.trainers import training_data


@pytest.fixture(autouse=True)
def short_training(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inspection, 'PARTS', 2)


def simulated(dates: int = 1) -> SimulatedScene:
    return SimulatedScene(64, 64, np.linspace(450, 2400, 10), classes=3, patch=6, dates=dates, change=0.1)


def test_wrong_masks_and_turned_copies_are_shown(tmp_path: Path) -> None:
    scene = simulated()
    split = PatchSplitter(size=8, stride=4)(scene, 0)
    data = training_data(scene, split)
    test = PatchDataset.from_scene(scene, split, 'test')
    image, mask = test.image.clone(), test.mask.clone()  # new to the judges: nothing in them is wrong yet
    image[4], mask[4] = data.x[2].rot90(1, dims=(-2, -1)), data.y[2].rot90(1, dims=(-2, -1))
    mask[7] = (mask[7] + 1) % 3
    bank = write_bank(PatchDataset(image, mask, data.spec), None, tmp_path / 'pairs')
    path, overview = write_page(inspect_bank(bank, scene, split))
    page = Reader(path.read_text())
    assert page.open == []
    assert 'It is not known which pixels the source of this bank has seen' in path.read_text()
    assert 'agreement: labels or masks that do not match the image' in page.card('Rejected samples', 7)
    corner, card = split.train[2], page.card('Memorised samples', 4)
    assert f'corner at row {corner[0]}, column {corner[1]}' in card
    assert 'an exact copy' in card
    assert 'Exact copies: 1.' in page.sections['Memorised samples']
    assert 'alignment of mask and image' in dict(overview)
    # All but two pairs are the held-out ones themselves.
    assert float(page.row('Fidelity', 'precision')[0]) > 0.9
    assert int(page.row('Rejected samples', 'agreement: labels or masks that do not match the image')[0]) < 0.3 * len(
        mask
    )


def test_pairs_of_dates(tmp_path: Path) -> None:
    scene = BitemporalScene.from_simulated(simulated(dates=2))
    split = PatchSplitter(size=8, stride=4)(scene, 0)
    data = training_data(scene, split)
    dates = data.x[:30].flip(1)  # the second date first
    bank = write_bank(ChangeDataset(dates, data.y[:30], data.spec), None, tmp_path / 'dates')
    path, overview = write_page(inspect_bank(bank, scene, split, gates=False))
    page = Reader(path.read_text())
    assert page.open == []
    assert 'alt="spectra by class, date 2"' in path.read_text()
    # Class means of either date are those of the other one: the training pairs as they are come nearer to the test.
    for date in (1, 2):
        value, _, real, ideal = page.row('Fidelity', f'date {date}: spectral angle between class means (mSAD, radians)')
        assert float(value) > float(real)
        assert ideal == '0'
    value, _, real, _ = page.row(
        'Fidelity', 'differences between dates, where nothing changed, Wasserstein distance in real standard deviations'
    )
    assert float(value) > float(real)
    assert 'both dates: Fréchet distance of images' in dict(overview)


# --- labelled images --------------------------------------------------------------------------------------------------


class Replay(Generator):
    """Training images again, upside down; with ``wrong``, each with the label of the next class."""

    type_name = 'replay'

    def __init__(self, data: SceneDataset, split: LabelledPatchSplit, wrong: bool = False) -> None:
        super().__init__(data.spec)
        self.data, self.wrong = data, wrong
        self.provenance = Provenance('0', 0, {}, split.fingerprint, split.footprint())

    def _draw(self, labels: Tensor, rng: torch.Generator) -> dict[str, Tensor]:
        rows = [int((self.data.label == k).nonzero()[0]) for k in labels.tolist()]
        return {'image': self.data.image[rows].flip(-1), 'label': (labels + self.wrong) % self.spec.num_classes}


@pytest.fixture(scope='module')
def patches() -> tuple[Scene, LabelledPatchSplit]:
    scene = simulated()
    return scene, LabelledPatchSplitter(size=16, patch=6, patch_stride=4, block=16, per_class=12, min_labelled=0.1)(
        scene, 0
    )


def test_labelled_images(patches: tuple[Scene, LabelledPatchSplit], tmp_path: Path) -> None:
    scene, split = patches
    train = scene_dataset(scene, split, 'train')
    assert isinstance(train, SceneDataset)
    bank = write_bank(Replay(train, split), 40, tmp_path / 'images', labels='uniform')
    path, _ = write_page(inspect_bank(bank, scene, split))
    page = Reader(path.read_text())
    assert page.open == []
    assert 'known' not in page.sections['']
    assert 'Exact copies: 40.' in page.sections['Memorised samples']
    row = int((train.label == 0).nonzero()[0])
    corner = split.patches('train')[0][row]
    assert f'corner at row {corner[0]}, column {corner[1]}' in page.sections['Memorised samples']
    assert 'Not judged by agreement' in page.sections['Rejected samples']
    name = 'mean spectra: linear SVM trained on real, accuracy on synthetic samples'
    assert float(page.row('Fidelity', name)[0]) > 0.9


def test_the_report_of_a_generator_of_labelled_images(
    patches: tuple[Scene, LabelledPatchSplit], tmp_path: Path
) -> None:
    scene, split = patches
    train, test = (scene_dataset(scene, split, part) for part in ('train', 'test'))
    assert isinstance(train, SceneDataset)
    assert isinstance(test, SceneDataset)
    texts = [reported(Replay(train, split, wrong), train, test, tmp_path, count=30) for wrong in (False, True)]
    assert (tmp_path / 'fidelity.md').read_text() == texts[1]
    assert {file.stem for file in (tmp_path / 'figures').iterdir()} == {'images', 'class_shares', 'class_profiles'}
    assert f'30 synthetic images, {len(train)} training and {len(test)} test images' in texts[0]
    angles = [float(text.split('| spectral angle between class means (mSAD, radians) | ')[1].split(' ')[0])
              for text in texts]  # fmt: skip
    assert angles[1] > 2 * angles[0]
    svm = [text.split('Table 1')[1].splitlines()[4].strip('| ').split(' | ') for text in texts]
    assert float(svm[0][1]) > 90 > float(svm[1][1])  # real → synthetic
    other = LabelledPatchSplitter(size=16, patch=6, patch_stride=4, block=16, min_labelled=0.1)(scene, 3)
    with pytest.raises(LeakageError, match='evaluation pixels'):
        reported(Replay(train, other), train, test, tmp_path / 'out', count=10)
