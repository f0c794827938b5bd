import json

import pytest
import torch
from pairs import make_pairs
from torch import Tensor

from hsiaug.datasets import SyntheticDataset
from hsiaug.metrics import prdc
from hsiaug.quality import Coverage
from hsiaug.samples import SampleSpec
from hsiaug.systems import TrainingData

SPEC = SampleSpec('spectrum', 6, ('common', 'rare'))


def modes(n: int, shares: tuple[float, float, float], seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Spectra of three modes, the last two of one class, with labels and modes."""
    rng = torch.Generator().manual_seed(seed)
    mode = torch.multinomial(torch.tensor(shares), n, replacement=True, generator=rng)
    centres = torch.tensor([[0.0] * 6, [5.0] * 6, [5.0, -5.0] * 3])
    return centres[mode] + torch.randn((n, 6), generator=rng), (mode > 0).long(), mode


X, Y, MODE = modes(300, (0.6, 0.3, 0.1), 0)
DATA = TrainingData(SPEC, X, Y, X[:0], X[:0], Y[:0])


@pytest.fixture(scope='module')
def coverage() -> Coverage:
    return Coverage().fit(DATA)


def batch_of(shares: tuple[float, float, float], seed: int = 1, n: int = 400) -> tuple[dict[str, Tensor], Tensor]:
    x, y, mode = modes(n, shares, seed)
    return {'image': x, 'label': y}, mode


def test_coverage_is_that_of_prdc(coverage: Coverage) -> None:
    for shares in ((0.6, 0.3, 0.1), (1.0, 0.0, 0.0)):
        batch, _ = batch_of(shares)
        expected = prdc(coverage.features({'image': X, 'label': Y}), coverage.features(batch), k=5).coverage
        assert coverage.report(batch)['coverage'] == pytest.approx(expected)


def test_a_mode_that_is_missing_is_named(coverage: Coverage) -> None:
    batch, _ = batch_of((0.7, 0.3, 0.0))
    covered = coverage.covered(batch)
    assert not covered[MODE == 2].any()
    assert float(covered[MODE == 1].double().mean()) > 0.9
    report = coverage.report(batch)
    assert report['by_class']['common'] > 0.9
    assert report['by_class']['rare'] == pytest.approx(float(covered[Y == 1].double().mean()))
    assert json.loads(json.dumps(report))['samples'] == 400


def test_weights_give_every_mode_its_due(coverage: Coverage) -> None:
    batch, mode = batch_of((0.9, 0.08, 0.02))
    weights = coverage.weights(batch, floor=0.0)
    assert float(weights.sum()) == pytest.approx(1)
    got = [float(weights[mode == k].sum()) for k in range(3)]
    real = [float((k == MODE).double().mean()) for k in range(3)]
    assert got == pytest.approx(real, abs=0.08)
    assert float((mode == 2).double().mean()) < 0.05


def test_hard_samples_draw_weight_to_them(coverage: Coverage) -> None:
    batch, mode = batch_of((0.6, 0.3, 0.1))
    hardness = torch.where(MODE == 1, 10.0, 1.0)
    plain, hard = coverage.weights(batch), coverage.weights(batch, hardness)
    assert float(hard[mode == 1].sum()) > 2 * float(plain[mode == 1].sum())
    unknown = hardness.clone()
    unknown[0] = torch.nan
    torch.testing.assert_close(coverage.weights(batch, unknown), hard, rtol=0.1, atol=1e-3)


def test_weights_by_hand() -> None:
    """Four real samples on a line, reach 1; one synthetic sample at each end and two in one place beyond."""
    x = torch.tensor([[0.0], [1.0], [2.0], [3.0]])
    spec = SampleSpec('spectrum', 1, ('a', 'b'))
    coverage = Coverage(k=1).fit(TrainingData(spec, x, torch.tensor([0, 0, 1, 1]), x[:0], x[:0], torch.zeros(0).long()))
    batch = {'image': torch.tensor([[0.1], [2.9], [3.1], [9.0]])}
    # 0 reaches the first; 1 too; 2 the second; 3 the second and third, which share its due.
    expected = torch.tensor([2.0, 1.5, 0.5, 0.0], dtype=torch.float64) / 4
    torch.testing.assert_close(coverage.weights(batch, floor=0.0), expected)
    torch.testing.assert_close(coverage.weights(batch, floor=0.2), 0.8 * expected + 0.05)
    assert coverage.covered(batch).tolist() == [True, True, True, True]
    assert coverage.covered({'image': batch['image'][:1]}).tolist() == [True, True, False, False]
    # Frequency 2 each; 2 of 2 and none of 2 covered: 2 * 4 / 3 and 2 * 4 / 1.
    weights = coverage.class_weights({'image': batch['image'][:1]})
    assert list(weights.values()) == pytest.approx([0.25, 0.75])
    hard = coverage.class_weights({'image': batch['image'][:1]}, torch.tensor([3.0, 1.0]))
    assert list(hard.values()) == pytest.approx([0.5, 0.5])


def test_nothing_near_leaves_even_weights(coverage: Coverage) -> None:
    far = {'image': torch.full((4, 6), 100.0)}
    assert coverage.weights(far).tolist() == [0.25] * 4


def test_class_weights_are_a_label_policy(coverage: Coverage) -> None:
    class Source:
        spec, provenance = SPEC, None

        def sample(self, n: int, labels: Tensor | None = None, seed: int | None = None) -> dict[str, Tensor]:
            assert labels is not None
            return {'image': torch.zeros(n, 6), 'label': labels}

    batch, _ = batch_of((1.0, 0.0, 0.0))
    weights = coverage.class_weights(batch)
    assert weights['rare'] > 0.9
    drawn = SyntheticDataset(Source(), 1000, labels=weights)  # type: ignore[arg-type]
    assert int((drawn.labels() == 1).sum()) == pytest.approx(1000 * weights['rare'], abs=1)


def test_patches_by_look_layout_or_encoder() -> None:
    data = make_pairs(40)
    plain = Coverage().fit(data)
    assert plain.report({'image': data.x, 'mask': data.y})['coverage'] == 1
    without = data.y != 2
    only = without.flatten(1).all(dim=1)  # patches of the other two classes
    report = plain.report({'image': data.x[only], 'mask': data.y[only]})
    assert report['by_class']['c'] < 0.1 < report['by_class']['a']
    encoded = Coverage(encoder=lambda image: image.mean(dim=(2, 3))).fit(data)
    assert encoded.features({'image': data.x, 'mask': data.y}).shape == (40, 8)
    assert encoded.report({'image': data.x, 'mask': data.y})['coverage'] == 1


def test_mistakes(coverage: Coverage) -> None:
    with pytest.raises(ValueError, match='k must be at least 1'):
        Coverage(0)
    with pytest.raises(ValueError, match='more than k = 5 training samples'):
        Coverage().fit(TrainingData(SPEC, X[:5], Y[:5], X[:0], X[:0], Y[:0]))
    batch, _ = batch_of((1.0, 0.0, 0.0))
    with pytest.raises(ValueError, match=r'hardness must be \(2,\) finite numbers'):
        coverage.class_weights(batch, torch.ones(4))
    with pytest.raises(ValueError, match=f'{len(batch["image"])} of them not finite'):
        coverage.report({**batch, 'image': batch['image'] * torch.nan})
    with pytest.raises(ValueError, match=r"finite images \('n', 6\) expected"):
        coverage.report({**batch, 'image': batch['image'][:, :3]})
    none = {key: value[:0] for key, value in batch.items()}
    assert coverage.report(none)['coverage'] == 0
    assert coverage.weights(none).shape == (0,)
    with pytest.raises(RuntimeError, match='Coverage is not fitted'):
        Coverage().report(batch)
