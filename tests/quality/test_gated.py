import json
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import make_scene
from pairs import make_pairs
from scipy.stats import ks_2samp
from torch import Tensor
from torch.utils.data import DataLoader

from hsiaug import __version__
from hsiaug.datasets import MixedDataset, PatchDataset, SpectraDataset, SyntheticBank, SyntheticDataset, write_bank
from hsiaug.quality import (
    AgreementGate,
    Coverage,
    Gate,
    Gated,
    GatedDataset,
    GateError,
    Gates,
    RangeGate,
    SmoothnessGate,
)
from hsiaug.quality.gate import Batch
from hsiaug.samples import LeakageError, Provenance, SpecMismatchError
from hsiaug.scenes import GroupSplit, PatchSplit, PatchSplitter, RandomSplit, Scene, Split
from hsiaug.seen import Footprint
from hsiaug.systems import TrainingData
from hsiaug.systems.gaussian import ClassGaussian
from hsiaug.systems.patch_augment import PatchAugment
from hsiaug.trainers import ClassifierConfig, training_data

FAST = ClassifierConfig(hidden=32, layers=1, steps=100, lr=5e-3, label_smoothing=0.1)


class BrightGate(Gate):
    """Rejects what is brighter than most real samples."""

    name = 'bright'

    def _fit(self, data: TrainingData, regions: Tensor, seed: int) -> Tensor:
        return self.score({'image': data.x})

    def score(self, batch: Batch) -> Tensor:
        return batch['image'].flatten(1).mean(dim=1).cpu()


class DarkGate(BrightGate):
    name = 'dark'

    def score(self, batch: Batch) -> Tensor:
        return -super().score(batch)


@pytest.fixture(scope='module')
def half(data: TrainingData) -> Gates:
    """Lets about half of the samples pass."""
    return Gates([BrightGate(0.5)]).fit(data)


@pytest.fixture(scope='module')
def generator(data: TrainingData) -> ClassGaussian:
    made = ClassGaussian(data.spec)
    made.fit(data, 0)
    return made


# --- drawing ----------------------------------------------------------------------------------------------------------


def test_all_that_is_drawn_passes_and_has_its_label(generator: ClassGaussian, half: Gates) -> None:
    gated = Gated(generator, half)
    labels = torch.arange(60) % 3
    batch = gated.sample(60, labels, seed=3)
    assert half.keep(batch).all()
    assert torch.equal(batch['label'], labels)
    assert not half.keep(generator.sample(60, labels, seed=3)).all()
    means = torch.stack([generator.sample(50, torch.full((50,), k), seed=0)['image'].mean(dim=0) for k in range(3)])
    nearest = torch.cdist(batch['image'], means).argmin(dim=1)
    assert float((nearest == labels).double().mean()) > 0.9
    assert {key: (value.dtype, value.shape) for key, value in batch.items()} == {
        key: (value.dtype, value.shape) for key, value in generator.sample(60, labels, seed=3).items()
    }


def test_samples_follow_from_the_seed(generator: ClassGaussian, half: Gates) -> None:
    one, two = Gated(generator, half), Gated(generator, half)
    one.sample(7, seed=9)  # what was drawn before makes no difference
    first, second = one.sample(40, seed=5), two.sample(40, seed=5)
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert not torch.equal(first['image'], two.sample(40, seed=6)['image'])
    torch.manual_seed(1)
    loose = one.sample(5)
    torch.manual_seed(1)
    assert torch.equal(loose['image'], two.sample(5)['image'])
    assert one.sample(0)['image'].shape == (0, 12)


