import pytest
import torch

from hsiaug.functional.gradient_penalty import gradient_penalty_autograd, gradient_penalty_mlp
from hsiaug.models import MLP


@pytest.mark.parametrize('slope', [0.0, 0.01, 0.2, 1.0])
@pytest.mark.parametrize('layers', [1, 2, 4])
def test_closed_form_equals_double_backward(slope: float, layers: int) -> None:
    torch.manual_seed(layers)
    critic = MLP(11, 1, hidden=13, layers=layers, negative_slope=slope).double()
    for weight in critic.parameters():
        torch.nn.init.normal_(weight, std=0.5)
    x = torch.randn(40, 11, dtype=torch.float64)
    values, gradients = [], []
    for penalty in (gradient_penalty_autograd, gradient_penalty_mlp):
        critic.zero_grad()
        value = penalty(critic, x)
        value.backward()
        values.append(value.detach())
        gradients.append([linear.weight.grad.clone() for linear in critic.linears])
    assert torch.allclose(*values, rtol=1e-6, atol=0)
    for a, b in zip(*gradients, strict=True):
        assert a.abs().max() > 0
        assert torch.allclose(a, b, rtol=1e-6, atol=1e-9)


def test_value_by_hand() -> None:
    critic = MLP(2, 1, hidden=2, layers=1, negative_slope=0.5)
    with torch.no_grad():
        critic.linears[0].weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
        critic.linears[0].bias.zero_()
        critic.linears[1].weight.copy_(torch.tensor([[3.0, 8.0]]))
    # First unit active (slope 1), second not (slope 1/2): gradient (3, 4), norm 5, penalty 16.
    assert float(gradient_penalty_mlp(critic, torch.tensor([[1.0, -1.0]]))) == pytest.approx(16)


def test_other_critics_are_refused() -> None:
    with pytest.raises(TypeError, match='use gradient_penalty_autograd'):
        gradient_penalty_mlp(torch.nn.Linear(3, 1), torch.zeros(1, 3))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match='one linear output'):
        gradient_penalty_mlp(MLP(3, 2), torch.zeros(1, 3))
