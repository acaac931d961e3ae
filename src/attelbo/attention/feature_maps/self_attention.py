"""Self-attention between all pixels of a feature map.

Source: Wang et al. 2018, "Non-local Neural Networks"; Zhang et al. 2019, "Self-Attention GAN" brought
it to generators. Ours differs: multi-head scaled dot-product scores, a LayerNorm over the channels
first (pre-norm), no reduction of the channels.

Shapes: B batch, C channels, H x W pixels, T = H W tokens.
"""

from torch import Tensor, nn

from attelbo.attention.kernels import KernelName
from attelbo.attention.multi_head import MultiHeadAttention


class SelfAttention2d(nn.Module):
    """x + MultiHeadAttention(LayerNorm(x)) over the pixels of a feature map (B, C, H, W).

    The block starts as the identity: the output projection is zero. A scalar gate at zero (SAGAN) does
    the same, but then a single number has to open before anything else learns, and its size and the
    projection's are one degree of freedom too many; here every channel opens by itself.

    There is no position in it: permuting the pixels permutes the output. The convolutions around it
    tell the places apart. Time and memory grow with (H W)^2: meant for small maps.

    Args:
        channels: C.
        heads: must divide ``channels``.
        kernel: as in ``MultiHeadAttention``.

    Raises:
        ValueError: heads that do not divide the channels.
    """

    def __init__(self, channels: int, heads: int, *, kernel: KernelName = "auto") -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.attention = MultiHeadAttention(channels, heads, kernel=kernel)
        nn.init.zeros_(self.attention.output.weight)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W), in channels_last order; from such an x, without a copy."""
        tokens = x.permute(0, 2, 3, 1).flatten(1, 2)  # (B, T, C)
        tokens = tokens + self.attention(self.norm(tokens))
        return tokens.unflatten(1, x.shape[-2:]).permute(0, 3, 1, 2)