def test_what_passes_comes_as_it_is_drawn(generator: ClassGaussian, data: TrainingData) -> None:
    """Drawing several at a time must not favour some of what passes: brightness as that of samples drawn one by one."""
    gates = Gates([BrightGate(0.9)]).fit(data)
    labels = torch.ones(400, dtype=torch.int64)
    many = generator.sample(40_000, labels.repeat(100), seed=11)['image'].mean(dim=1)
    passing = many[many <= gates.gates[0].threshold]
    assert len(passing) < 0.2 * len(many)
    found = Gated(generator, gates, tries=500).sample(400, labels, seed=3)['image'].mean(dim=1)
    assert float(ks_2samp(found.numpy(), passing.numpy()).pvalue) > 0.01
    assert len(found.unique()) == 400


def test_gates_thin_no_class_out(generator: ClassGaussian, data: TrainingData) -> None:
    """Classes are drawn before gates judge, so that one whose samples are rejected more often keeps its share."""
    gated = Gated(generator, Gates([BrightGate(0.5)]).fit(data), tries=200)
    without = generator.sample(300, seed=1)['label'].bincount(minlength=3)
    assert (gated.sample(300, seed=1)['label'].bincount(minlength=3) - without).abs().max() < 40


def test_rejections_are_counted(generator: ClassGaussian, data: TrainingData) -> None:
    gates = Gates([BrightGate(0.3), DarkGate(0.3)]).fit(data)
    gated = Gated(generator, gates)
    gated.sample(50, seed=0)
    report = gated.report.to_dict()
    assert 50 <= report['kept'] < 75  # of some, several were drawn at a time
    assert report['samples'] == report['kept'] + sum(
        report['rejected'].values()
    )  # none is both too bright and too dark
    assert report['rejected_by_it_alone'] == report['rejected']
    assert min(report['rejected'].values()) > 0
    json.dumps(report)


def test_a_gate_that_rejects_nearly_everything_is_named(generator: ClassGaussian, data: TrainingData) -> None:
    gates = Gates([DarkGate(), BrightGate()]).fit(data)
    gates.gates[1].held_out -= 1000
    with pytest.raises(GateError, match=r"6 of 6 samples of material 1 .* in 4 tries; gate 'bright' rejected 24 of 24"):
        Gated(generator, gates, tries=4).sample(6, torch.ones(6, dtype=torch.int64), seed=0)


class OneClassGate(BrightGate):
    """Lets nothing of class 1 pass, and what is not bright of the others."""

    def score(self, batch: Batch) -> Tensor:
        label = batch.get('label')
        return super().score(batch) + (0 if label is None else 1000.0 * (label.cpu() == 1))


def test_a_class_of_which_nothing_passes_is_told_and_can_be_left_out(
    generator: ClassGaussian, data: TrainingData, scene: Scene, split: Split
) -> None:
    gated = Gated(generator, Gates([OneClassGate(0.5)]).fit(data))
    shares = gated.passing(200)
    assert list(shares) == list(data.spec.classes)
    assert shares['material 1'] == 0
    assert gated.report.to_dict()['samples'] == 0
    labels = torch.full((200,), 2)
    alone = gated.gates.keep(generator.sample(200, labels, seed=7)).double().mean()
    assert shares['material 2'] == pytest.approx(float(alone), abs=0.15)
    real = SpectraDataset(scene, split, 'train')
    with pytest.raises(GateError, match=r'of material 1 did not pass .* see passing\(\)'):
        MixedDataset(real, gated, 0.5).batch([len(real) + 1])
    out = [name for name, share in shares.items() if share < 0.1]
    rest = Gated(generator, gated.gates, leave_out=out)
    assert rest.left_out == ('material 1',)
    for labels in ('real', 'uniform', 'sqrt'):
        mixed = MixedDataset(real, rest, 0.5, labels=labels)  # type: ignore[arg-type]
        batch = mixed.batch(range(len(mixed)))
        drawn = batch['label'][batch['synthetic']]
        assert set(drawn.tolist()) == {0, 2}
        assert len(drawn) == round(0.5 * len(real))
    held = SyntheticDataset(rest, 30, labels='uniform')
    assert held.counts.tolist() == [15, 0, 15]
    assert held.batch(range(30))['label'].bincount(minlength=3).tolist() == [15, 0, 15]
    assert set(rest.sample(50, seed=1)['label'].tolist()) == {0, 2}
    assert torch.equal(rest.sample(50, seed=1)['label'], rest.sample(50, seed=1)['label'])
    for wrong in (['none'], list(data.spec.classes)):
        with pytest.raises(ValueError, match='leave_out names some of the classes'):
            Gated(generator, gated.gates, leave_out=wrong)
    with pytest.raises(ValueError, match=r"labels ask for \['material 1'\]"):
        rest.sample(3, torch.ones(3, dtype=torch.int64), seed=0)
    with pytest.raises(ValueError, match=r"gives weight to \['material 1'\], which the source leaves out"):
        SyntheticDataset(rest, 30, labels={'material 1': 1.0})
    with pytest.raises(ValueError, match=r"'real' asks only for \['material 1'\]"):
        SyntheticDataset(rest, 30, real_counts=np.array([0, 5, 0]))


