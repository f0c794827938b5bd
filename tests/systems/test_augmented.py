from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader
from zooms import class_of, interpolating, plateaus

from hsiaug.datasets import MixedDataset, SyntheticBank, write_bank
from hsiaug.datasets.real.patches import PatchDataset
from hsiaug.samples import LeakageError, Provenance, SpecMismatchError, require_unseen
from hsiaug.seen import Footprint
from hsiaug.systems import Generator, TrainingData
from hsiaug.systems.augmented import Augmented
from hsiaug.trainers import fit_generator


def seen(data: TrainingData, pixels: list[int], scene: str = 'here') -> TrainingData:
    footprint = Footprint.of(scene, 100, torch.tensor(pixels).numpy())
    return replace(data, provenance=Provenance('0', 0, {}, 'split', footprint))


def pair(data: TrainingData) -> tuple[Generator, Generator]:
    return fit_generator('patch_augment', data, {'kind': 'flips'}), interpolating(data, factor=2)


def test_samples_of_the_source_are_altered() -> None:
    data = plateaus(10)
    source, augmenter = pair(data)
    both = Augmented.of(source, augmenter)
    state = torch.get_rng_state()
    batch, again, other = (both.sample(12, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(batch['image'], again['image'])
    assert not torch.equal(batch['image'], other['image'])
    assert (class_of(batch['image']) == batch['mask']).float().mean() > 0.85
    cells = batch['mask'].unfold(1, 2, 2).unfold(2, 2, 2).flatten(3)
    assert torch.equal(cells.amin(-1), cells.amax(-1))  # zoomed by two, which the source's masks are not
    assert torch.equal(both.class_prior, source.class_prior)


def test_jitter_keeps_the_sources_masks_and_classes() -> None:
    data = plateaus(10)
    data.y[:] = 0
    data.y[3, 2:5, 2:5] = 2
    both = Augmented.of(pair(data)[0], interpolating(data, factor=2, augmentation='jitter'))
    batch = both.sample(5, torch.full((5,), 2), seed=0)
    assert (batch['mask'] == 2).sum(dim=(1, 2)).tolist() == [9] * 5
    assert float((batch['image'] - both.source.sample(5, torch.full((5,), 2), seed=0)['image']).abs().max()) > 0.05


def test_saved_loaded_banked_and_mixed(tmp_path: Path) -> None:
    data = seen(plateaus(10), [1, 2])
    both = Augmented.of(*pair(data))
    both.save_pretrained(tmp_path / 'both')
    again = Generator.from_pretrained(tmp_path / 'both')
    assert isinstance(again, Augmented)
    assert again.spec == both.spec
    assert again.provenance == both.provenance
    assert torch.equal(again.sample(6, seed=3)['image'], both.sample(6, seed=3)['image'])
    write_bank(again, 12, tmp_path / 'bank', chunk=5)
    real = PatchDataset(data.x, data.y, data.spec)
    for batch in DataLoader(MixedDataset(real, SyntheticBank(tmp_path / 'bank'), ratio=1.0), batch_size=20):
        assert batch['synthetic'].sum() == 10
        made = batch['synthetic']
        assert (class_of(batch['image'][made]) == batch['mask'][made]).float().mean() > 0.85


def test_it_remembers_what_either_has_seen() -> None:
    first, second = (seen(plateaus(), pixels) for pixels in ([1, 2], [2, 7]))
    both = Augmented.of(pair(first)[0], pair(second)[1])
    assert both.provenance is not None and both.provenance.seen is not None  # noqa: PT018
    assert both.provenance.seen.pixels().tolist() == [1, 2, 7]
    assert [part['generator'] for part in both.provenance.training['parts']] == ['patch_augment', 'msrresgan']
    with pytest.raises(LeakageError, match='seen 1 of 2 evaluation pixels'):
        require_unseen(both.provenance, 'here', torch.tensor([7, 8]).numpy())
    elsewhere = seen(plateaus(), [1], 'elsewhere')
    with pytest.raises(ValueError, match='trained on different scenes'):
        Augmented.of(pair(first)[0], pair(elsewhere)[1])
    assert Augmented.of(*pair(plateaus())).provenance is not None


def test_mistakes() -> None:
    data = plateaus()
    source, augmenter = pair(data)
    with pytest.raises(TypeError, match="'patch_augment' has no augment"):
        Augmented.of(augmenter, source)
    with pytest.raises(SpecMismatchError, match='size'):
        Augmented.of(source, interpolating(plateaus(size=16), factor=2))
