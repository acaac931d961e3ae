"""Window attention: pixels attend to those in the same window of a feature map.

Source: Liu et al. 2021, "Swin Transformer: Hierarchical Vision Transformer using Shifted Windows", arXiv:2103.14030,
eq. 3 and 4, sec. 3.2. Ours is the attention alone, without the MLP of a Swin block, and starts as the identity.

Shapes: B batch, C channels, H x W pixels, w the window's side, G windows, N heads.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attelbo.attention.kernels import KernelName
from attelbo.attention.layer import check_heads
from attelbo.attention.masks import Document
from attelbo.attention.multi_head import MultiHeadAttention
from attelbo.attention.positions import Position
from attelbo.checks import check_at_least


class WindowBias(Position):
    """A learned number for each head and each offset between two pixels of a window: (2 w - 1)^2 offsets.

    Args:
        window: w; pixels count row by row.
        heads: N.
    """

    has_bias = True
    learns_bias = True

    def __init__(self, window: int, heads: int) -> None:
        super().__init__()
        self.window = window
        self.table = nn.Parameter(0.02 * torch.randn(heads, 2 * window - 1, 2 * window - 1))

    def bias(self, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        w = self.window
        return self.table[head, query // w - key // w + w - 1, query % w - key % w + w - 1]


class WindowAttention2d(nn.Module):
    """x + attention(LayerNorm(x)) within windows of w x w pixels, with a learned bias by relative position.

    Where w does not divide the height or the width, the last windows reach beyond the map, where everything is masked.
    Windows are shifted down and to the right by ``shift`` and cut at the border: a second block with shift = w / 2
    joins what the windows of the first kept apart. Time and memory grow with H W w^2.

    Args:
        channels: C.
        heads: N; must divide ``channels``.
        window: w.
        shift: of the windows, in pixels.
        kernel: as in ``MultiHeadAttention``.

    Raises:
        ValueError: heads that do not divide the channels, a window below 1, a shift outside [0, w).
    """

    def __init__(
        self, channels: int, heads: int, *, window: int = 4, shift: int = 0, kernel: KernelName = "auto"
    ) -> None:
        super().__init__()
        check_heads(channels, heads)
        check_at_least(1, window=window)
        if not 0 <= shift < window:
            raise ValueError(f"shift must be at least 0 and below the window's {window} pixels, got {shift}")
        self.window = window
        self.shift = shift
        self.norm = nn.LayerNorm(channels)
        self.attention = MultiHeadAttention(channels, heads, position=WindowBias(window, heads), kernel=kernel)
        nn.init.zeros_(self.attention.output.weight)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W), in channels_last order."""
        pixels = x.permute(0, 2, 3, 1)  # (B, H, W, C)
        (height, width), shift, mask = x.shape[-2:], self.shift, None
        below, right = -height % self.window, -width % self.window
        grid = self.norm(pixels)
        if below or right:
            grid = F.pad(grid, (0, 0, 0, right, 0, below))
        if shift:
            grid = grid.roll((-shift, -shift), (1, 2))
        if below or right or shift:
            regions = self._windows(self._regions(height, width, x.device).unsqueeze(0)).flatten(1)  # (G, w w)
            mask = Document(regions.repeat(len(x), 1))
        seen = self._together(self.attention(self._windows(grid).flatten(1, 2), mask=mask), grid.shape)
        if shift:
            seen = seen.roll((shift, shift), (1, 2))
        return (pixels + seen[:, :height, :width]).permute(0, 3, 1, 2)

    def _regions(self, height: int, width: int, device: torch.device) -> Tensor:
        """For each pixel of the rolled grid, a number that is the same for pixels of a window that may see each other;
        -1 beyond the map."""
        sides = []
        for length in (height, width):
            place = torch.arange(length + -length % self.window, device=device).roll(-self.shift)
            # In a window that wraps around, pixels from the opposite border are a region of their own.
            sides.append(torch.where(place < length, (place < self.shift).int(), -1))
        rows, columns = sides[0].unsqueeze(1), sides[1]
        return torch.where((rows < 0) | (columns < 0), -1, 2 * rows + columns)

    def _windows(self, grid: Tensor) -> Tensor:
        """(B, H', W', ...) -> (B G, w, w, ...)."""
        w = self.window
        return grid.unflatten(2, (-1, w)).unflatten(1, (-1, w)).transpose(2, 3).flatten(0, 2)

    def _together(self, windows: Tensor, shape: torch.Size) -> Tensor:
        """(B G, w w, C) -> (B, H', W', C)."""
        w = self.window
        windows = windows.view(shape[0], shape[1] // w, shape[2] // w, w, w, shape[3])
        return windows.transpose(2, 3).flatten(3, 4).flatten(1, 2)