def test_what_passes_of_pairs_that_are_asked_for_a_class() -> None:
    pairs = make_pairs(48)
    shares = Gated(PatchAugment(pairs.spec, 'noise'), Gates([RangeGate()]).fit(pairs))
    shares.generator.fit(pairs, 0)  # type: ignore[attr-defined]
    assert list(shares.passing(8)) == list(pairs.spec.classes)


def test_masks_that_disagree_are_mended() -> None:
    data = make_pairs(48)
    generator = PatchAugment(data.spec, 'noise')
    generator.fit(data)
    gate = AgreementGate(0.2, config=FAST).fit(data)
    gated = Gated(generator, [gate])
    batch = gated.sample(12, seed=2)
    assert batch['image'].shape == (12, 8, 16, 16)
    plain = PatchDataset(batch['image'], batch['mask'].where(batch['mask'] != 255, 0), data.spec)
    ignored = batch['mask'] == 255
    assert 0 < float(ignored.double().mean()) < 0.2
    assert not gate.noisy(batch).any()
    assert len(plain) == 12


def test_a_gated_source_in_datasets_loaders_and_banks(
    generator: ClassGaussian, half: Gates, scene: Scene, split: Split, tmp_path: Path
) -> None:
    gated = Gated(generator, half)
    drawn = SyntheticDataset(gated, 100, seed=1, labels={'material 0': 1.0, 'material 2': 3.0}, chunk=16)
    assert np.bincount(drawn.labels()).tolist() == [25, 0, 75]
    assert half.keep(drawn.batch(range(100))).all()
    loader = DataLoader(drawn, batch_size=20, num_workers=2)
    loaded = torch.cat([batch['image'] for batch in loader])
    assert torch.equal(loaded, drawn.batch(range(100))['image'])
    real = SpectraDataset(scene, split)
    mixed = MixedDataset(real, gated, 2.0, seed=1)
    batch = mixed.batch(range(len(mixed)))
    assert half.keep({'image': batch['image'][batch['synthetic']]}).all()
    bank = write_bank(gated, 64, tmp_path / 'bank', seed=4)
    again = SyntheticBank(tmp_path / 'bank')
    assert torch.equal(bank.batch(range(64))['image'], SyntheticDataset(gated, 64, seed=4).batch(range(64))['image'])
    assert again.provenance is not None
    gates = again.provenance.training['gates']
    assert gates[0]['gate'] == 'bright'
    assert gates[0]['threshold'] == pytest.approx(half.gates[0].threshold)
    assert again.provenance.training['generator'] == 'gaussian'
    other = Gated(generator, Gates([BrightGate(0.3)]).fit(training_data(scene, split)))
    with pytest.raises(ValueError, match='bank of other settings'):
        write_bank(other, 64, tmp_path / 'bank', seed=4)


