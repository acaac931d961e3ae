"""CBAM: which channels matter, then which places.

Source: Woo, Park, Lee & Kweon 2018, "CBAM: Convolutional Block Attention Module", arXiv:1807.06521, eq. 1 to 3. Ours
differs: no batch normalization after the convolution (that of the authors' code), which would tie the rows of a batch
together.

Shapes: B batch, C channels, H x W pixels.
"""

import torch
from torch import Tensor, nn

from attelbo.attention.feature_maps.squeeze_excite import bottleneck


class CBAM(nn.Module):
    """x' = x sigmoid(MLP(mean) + MLP(max)) by channel, then x' sigmoid(conv([mean, max])) by pixel.

    The first mean and maximum are over the pixels of each channel, the second over the channels of each pixel of x'. It
    starts near x / 4, not near x, as in the paper.

    Args:
        channels: C.
        reduction: C over the hidden units of the MLP, of which there are at least 8.
        kernel_size: of the convolution, in pixels; odd.

    Raises:
        ValueError: a number below 1, or an even kernel size.
    """

    def __init__(self, channels: int, *, reduction: int = 16, kernel_size: int = 7) -> None:
        super().__init__()
        if kernel_size < 1 or kernel_size % 2 == 0:
            raise ValueError(f"kernel_size must be odd, so that there is a middle, got {kernel_size}")
        self.channels = bottleneck(channels, reduction)
        self.places = nn.Conv2d(2, 1, kernel_size, padding=kernel_size // 2)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W), laid out like x."""
        channels = self.channels(x.mean((2, 3))) + self.channels(x.amax((2, 3)))
        x = x * channels.sigmoid()[..., None, None]
        places = self.places(torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], 1))
        return x * places.sigmoid()
