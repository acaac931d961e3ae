"""A convolutional prior over a map of codes: the gated PixelCNN (van den Oord et al. 2016, "Conditional Image
Generation with PixelCNN Decoders", arXiv:1606.05328, sec. 2.1-2.2, fig. 2).

Shapes: N rows, Y x X the map of codes, T = Y X, K codes, C channels.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attelbo.checks import check_at_least, check_repetitions
from attelbo.latent.priors.autoregressive import AutoregressiveCodes, draw
from attelbo.latent.spaces import Codes


class AutoregressiveConvolutional(AutoregressiveCodes):
    """Two stacks of gated convolutions: one sees the rows above, the other also what is to the left.

    Codes with several positions at a place (Y, X', Q) are a map of Y rows and X = X' Q columns; codes in a line are a
    map of one row, and the convolutions causal ones in one dimension.

    Differs from the paper: both stacks begin with a shift by one, after which no filter needs a mask; positions have
    learned vectors, since maps of codes are small.

    Args:
        space: the positions and the number of codes.
        channels: C.
        layers: of gated convolutions.
        reach: how far a filter sees in each direction, in codes.

    Raises:
        ValueError: channels, layers or reach below 1.
    """

    def __init__(self, space: Codes, channels: int = 64, layers: int = 3, reach: int = 1) -> None:
        check_at_least(1, channels=channels, reach=reach)
        check_repetitions(layers=layers)
        super().__init__(space, channels)
        self.height = space.shape[0] if len(space.shape) > 1 else 1
        self.width = self.n_positions // self.height
        self.layers = nn.ModuleList(_GatedLayer(channels, reach) for _ in range(layers))
        self.output = nn.Sequential(nn.ReLU(), nn.Conv2d(channels, self.n_codes, 1))
        self._rows_seen = 1 + layers * reach

    def logits(self, codes: Tensor) -> Tensor:
        return self._rows(codes.unflatten(1, (self.height, self.width)), 0).flatten(2).mT

    @torch.no_grad()
    def sample(self, n: int) -> Tensor:
        codes = torch.zeros(n, self.height, self.width, dtype=torch.int64, device=self.code.device)
        for y in range(self.height):
            top = max(0, y - self._rows_seen)  # rows further above have no influence
            for x in range(self.width):
                codes[:, y, x] = draw(self._rows(codes[:, top : y + 1], top)[:, :, -1, x])
        return codes.view(n, *self.latent_shape)

    def _rows(self, codes: Tensor, top: int) -> Tensor:
        """Logits (N, K, y, X) for the rows of codes (N, y, X) that begin with row ``top`` of the map."""
        start, n_rows = top * self.width, codes.shape[1]
        size = (n_rows, self.width)
        embedded = self.embed(codes.flatten(1), start).unflatten(1, size).permute(0, 3, 1, 2)  # (N, C, y, X)
        position = self.position[start : start + math.prod(size)].unflatten(0, size).permute(2, 0, 1)
        above = F.pad(embedded, (0, 0, 1, 0))[:, :, :-1] + position
        left = F.pad(embedded, (1, 0))[..., :-1] + position
        for layer in self.layers:
            above, left = layer(above, left)
        return self.output(left)


class _GatedLayer(nn.Module):
    """The vertical stack sees its own row and those above, the horizontal one its own pixel and those to the left."""

    def __init__(self, channels: int, reach: int) -> None:
        super().__init__()
        self.reach = reach
        self.vertical = nn.Conv2d(channels, 2 * channels, (reach + 1, 2 * reach + 1))
        self.horizontal = nn.Conv2d(channels, 2 * channels, (1, reach + 1))
        self.link = nn.Conv2d(2 * channels, 2 * channels, 1)
        self.residual = nn.Conv2d(channels, channels, 1)

    def forward(self, above: Tensor, left: Tensor) -> tuple[Tensor, Tensor]:
        reach = self.reach
        vertical = self.vertical(F.pad(above, (reach, reach, reach, 0)))
        horizontal = self.horizontal(F.pad(left, (reach, 0)))
        return _gate(vertical), left + self.residual(_gate(horizontal + self.link(vertical)))


def _gate(features: Tensor) -> Tensor:
    """tanh of one half of the channels times the sigmoid of the other."""
    value, gate = features.chunk(2, dim=1)
    return value.tanh() * gate.sigmoid()