def test_a_bank_behind_gates(generator: ClassGaussian, half: Gates, scene: Scene, split: Split, tmp_path: Path) -> None:
    bank = write_bank(generator, 200, tmp_path / 'bank', seed=0)
    kept = GatedDataset(bank, half)
    whole = bank.batch(range(200))
    expected = half.keep(whole)
    assert torch.equal(kept.batch(range(len(kept)))['image'], whole['image'][expected])
    assert torch.equal(torch.stack([kept[i]['image'] for i in (0, -1)]), whole['image'][expected][[0, -1]])
    assert kept.report['kept'] == int(expected.sum()) == len(kept)
    assert kept.report['rejected'] == {'bright': 200 - len(kept)}
    mixed = MixedDataset(SpectraDataset(scene, split), kept, 0.5, labels='uniform')
    batch = mixed.batch(range(len(mixed)))
    counts = batch['label'][batch['synthetic']].bincount(minlength=3)
    assert int(counts.max() - counts.min()) <= 1
    nothing = Gates([BrightGate()]).fit(training_data(scene, split))
    nothing.gates[0].held_out -= 1000
    with pytest.raises(GateError, match='none of 200 samples passes'):
        GatedDataset(bank, nothing)


def test_what_does_not_fit_is_refused(generator: ClassGaussian, half: Gates, data: TrainingData) -> None:
    with pytest.raises(ValueError, match="gate 'bright' is not fitted"):
        Gated(generator, [BrightGate()])
    with pytest.raises(ValueError, match='tries must be at least 1'):
        Gated(generator, half, tries=0)
    patches = make_pairs(10)
    augment = PatchAugment(patches.spec)
    augment.fit(patches)
    with pytest.raises(SpecMismatchError, match='bands'):
        Gated(augment, half)
    with pytest.raises(ValueError, match='has no spec'):
        GatedDataset(torch.utils.data.TensorDataset(torch.zeros(3)), half)
    with pytest.raises(ValueError, match='draws other samples in each epoch'):
        GatedDataset(SyntheticDataset(generator, 20), half)
    with pytest.raises(ValueError, match='where fit_gates gives none, it says why'):
        Gated(generator, None)  # type: ignore[arg-type]


def test_a_single_gate_and_a_single_class(generator: ClassGaussian, half: Gates) -> None:
    gate, name = half.gates[0], generator.spec.classes[0]
    labels = torch.ones(4, dtype=torch.int64)
    one, several = (Gated(generator, gates, leave_out=out) for gates, out in ((gate, name), ([gate], [name])))
    assert one.left_out == several.left_out == (name,)
    assert torch.equal(one.sample(4, labels, seed=0)['image'], several.sample(4, labels, seed=0)['image'])


def test_gates_learn_training_data_alone(scene: Scene, split: Split, data: TrainingData) -> None:
    for learner in (RangeGate(), Coverage()):
        with pytest.raises(TypeError, match='TrainingData expected, found SpectraDataset'):
            learner.fit(SpectraDataset(scene, split))  # type: ignore[arg-type, attr-defined]
    with pytest.raises(ValueError, match='labels hold the values'):
        RangeGate().fit(replace(data, y=data.y + 7))


def test_any_precision_any_list_of_labels_and_a_spawned_worker(data: TrainingData, generator: ClassGaussian) -> None:
    gates = Gates([AgreementGate(config=ClassifierConfig(hidden=8, steps=20)), BrightGate(0.5)]).fit(data)
    batch = {'image': data.x, 'label': data.y}
    for other in ({'image': data.x.double(), 'label': data.y.int()}, {**batch, 'name': ['x'] * len(data.x)}):
        for gate in (gates, *gates):
            assert torch.equal(gate.keep(other), gate.keep(batch))
    for gate in (gates, *gates):
        assert gate.keep({key: value[:0] for key, value in batch.items()}).shape == (0,)
    assert torch.equal(pickle.loads(pickle.dumps(gates)).keep(batch), gates.keep(batch))
    gated = Gated(generator, gates, tries=200)
    assert gated.sample(3, [0, 1, 1], seed=0)['label'].tolist() == [0, 1, 1]  # type: ignore[arg-type]
    for n, labels in ((3, torch.tensor([0])), (-1, None)):
        with pytest.raises(ValueError, match=r'Gated: (labels must be \(3,\)|n must be)'):
            gated.sample(n, labels)
    with pytest.raises(RuntimeError, match='BrightGate is not fitted'):
        BrightGate().keep(batch)


