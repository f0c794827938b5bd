"""Features of torchvision's Inception v3, of weights that are on this machine already."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.functional import interpolate
from torchvision.models import inception_v3  # type: ignore[import-untyped]

from ..datasets.preview import rgb_bands, stretch_limits

SIDE = 299  # pixels that the network was trained on
_CHUNK = 16  # images at a time
_WANTED = (
    'the state of torchvision.models.inception_v3 as safetensors; a .pth file is a pickle, which is not read: write it '
    "once with safetensors.torch.save_file(torchvision.models.inception_v3(weights='DEFAULT').state_dict(), "
    "'inception_v3_google.safetensors')"
)


def cached_weights() -> Path:
    """The weights in the cache of ``torch.hub``, or a FileNotFoundError: nothing is downloaded."""
    folder = Path(torch.hub.get_dir()) / 'checkpoints'
    found = sorted(folder.glob('inception_v3_google*.safetensors'))
    if not found:
        raise FileNotFoundError(f'{folder} holds no inception_v3_google*.safetensors: {_WANTED}; or give its file')
    return found[-1]


def said_of_inception(file: Path) -> str:
    """Whose features they are, for pages."""
    return f"features of torchvision's Inception v3 ({file.name}), which are not those of the first FID"


def weights_of(given: str) -> Path:
    """The file that is meant: of weights, or ``'cache'`` for those in the cache of ``torch.hub``."""
    return cached_weights() if given == 'cache' else Path(given)


def load_inception(file: Path) -> nn.Module:
    """The network without its last layer: (n, 3, 299, 299) from −1 to 1 to (n, 2048).

    The file of its weights is safetensors: nothing is unpickled.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it holds other weights.
    """
    if not file.is_file():
        raise FileNotFoundError(f'no file {file}; it should hold {_WANTED}')
    try:
        state = load_file(file)
        network = inception_v3(weights=None, init_weights=False, aux_logits=False)
        network.fc = nn.Identity()
        network.load_state_dict({k: v for k, v in state.items() if not k.startswith(('AuxLogits.', 'fc.'))})
    except (SafetensorError, RuntimeError) as error:
        raise ValueError(f'{file}: {" ".join(str(error).split())[:200]}; expected {_WANTED}') from error
    return network.eval().requires_grad_(False)


class InceptionFeatures(nn.Module):
    """Features of natural-colour pictures of images, as papers measure Fréchet distances.

    Red, green and blue are stretched from the 2nd to the 98th percentile of the training images (N, C, H, W), then
    enlarged. The network is torchvision's, see :func:`load_inception`: distances by it are not those of the one that
    Heusel et al. 2017 took from TensorFlow. Wavelengths are band centres in nm.
    """

    low: Tensor
    high: Tensor

    def __init__(
        self, file: Path, images: Tensor, wavelengths: Sequence[float] | None = None, device: str = 'cpu'
    ) -> None:
        super().__init__()
        self.network, self.bands = load_inception(file), list(rgb_bands(images.shape[1], wavelengths))
        for name, limit in zip(('low', 'high'), stretch_limits(images, wavelengths), strict=True):
            self.register_buffer(name, torch.as_tensor(limit, dtype=torch.float32)[:, None, None])
        self.to(device)

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """(n, 2048) of (n, C, H, W) on any device."""
        found = []
        for part in images[:, self.bands].split(_CHUNK):
            shown = (part.to(self.low) - self.low) / (self.high - self.low).clamp(min=1e-12)
            large = interpolate(shown.clamp(0, 1), (SIDE, SIDE), mode='bilinear', antialias=True)
            found.append(self.network(2 * large - 1))
        return torch.cat(found)
