"""Axial attention: along the rows of a feature map, then along its columns.

Source: Ho, Kalchbrenner, Weissenborn & Salimans 2019, "Axial Attention in Multidimensional Transformers",
arXiv:1912.12180, sec. 3; Wang et al. 2020, "Axial-DeepLab", arXiv:2003.07853, put it into convolutional networks. Ours
has no positions: the convolutions around it tell the places apart.

Shapes: B batch, C channels, H x W pixels.
"""

from torch import Tensor, nn

from attelbo.attention.kernels import KernelName
from attelbo.attention.multi_head import MultiHeadAttention


class AxialAttention2d(nn.Module):
    """y = x + rows(LayerNorm(x)), then y + columns(LayerNorm(y)), on a feature map (B, C, H, W).

    Every pixel sees every other, through the one in its row and the other's column, with H W (H + W) scores instead of
    (H W)^2. The block starts as the identity: both output projections are zero.

    Args:
        channels: C.
        heads: must divide ``channels``.
        kernel: as in ``MultiHeadAttention``.

    Raises:
        ValueError: heads that do not divide the channels.
    """

    def __init__(self, channels: int, heads: int, *, kernel: KernelName = "auto") -> None:
        super().__init__()
        self.row_norm = nn.LayerNorm(channels)
        self.rows = MultiHeadAttention(channels, heads, kernel=kernel)
        self.column_norm = nn.LayerNorm(channels)
        self.columns = MultiHeadAttention(channels, heads, kernel=kernel)
        for attention in (self.rows, self.columns):
            nn.init.zeros_(attention.output.weight)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W), in channels_last order."""
        pixels = x.permute(0, 2, 3, 1)  # (B, H, W, C)
        pixels = pixels + self._along(self.rows, self.row_norm(pixels))
        down = self._along(self.columns, self.column_norm(pixels).transpose(1, 2))
        return (pixels + down.transpose(1, 2)).permute(0, 3, 1, 2)

    @staticmethod
    def _along(attention: MultiHeadAttention, lines: Tensor) -> Tensor:
        """Attention within each line of lines (B, L, T, C)."""
        return attention(lines.flatten(0, 1)).unflatten(0, lines.shape[:2])
