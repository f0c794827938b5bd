import pytest
import torch
from torch import Tensor

from hsiaug.systems.unmixing_fusion.abundances.config import abundance_model
from hsiaug.systems.unmixing_fusion.abundances.vae import HierarchicalVAE


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def vae() -> HierarchicalVAE:
    torch.manual_seed(0)
    return HierarchicalVAE(3, 16, 2, width=8, latents=2).eval()


def maps(n: int = 4, k: int = 3, size: int = 16) -> Tensor:
    return (3 * torch.randn(n, k, size, size, generator=rng())).softmax(dim=1)


def test_likelihood_is_that_of_a_multinomial(vae: HierarchicalVAE, monkeypatch: pytest.MonkeyPatch) -> None:
    a = maps(2)
    a[0, :, 0, 0] = torch.tensor([1.0, 0.0, 0.0])  # zeros are allowed
    logits = torch.randn(2, 3, 16, 16, generator=rng(3))
    monkeypatch.setattr(vae, 'decode', lambda *args: (logits, torch.zeros(2, 1)))
    surprise, _ = vae.evidence(a, torch.zeros(2, dtype=torch.int64), rng())
    p = logits.softmax(dim=1)
    by_hand = torch.stack([
        sum(100 * a[i, c] * (a[i, c].clamp_min(1e-30).log() - p[i, c].log()) for c in range(3)).sum()  # type: ignore[union-attr]
        for i in range(2)
    ])  # fmt: skip
    assert torch.allclose(surprise, by_hand, rtol=1e-4)
    draws = torch.distributions.Multinomial(100, p.movedim(1, -1))  # a difference of log-likelihoods is that of this
    counts = torch.tensor([60.0, 30.0, 10.0]).expand(2, 16, 16, 3)
    b, c = counts.movedim(-1, 1) / 100, logits.roll(1, dims=1)
    first, _ = vae.evidence(b, torch.zeros(2, dtype=torch.int64), rng())
    monkeypatch.setattr(vae, 'decode', lambda *args: (c, torch.zeros(2, 1)))
    second, _ = vae.evidence(b, torch.zeros(2, dtype=torch.int64), rng())
    other = torch.distributions.Multinomial(100, c.softmax(dim=1).movedim(1, -1))
    expected = (draws.log_prob(counts) - other.log_prob(counts)).sum(dim=(1, 2))
    assert torch.allclose(second - first, expected, rtol=1e-3, atol=1e-2)


def test_each_block_has_a_divergence_and_they_are_coarse_to_fine(vae: HierarchicalVAE) -> None:
    assert vae.sides == [1, 4, 8, 16]
    _, kls = vae.evidence(maps(), torch.zeros(4, dtype=torch.int64), rng())
    assert kls.shape == (4, 4)
    assert bool((kls > 0).all())
    _, none = vae.decode(torch.zeros(4, dtype=torch.int64), None, rng())
    assert not none.any()
    finest = vae.decoder[-1][0]  # type: ignore[index]
    for parameter in finest.posterior[-1].parameters():  # a posterior that says what the untrained prior says
        torch.nn.init.zeros_(parameter)
    _, again = vae.evidence(maps(), torch.zeros(4, dtype=torch.int64), rng())
    assert not again[:, -1].any()
    assert torch.equal(again[:, :-1], kls[:, :-1])


def test_cold_samples_are_alike(vae: HierarchicalVAE) -> None:
    cold = HierarchicalVAE(3, 16, 2, width=8, latents=2, temperature=0.1).eval()
    cold.load_state_dict(vae.state_dict())
    labels = torch.zeros(32, dtype=torch.int64)
    spreads = [model.sample(32, labels, rng()).std(dim=0).mean() for model in (vae, cold)]
    assert float(spreads[1]) < 0.2 * float(spreads[0])


def test_labels_act_at_every_resolution(vae: HierarchicalVAE) -> None:
    assert len(vae.labels) == 4
    for level in range(4):
        changed = HierarchicalVAE(3, 16, 2, width=8, latents=2).eval()
        changed.load_state_dict(vae.state_dict())
        with torch.no_grad():
            changed.labels[level].weight[1] += 3  # type: ignore[index]
        a, b = (model.sample(2, torch.tensor([0, 1]), rng()) for model in (vae, changed))
        assert torch.equal(a[0], b[0])
        assert not torch.allclose(a[1], b[1], atol=1e-3)


def test_mistakes() -> None:
    with pytest.raises(ValueError, match='8, 10, 12 or 14 pixels wide'):
        HierarchicalVAE(3, 18, 0)
    with pytest.raises(ValueError, match='at least 2 endmembers'):
        HierarchicalVAE(1, 16, 0)
    with pytest.raises(ValueError, match='counts must be above 0, found 0'):
        HierarchicalVAE(3, 16, 0, counts=0)
    with pytest.raises(ValueError, match="unknown generator of abundances 'gan'"):
        abundance_model('gan', 3, 16, 0)
    with pytest.raises(ValueError, match="HierarchicalVAE: unknown field 'depth'; choose from"):
        abundance_model('vae', 3, 16, 0, depth=3)
    model = HierarchicalVAE(3, 8, 2, width=4, latents=1)
    with pytest.raises(ValueError, match='labels must be \\(3,\\) for 3 maps, found \\(2,\\)'):
        model.sample(3, torch.tensor([0, 1]), rng())
    with pytest.raises(ValueError, match='labels must lie in \\[0, 2\\)'):
        model.sample(2, torch.tensor([0, 2]), rng())
