"""The report of a generator of images with masks, of one date and of two."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pages import reported
from torch import Tensor

from hsiaug.datasets import scene_dataset
from hsiaug.samples import LeakageError, Provenance, SpecMismatchError
from hsiaug.scenes import BitemporalScene, PatchSplit, PatchSplitter, SimulatedScene
from hsiaug.systems import Generator


class Replay(Generator):
    """Training samples again, upside down and brighter; with ``shift``, masks beside their images."""

    type_name = 'replay'

    def __init__(self, data: Any, split: PatchSplit, shift: int = 0) -> None:
        super().__init__(data.spec)
        self.data, self.shift = data, shift
        self.provenance = Provenance('0', 0, {}, split.fingerprint, split.footprint())

    def _draw(self, labels: Tensor, rng: torch.Generator) -> dict[str, Tensor]:
        rows = torch.randint(len(self.data), (len(labels),), generator=rng)
        mask = self.data.mask[rows].flip(-2).roll(self.shift, dims=-1)
        return {'image': 1.05 * self.data.image[rows].flip(-2), 'mask': mask}


@dataclass(frozen=True)
class Parts:
    scene: Any
    split: PatchSplit
    train: Any
    test: Any

    def report(self, out: Path, count: int, shift: int = 0, **options: Any) -> str:
        return reported(Replay(self.train, self.split, shift), self.train, self.test, out, count, **options)


def parts(dates: int) -> Parts:
    simulated = SimulatedScene(48, 48, np.linspace(400, 2400, 10), classes=4, patch=3, dates=dates, change=0.15)
    scene: Any = BitemporalScene.from_simulated(simulated) if dates == 2 else simulated
    split = PatchSplitter(size=8, stride=4)(scene, 0)
    return Parts(scene, split, *(scene_dataset(scene, split, part) for part in ('train', 'test')))


@pytest.fixture(scope='module')
def pairs() -> Parts:
    return parts(1)


@pytest.fixture(scope='module')
def changes() -> Parts:
    return parts(2)


def alignment(text: str) -> float:
    return float(next(line for line in text.splitlines() if line.startswith('| alignment')).split(' | ')[1])


FIGURES = {
    'pairs': {'pairs', 'class_shares', 'cooccurrence', 'class_profiles'},
    'changes': {'pairs', 'class_shares', 'profiles_date_1', 'profiles_date_2'},
}
kinds = pytest.mark.parametrize('kind', FIGURES)


@kinds
def test_report_of_a_generator(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    of, out = request.getfixturevalue(kind), tmp_path / 'out'
    text = of.report(out, 50)
    assert {file.stem for file in (out / 'figures').iterdir()} == FIGURES[kind]
    assert all(file.read_bytes().startswith(b'\x89PNG') for file in (out / 'figures').iterdir())
    assert (out / 'fidelity.md').read_text() == text
    card = (out / 'README.md').read_text()
    assert card.startswith('# replay')
    assert text in card
    assert all(f'(figures/{name}.png)' in card for name in FIGURES[kind])
    assert f'50 synthetic pairs, {len(of.train)} training and {len(of.test)} test pairs' in text
    assert f'take {min(50, len(of.train))} synthetic or training pairs' in text
    if kind == 'pairs':
        rows = {line.split(' | ')[0].strip('| '): line.strip('| ').split(' | ') for line in text.splitlines()}
        assert alignment(text) > 0.8
        # Pairs of the training part resemble it more than the test part does.
        _, _, reference, to_train, _ = rows['class shares, total variation']
        assert float(to_train) < float(reference)
        assert all(len(rows[name]) == 5 for name in of.train.spec.classes)
    else:
        titles = [line for line in text.splitlines() if line.endswith(':')]
        assert titles == ['Date 1:', 'Date 2:', 'Both dates and the change mask:', 'Differences between the dates:']
        assert f'{100 * float((of.train.mask == 1).double().mean()):.1f} % (real, training)' in text
    assert alignment(of.report(tmp_path / 'shifted', 50, shift=3)) < alignment(text) - 0.2


def test_an_own_encoder_is_used(pairs: Parts, tmp_path: Path) -> None:
    seen: list[int] = []

    def encoder(image: Tensor) -> Tensor:
        seen.append(len(image))
        return image.mean(dim=(2, 3))[:, :3]

    text = pairs.report(tmp_path, 30, encoder=encoder)
    assert sum(seen) == len(pairs.train) + len(pairs.test) + 30
    assert '(3 of an image, 24 of a mask)' in text


@kinds
def test_leaks_and_strangers_are_refused(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    of = request.getfixturevalue(kind)
    with pytest.raises(LeakageError, match='evaluation pixels'):
        replace(of, split=PatchSplitter(size=8, stride=4)(of.scene, 1)).report(tmp_path / 'out', 10)
    for field, value in (('unit', 'counts'), ('classes', tuple('abcd'[: of.test.spec.num_classes]))):
        other = type(of.test)(of.test.image, of.test.mask, replace(of.test.spec, **{field: value}), of.test.split)
        with pytest.raises(SpecMismatchError, match=field):
            replace(of, test=other).report(tmp_path / 'out', 10)
    assert not (tmp_path / 'out').exists()
