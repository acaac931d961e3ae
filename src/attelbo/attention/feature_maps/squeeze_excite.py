"""Squeeze and excitation: channels are weighted by a summary of the whole feature map.

Source: Hu, Shen & Sun 2018, "Squeeze-and-Excitation Networks", arXiv:1709.01507, eq. 2 to 4.

Shapes: B batch, C channels, H x W pixels.
"""

from torch import Tensor, nn

from attelbo.checks import check_at_least


def bottleneck(channels: int, reduction: int) -> nn.Sequential:
    """Two linear layers on C channels, with C / ``reduction`` units between them, at least 8, so that some ReLUs are
    alive.

    Raises:
        ValueError: a number below 1.
    """
    check_at_least(1, channels=channels, reduction=reduction)
    hidden = max(8, channels // reduction)
    return nn.Sequential(nn.Linear(channels, hidden), nn.ReLU(), nn.Linear(hidden, channels))


class SqueezeExcite(nn.Module):
    """x times sigmoid(W_2 relu(W_1 mean(x))), by channel, on a feature map (B, C, H, W).

    It starts near x / 2, not near x, as in the paper.

    Args:
        channels: C.
        reduction: C over the units between the two layers, of which there are at least 8.

    Raises:
        ValueError: a number below 1.
    """

    def __init__(self, channels: int, *, reduction: int = 16) -> None:
        super().__init__()
        self.excite = bottleneck(channels, reduction)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W), laid out like x."""
        return x * self.excite(x.mean((2, 3))).sigmoid()[..., None, None]
