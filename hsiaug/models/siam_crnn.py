"""SiamCRNN in its fully convolutional form, for change detection.

Chen et al. (2020), Change detection in multisource VHR images via deep siamese convolutional multiple-layers recurrent
neural network, https://doi.org/10.1109/TGRS.2019.2956756. The fully convolutional form (an encoder of any kind, a
ConvLSTM per scale, a feature pyramid) is that of the authors' published code.
"""

from __future__ import annotations

from torch import Tensor, nn

from .encoders import conv_block, resnet_encoder
from .siamese import date_features, resize, to_pixels

STRIDE = 16
"""Of the dilated encoder; sides of its input divide by this."""


class ConvLSTM(nn.Module):
    """A recurrent layer over dates, with convolutions for matrices.

    Shi et al. (2015), Convolutional LSTM network, https://arxiv.org/abs/1506.04214, without peepholes.
    """

    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__()
        self.input = nn.Conv2d(inputs, 4 * hidden, 3, padding=1)
        self.state = nn.Conv2d(hidden, 4 * hidden, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """The state (n, hidden, h, w) after the last of the dates (n, T, c, h, w)."""
        first, *later = self.input(x.flatten(0, 1)).unflatten(0, x.shape[:2]).unbind(dim=1)
        state, cell = self._step(first)  # from a state of zeros, which no convolution need see
        for gates in later:
            state, cell = self._step(gates + self.state(state), cell)
        return state

    @staticmethod
    def _step(gates: Tensor, cell: Tensor | None = None) -> tuple[Tensor, Tensor]:
        put, keep, show, value = gates.chunk(4, dim=1)
        kept = 0 if cell is None else keep.sigmoid() * cell
        cell = put.sigmoid() * value.tanh() + kept
        return show.sigmoid() * cell.tanh(), cell


class SiamCRNN(nn.Module):
    """A shared ResNet, a ConvLSTM over the two dates at each of four scales, a feature pyramid.

    The ConvLSTM reads the dates in their order: a swap of the dates is another input.

    Args:
        bands, num_classes, encoder_weights, upsampling: as of :class:`~hsiaug.models.SegFormer`, of each date.
        backbone: as of :class:`~hsiaug.models.PFSegNet`; ``'resnet18'`` in the published code, ``'resnet101'`` in
            SpecDM.
        channels: of the ConvLSTMs and of the pyramid.

    Raises:
        ValueError: for an unknown backbone or weights.
        ConnectionError: if weights cannot be fetched.
    """

    def __init__(
        self,
        bands: int,
        num_classes: int = 2,
        backbone: str = 'resnet18',
        encoder_weights: str | None = None,
        channels: int = 128,
        upsampling: int = 1,
    ) -> None:
        super().__init__()
        self.upsampling = upsampling
        self.encoder = resnet_encoder('SiamCRNN', backbone, bands, encoder_weights, STRIDE, 'resnet18')
        scales = self.encoder.out_channels[2:]
        self.recurrent = nn.ModuleList(ConvLSTM(inputs, channels) for inputs in scales)
        self.smooth = nn.ModuleList(conv_block(channels, channels, 3) for _ in scales[:-1])
        self.head = nn.Conv2d(channels, num_classes, 1)

    def forward(self, image: Tensor) -> Tensor:
        """Logits (n, K, H, W) of images (n, 2, C, H, W) with sides of any length."""
        dates = date_features(self.encoder, image, STRIDE, self.upsampling)
        *finer, top = (recurrent(scale) for recurrent, scale in zip(self.recurrent, dates, strict=True))
        for smooth, level in zip(self.smooth, reversed(finer), strict=True):
            top = smooth(level + resize(top, level.shape[-2:]))
        return to_pixels(self.head(top), image, STRIDE, self.upsampling)
