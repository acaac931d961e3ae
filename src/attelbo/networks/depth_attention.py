"""Attention across the layers of a hierarchy: each pixel of a layer attends to its own place in maps of other layers.

    m_j = W_j h_j                                               memory of layer j, E features of each pixel
    attended = W_o attend(norm(W_q h), norm([m_1, ..., m_S]))   at each pixel, maps resized to the size of h

Source: Apostolopoulou, Char, Rosenfeld & Dubrawski 2022, "Deep Attentive Variational Inference", ICLR, section 3. Ours
differs: values too have E features, not all of h; any attention of the project to a memory; maps of several sizes; W_o
starts at zero, where the paper multiplies what is attended to by a number that does.

Shapes: N rows, C channels, H x W pixels of the layer that attends, E features of a memory, S maps in it.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from attelbo.attention import AttentionLayer
from attelbo.networks.layers import initialize
from attelbo.networks.top_down import resize


class DepthAttention(nn.Module):
    """h (N, C, H, W) and a memory, maps of other layers -> what is added to h, (N, C, H, W), zero at the start.

    Args:
        channels: C.
        dim: E.
        attention: to S tokens with E features.
    """

    def __init__(self, channels: int, dim: int, attention: AttentionLayer) -> None:
        super().__init__()
        self.query = initialize(nn.Linear(channels, dim))
        self.query_norm, self.memory_norm = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attention = attention
        self.back = nn.Linear(dim, channels)
        nn.init.zeros_(self.back.weight)
        nn.init.zeros_(self.back.bias)

    def forward(self, h: Tensor, memory: Sequence[Tensor]) -> Tensor:
        """h (N, C, H, W), and S maps (N, E, ., .) of any sizes -> (N, C, H, W), in channels_last order."""
        attended = self.back(self.attention(*self._tokens(h, memory)))  # (N H W, 1, C)
        return attended.view(len(h), *h.shape[2:], -1).permute(0, 3, 1, 2)

    def weights(self, h: Tensor, memory: Sequence[Tensor]) -> Tensor:
        """How much each pixel attends to each map at its place, row by row: (N, heads, H W, S)."""
        weights = self.attention.weights(*self._tokens(h, memory)).squeeze(2)  # (N H W, heads, S)
        return weights.unflatten(0, (len(h), -1)).transpose(1, 2)

    def _tokens(self, h: Tensor, memory: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Queries (N H W, 1, E) and keys (N H W, S, E): a row of a batch for each pixel."""
        size = h.shape[2], h.shape[3]
        queries = self.query_norm(self.query(h.permute(0, 2, 3, 1)))
        keys = self.memory_norm(torch.stack([resize(each, size).permute(0, 2, 3, 1) for each in memory], 3))
        return queries.flatten(0, 2).unsqueeze(1), keys.flatten(0, 2)


def memory_projections(n: int, channels: int, dim: int) -> nn.ModuleList:
    """W_j of n layers: convolutions of single pixels from C channels to E features."""
    return nn.ModuleList(initialize(nn.Conv2d(channels, dim, 1)) for _ in range(n))