# --- leakage ----------------------------------------------------------------------------------------------------------


def gated_by(generator_split: Split | PatchSplit, gate_split: Split | PatchSplit, scene: Scene) -> Gated:
    """A generator fitted on one split behind gates that were fitted on another."""
    own, other = (training_data(scene, s) for s in (generator_split, gate_split))
    source: PatchAugment | ClassGaussian
    source = PatchAugment(own.spec) if isinstance(generator_split, PatchSplit) else ClassGaussian(own.spec)
    source.fit(own)
    return Gated(source, Gates([RangeGate(0.3), SmoothnessGate(0.3)]).fit(other))


def test_spectra_that_a_gate_has_seen_cannot_be_evaluated_on(scene: Scene, split: Split) -> None:
    honest = gated_by(split, split, scene)
    assert honest.provenance is not None
    assert (honest.provenance.split, honest.provenance.seen) == (split.fingerprint, split.footprint())
    for part in ('train', 'test'):
        MixedDataset(SpectraDataset(scene, split, part), honest, 0.5)  # type: ignore[arg-type]
    other = RandomSplit(fraction=0.4)(scene, seed=7)
    seen = np.intersect1d(other.footprint().pixels(), split.test)
    assert len(seen) > 10
    for source in (gated_by(split, other, scene), gated_by(other, split, scene)):
        with pytest.raises(LeakageError) as error:
            MixedDataset(SpectraDataset(scene, split), source, 0.5)
        assert f'has seen {len(seen)} of {len(split.test)} evaluation pixels' in str(error.value)
        assert f'first flat indices {seen[:5].tolist()}' in str(error.value)
    assert f"{other.fingerprint} of gate 'range'" in str(gated_by(split, other, scene).provenance)


@pytest.fixture(scope='module')
def patch_scene() -> Scene:
    return make_scene(height=64, width=64, bands=6)


def test_overlapping_windows_count_as_seen(patch_scene: Scene) -> None:
    split = PatchSplitter(size=8)(patch_scene, 1)
    real = PatchDataset.from_scene(patch_scene, split)
    MixedDataset(real, gated_by(split, split, patch_scene), 0.5)
    other = PatchSplitter(size=8)(patch_scene, 2)
    with pytest.raises(LeakageError, match=r'has seen \d+ of \d+ evaluation pixels'):
        MixedDataset(real, gated_by(split, other, patch_scene), 0.5)
    # A gate whose training windows touch one pixel of one test window, the generator's none.
    corner = split.train[0]
    evaluated = replace(split, train=split.train[:1], test_windows=corner[None] + [7, 7])
    pixel = int((corner[0] + 7) * 64 + corner[1] + 7)
    far = replace(split, train=split.train[np.abs(split.train - corner).max(axis=1) >= 24], val=split.val[:0])
    near = replace(split, val=split.val[:0])
    dataset = PatchDataset(real.image, real.mask, real.spec, evaluated)
    far_pixels, test = far.footprint().pixels(), evaluated.test
    assert not np.intersect1d(far_pixels, test).size
    seen = np.intersect1d(near.footprint().pixels(), test)
    assert pixel in seen
    MixedDataset(dataset, gated_by(far, far, patch_scene), 0.5)
    with pytest.raises(LeakageError, match=f'has seen {len(seen)} of 64 evaluation pixels'):
        MixedDataset(dataset, gated_by(far, near, patch_scene), 0.5)


