"""A recurrent network that reads a text from both ends.

Source: Schuster & Paliwal 1997, "Bidirectional Recurrent Neural Networks"; its units are those of Cho et al. 2014.

Shapes: B batch, T tokens, E features of a token.
"""

import torch
from torch import Tensor, nn

from attelbo.attention import Mask, Padding
from attelbo.checks import check_below_one, check_repetitions


class BidirectionalGRU(nn.Module):
    """Tokens (B, T, E) -> (B, T, E): E / 2 features of a GRU that reads from the left, as many of one from the right.

    The one from the right begins at the last token of each row, before any padding: rows are reversed by their own
    lengths on the device, since packing would synchronize with the host.

    Args:
        dim: E, even.
        layers: one on top of the other.
        dropout: between them, and on the output, in training.

    Raises:
        ValueError: an odd ``dim``, no layer, or a dropout outside [0, 1).
    """

    def __init__(self, dim: int, layers: int = 1, dropout: float = 0.0) -> None:
        super().__init__()
        if dim < 2 or dim % 2:
            raise ValueError(f"dim must be even, half for each direction, got {dim}")
        check_repetitions(layers=layers)
        check_below_one(dropout=dropout)
        self.from_left = nn.ModuleList(nn.GRU(dim, dim // 2, batch_first=True) for _ in range(layers))
        self.from_right = nn.ModuleList(nn.GRU(dim, dim // 2, batch_first=True) for _ in range(layers))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, *, mask: Mask | None = None) -> Tensor:
        """Padding in the mask follows each row's tokens."""
        assert mask is None or isinstance(mask, Padding), "a recurrent network has no mask but padding"
        order = _turned_around(x, mask)
        for left, right in zip(self.from_left, self.from_right, strict=True):
            forth, _ = left(x)
            back, _ = right(torch.take_along_dim(x, order, 1))
            x = self.dropout(torch.cat([forth, torch.take_along_dim(back, order, 1)], -1))
        return x


def _turned_around(x: Tensor, mask: Padding | None) -> Tensor:
    """The places (B, T, 1) of each row's tokens from the last to the first, with padding left in place; its own
    inverse."""
    place = torch.arange(x.shape[1], device=x.device)
    if mask is None:
        return place.flip(0)[None, :, None].expand(len(x), -1, 1)
    length = mask.valid.sum(1, keepdim=True)
    return torch.where(place < length, length - 1 - place, place).unsqueeze(-1)
