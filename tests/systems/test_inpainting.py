from types import SimpleNamespace
from typing import Any

import pytest
import torch
from diffusers import DDPMScheduler
from pairs import make_pairs, nearest_class
from torch import Tensor

from hsiaug.systems.change_editing.edits import edit_masks
from hsiaug.systems.change_editing.inpainting import _repaint, inpaint
from hsiaug.systems.change_editing.train import with_composites
from hsiaug.systems.two_stream_diffusion.model import SCHEDULE, TwoStreamDiffusion
from hsiaug.systems.two_stream_diffusion.train import TwoStreamConfig, train_two_stream

CONFIG = TwoStreamConfig(
    mask_latents=2, vae_channels=8, vae_iterations=160, diffusion_iterations=200, vae_batch_size=4, batch_size=8,
    vae_lr=4e-3,
)  # fmt: skip
DATA = make_pairs(48)
NEW = make_pairs(24, seed=1)


@pytest.fixture(scope='module')
def painter() -> TwoStreamDiffusion:
    return train_two_stream(with_composites(DATA, 3), CONFIG)


def agreement(image: Tensor, mask: Tensor, where: Tensor) -> float:
    """Share of the pixels that look like the class of the mask."""
    return float((nearest_class(image) == mask)[where].float().mean())


def test_edited_areas_show_their_new_class(painter: TwoStreamDiffusion) -> None:
    rng = torch.Generator().manual_seed(0)
    edited = edit_masks(NEW.y, torch.full((24,), 60), 1 - torch.eye(3), rng)
    area = edited != NEW.y
    painted = inpaint(painter, NEW.x, edited, area, rng)
    assert painted.shape == NEW.x.shape
    assert agreement(painted, edited, area) > 0.5  # of three classes
    assert agreement(painted, NEW.y, area) < 0.33
    far = torch.nn.functional.max_pool2d(area.float()[:, None], 9, stride=1, padding=4)[:, 0] == 0
    assert agreement(painted, NEW.y, far) > 0.95
    back = painter.reconstruct(NEW.x, NEW.y)['image']
    gap = (painted - back).abs().mean(dim=1)
    assert float(gap[far].mean()) < 0.2 * float(gap[area].mean())


def test_draws_follow_the_mask_the_seed_and_nothing_else(painter: TwoStreamDiffusion) -> None:
    whole = torch.ones_like(NEW.y, dtype=torch.bool)
    x, y = NEW.x[:12], NEW.y[:12]
    first, same, other = (inpaint(painter, x, y, whole[:12], torch.Generator().manual_seed(seed)) for seed in (0, 0, 1))
    assert torch.equal(first, same)
    assert float((first - other).abs().mean()) > 5  # counts
    assert agreement(first, y, whole[:12]) > 0.8
    nothing = inpaint(painter, x, y, ~whole[:12], torch.Generator().manual_seed(0))
    assert torch.allclose(nothing, painter.reconstruct(x, y)['image'], rtol=1e-3, atol=0.1)
    assert inpaint(painter, x[:0], y[:0], whole[:0], torch.Generator()).shape == (0, *x.shape[1:])


@pytest.mark.parametrize('kind', ['epsilon', 'v_prediction'])
def test_a_denoiser_that_knows_the_answer_finds_it(kind: str) -> None:
    rng = torch.Generator().manual_seed(0)
    answer, noise = (torch.randn((3, 4, 8, 8), generator=rng) for _ in range(2))
    keep = (torch.rand((3, 4, 8, 8), generator=rng) < 0.5).float()
    alphas = DDPMScheduler(**SCHEDULE).alphas_cumprod

    def predict(code: Tensor, time: Tensor, shares: Tensor) -> Tensor:
        alpha = alphas[time][:, None, None, None]
        noise = (code - alpha.sqrt() * answer) / (1 - alpha).sqrt()
        return noise if kind == 'epsilon' else alpha.sqrt() * noise - (1 - alpha).sqrt() * answer

    model: Any = SimpleNamespace(prediction_type=kind, _predict=predict)
    known = torch.randn((3, 4, 8, 8), generator=rng)
    found = _repaint(model, noise, known, keep, torch.ones(3, 2), [torch.Generator().manual_seed(k) for k in range(3)])
    assert torch.allclose(found, torch.where(keep == 1, known, answer), atol=1e-2)


def test_a_model_whose_masks_have_no_code_is_refused() -> None:
    single = TwoStreamDiffusion(DATA.spec, single_stream=True, vae_channels=4)
    with pytest.raises(ValueError, match=r"kind 'segmentation' with 1 stream\(s\)"):
        inpaint(single, DATA.x, DATA.y, DATA.y == 0, torch.Generator())