def test_one_pixel_is_enough(patch_scene: Scene) -> None:
    split = PatchSplitter(size=8)(patch_scene, 1)
    data = training_data(patch_scene, split)
    real = PatchDataset.from_scene(patch_scene, split)
    source = PatchAugment(data.spec)
    source.fit(data)
    pixel = int(split.test[40])
    touched = Footprint.of(patch_scene.fingerprint, patch_scene.num_pixels, np.append(split.pixels('train'), pixel))
    leaky = replace(data, provenance=Provenance(__version__, 0, {}, 'another split', touched))
    gated = Gated(source, Gates([RangeGate()]).fit(leaky))
    with pytest.raises(LeakageError, match=rf'has seen 1 of {len(split.test)} .* first flat indices \[{pixel}\]'):
        MixedDataset(real, gated, 0.5)
    with pytest.raises(LeakageError, match="another split of gate 'range'"):
        MixedDataset(real, gated, 0.5)


def test_leaks_reach_through_banks(scene: Scene, split: Split, tmp_path: Path) -> None:
    leaky = gated_by(split, RandomSplit(fraction=0.4)(scene, seed=7), scene)
    write_bank(leaky, 32, tmp_path / 'bank')
    plain = write_bank(leaky.generator, 32, tmp_path / 'plain')  # type: ignore[arg-type]
    real = SpectraDataset(scene, split)
    MixedDataset(real, plain, 0.1)
    for source in (SyntheticBank(tmp_path / 'bank'), GatedDataset(plain, leaky.gates)):
        with pytest.raises(LeakageError, match='evaluation pixels'):
            MixedDataset(real, source, 0.1)


def test_gates_watch_over_strangers(scene: Scene, split: Split, generator: ClassGaussian) -> None:
    """A source of unknown origin cannot be checked, but its gates can."""

    class Stranger:
        spec, provenance = generator.spec, None

        def sample(self, n: int, labels: Tensor | None = None, seed: int | None = None) -> dict[str, Tensor]:
            return generator.sample(n, labels, seed)

    leaky = gated_by(split, RandomSplit(fraction=0.4)(scene, seed=7), scene).gates
    real = SpectraDataset(scene, split)
    MixedDataset(real, Stranger(), 0.5)  # type: ignore[arg-type]
    with pytest.raises(LeakageError):
        MixedDataset(real, Gated(Stranger(), leaky), 0.5)
    unknown = replace(training_data(scene, split), provenance=None)
    assert Gated(Stranger(), Gates([RangeGate()]).fit(unknown)).provenance is None
    kept = Gated(generator, Gates([RangeGate()]).fit(unknown)).provenance
    assert kept is not None
    assert generator.provenance is not None
    assert kept.seen == generator.provenance.seen


def test_two_scenes_cannot_be_told_by_one_footprint(scene: Scene, split: Split) -> None:
    other = make_scene(seed=5)
    gates = Gates([RangeGate()]).fit(training_data(other, RandomSplit(fraction=0.4)(other, 0)))
    data = training_data(scene, split)
    source = ClassGaussian(data.spec)
    source.fit(data)
    with pytest.raises(ValueError, match=f"different scenes: generator {scene.fingerprint}, gate 'range'"):
        Gated(source, gates)


def test_what_groups_part_is_seen_as_parted() -> None:
    """Gates on a split by groups have seen no pixel of the other groups."""
    scene = make_scene(height=48, width=20)
    scene.groups = (np.arange(48)[:, None] // 8).repeat(20, axis=1)
    split = GroupSplit(test_fraction=0.4)(scene, 0)
    gated = gated_by(split, split, scene)
    assert gated.provenance is not None
    assert gated.provenance.seen is not None
    tested = set(np.unique(scene.groups.reshape(-1)[split.test]))
    assert not tested & set(np.unique(scene.groups.reshape(-1)[gated.provenance.seen.pixels()]))
