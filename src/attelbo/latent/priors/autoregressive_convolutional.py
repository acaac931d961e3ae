"""A convolutional prior over a map of codes: the gated PixelCNN (van den Oord et al. 2016, "Conditional Image
Generation with PixelCNN Decoders", arXiv:1606.05328, sec. 2.1-2.2, fig. 2).

Shapes: N rows, Y x X the map of codes, T = Y X, K codes, C channels.
"""

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

    def logits(self, codes: Tensor) -> Tensor:
        size = (self.height, self.width)
        embedded = self.embed(codes).mT.unflatten(2, size)  # (N, C, Y, X)
        position = self.position.mT.unflatten(1, size)
        above = F.pad(embedded, (0, 0, 1, 0))[:, :, :-1] + position
        left = F.pad(embedded, (1, 0))[..., :-1] + position
        for layer in self.layers:
            above, left = layer(above, left)
        return self.output(left).flatten(2).mT

    @torch.no_grad()
    def sample(self, n: int) -> Tensor:
        layers = [layer for layer in self.layers if isinstance(layer, _GatedLayer)]
        position = self.position.mT.unflatten(1, (self.height, self.width))
        blank = self.code.new_zeros(n, len(position), 1, 1)
        # Of each layer, the rows and the columns behind that its filters still see: each place is computed once.
        rows = [blank.expand(-1, -1, layer.reach, self.width) for layer in layers]
        codes: list[Tensor] = []
        row_above: Tensor = blank
        for y in range(self.height):
            above, told = row_above + position[:, y : y + 1], list[Tensor]()
            for k, layer in enumerate(layers):
                seen = torch.cat([rows[k], above], 2)
                rows[k], vertical = seen[:, :, 1:], layer.down(seen)
                above = _gate(vertical)
                told.append(layer.link(vertical))
            columns = [blank.expand(-1, -1, -1, layer.reach) for layer in layers]
            embedded = [blank]
            for x in range(self.width):
                left = embedded[-1] + position[:, y : y + 1, x : x + 1]
                for k, layer in enumerate(layers):
                    seen = torch.cat([columns[k], left], 3)
                    columns[k] = seen[..., 1:]
                    left = layer.along(left, seen, told[k][..., x : x + 1])
                codes.append(draw(self.output(left).flatten(1)))
                embedded.append(self.embed(codes[-1].unsqueeze(1), y * self.width + x).mT.unsqueeze(2))
            row_above = torch.cat(embedded[1:], 3)
        return torch.stack(codes, 1).view(n, *self.latent_shape)


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
        vertical = self.down(F.pad(above, (0, 0, self.reach, 0)))
        return _gate(vertical), self.along(left, F.pad(left, (self.reach, 0)), self.link(vertical))

    def down(self, above: Tensor) -> Tensor:
        """The vertical stack's features (N, 2 C, y, X), of ``reach`` rows more."""
        return self.vertical(F.pad(above, (self.reach, self.reach)))

    def along(self, left: Tensor, seen: Tensor, told: Tensor) -> Tensor:
        """The horizontal stack's next features (N, C, y, x) of these, which with ``reach`` columns more are ``seen``,
        and of what the vertical stack has told (N, 2 C, y, x)."""
        return left + self.residual(_gate(self.horizontal(seen) + told))


def _gate(features: Tensor) -> Tensor:
    """tanh of one half of the channels times the sigmoid of the other."""
    value, gate = features.chunk(2, dim=1)
    return value.tanh() * gate.sigmoid()
