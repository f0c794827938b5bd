"""SegFormer on hyperspectral patches.

Xie et al. (2021), SegFormer: simple and efficient design for semantic segmentation with transformers,
https://arxiv.org/abs/2105.15203. The mapping layer is that of SpecDM (2025).
"""

from __future__ import annotations

from segmentation_models_pytorch.base import SegmentationHead
from segmentation_models_pytorch.decoders.segformer.decoder import SegformerDecoder
from torch import Tensor, nn
from torch.nn.functional import interpolate

from ..functional.degradation import padded
from .encoders import MIX_STRIDE, mix_transformer


class SegFormer(nn.Module):
    """Mix transformer encoder and all-MLP decoder.

    Args:
        bands: number of bands C.
        num_classes: number of classes K.
        encoder: ``'mit_b0'`` to ``'mit_b5'``, or ``'mit_tiny'``: one block per stage, a tenth of B0's weights, for
            studies on a CPU.
        mapping: map the bands to 3 channels with a 1x1 convolution before the encoder, as in SpecDM; otherwise the
            encoder takes all bands.
        encoder_weights: ``'imagenet'`` fetches pretrained weights from the hub; None trains from scratch.
        decoder_channels: width of the decoder; in the paper, 256 for B0 and B1, 768 for the larger ones.
        upsampling: factor by which the input is enlarged. Features have a quarter of its resolution, which is coarse if
            the objects in a small patch are only a few pixels wide.

    Raises:
        ValueError: for an unknown encoder or weights.
        ConnectionError: if weights cannot be fetched.
    """

    def __init__(
        self,
        bands: int,
        num_classes: int,
        encoder: str = 'mit_b0',
        mapping: bool = True,
        encoder_weights: str | None = None,
        decoder_channels: int = 256,
        upsampling: int = 1,
    ) -> None:
        super().__init__()
        self.upsampling = upsampling
        self.mapping = nn.Conv2d(bands, 3, kernel_size=1) if mapping else nn.Identity()
        channels = 3 if mapping else bands
        self.encoder = mix_transformer('segformer', encoder, channels, encoder_weights)
        self.decoder = SegformerDecoder(self.encoder.out_channels, 5, decoder_channels)
        self.head = SegmentationHead(decoder_channels, num_classes, kernel_size=1)

    def features(self, image: Tensor) -> Tensor:
        """(n, decoder_channels, H', W') what the last layer sees, at a quarter of the enlarged input's resolution."""
        x = self.mapping(image)
        if self.upsampling > 1:
            x = interpolate(x, scale_factor=self.upsampling, mode='bilinear')
        return self.decoder(self.encoder(padded(x, MIX_STRIDE)))

    def forward(self, image: Tensor) -> Tensor:
        """Logits (n, K, H, W) of images (n, C, H, W) with sides of any length."""
        height, width = image.shape[-2:]
        logits = interpolate(self.head(self.features(image)), scale_factor=4 / self.upsampling, mode='bilinear')
        return logits[..., :height, :width]


segformer = SegFormer  # the name that configurations use
