import math

import pytest
import torch

from hsiaug.losses.unmixing import endmember_total_variation, unmixing_loss


def test_total_variation_takes_differences_without_their_sign() -> None:
    zigzag = torch.tensor([[0.0, 1.0, 0.0, 1.0], [0.5, 0.5, 0.5, 0.5]])
    assert float(endmember_total_variation(zigzag)) == 1.5  # 3 and 0; what is printed would say 1 and 0


def test_terms_by_hand() -> None:
    target = torch.tensor([1.0, 0.0]).view(1, 2, 1, 1)
    output = torch.tensor([0.0, 2.0]).view(1, 2, 1, 1)
    e = torch.tensor([[0.0, 0.25]])
    assert float(unmixing_loss(output, target, e, 0, 0)) == 1.5
    assert float(unmixing_loss(output, target, e, 0.1, 0)) == pytest.approx(1.5 + 0.1 * math.pi / 2)
    assert float(unmixing_loss(output, target, e, 0.1, 4.0)) == pytest.approx(1.5 + 0.1 * math.pi / 2 + 1)
    # brightness alone changes no angle
    assert float(unmixing_loss(2 * target, target, e, 0.1, 0)) == pytest.approx(0.5)


@pytest.mark.parametrize('both', [True, False])
def test_black_pixels_have_no_angle_and_finite_gradients(both: bool) -> None:
    target = torch.rand(2, 5, 3, 3, generator=torch.Generator().manual_seed(0))
    target[0, :, 1] = 0
    output = (0.9 * target if both else target.flip(1) + 0.1).requires_grad_()
    loss = unmixing_loss(output, target, torch.rand(3, 5), 0.1, 0)
    loss.backward()
    assert torch.isfinite(loss)
    assert output.grad is not None
    assert torch.isfinite(output.grad).all()
    assert float(output.grad.abs().max()) < 1
    black = torch.zeros(1, 5, 2, 2)
    assert float(unmixing_loss(black + 0.5, black, torch.zeros(3, 5), 0.1, 0)) == 0.5


def test_a_mixture_that_is_black_has_a_finite_gradient() -> None:
    weights = torch.zeros(2, 5, requires_grad=True)  # endmembers that are black
    output = torch.einsum('kc,nkhw->nchw', weights, torch.full((1, 2, 2, 2), 0.5))
    unmixing_loss(output, torch.rand(1, 5, 2, 2), weights, 0.1, 0).backward()
    assert weights.grad is not None
    assert float(weights.grad.abs().max()) <= 1
