"""Attention across the layers of a hierarchy: each pixel of a layer looks at its own place in the maps of other layers.

    t_j = tell_j(h_j)                                       what layer j lets others see, E features of each pixel
    heard = hear(attend(norm(ask(h)), norm([t_1, ..., t_S])))           at each pixel, maps resized to the size of h

Source: Apostolopoulou, Char, Rosenfeld & Dubrawski 2022, "Deep Attentive Variational Inference", ICLR, section 3. Ours
differs: values too have E features, not all of h; any attention of the project to a memory; maps of several sizes; the
last matrix starts at zero, where the paper multiplies what is heard by a number that does.

Shapes: N rows, C channels, H x W pixels of the layer that asks, E features of what is told, S maps that were told.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from attelbo.attention import AttentionLayer
from attelbo.networks.layers import initialize
from attelbo.networks.top_down import resize


class DepthAttention(nn.Module):
    """h (N, C, H, W) and the maps that other layers have told -> what it hears of them, zero at the start.

    Args:
        channels: C.
        dim: E.
        attention: to a memory of tokens with E features.
    """

    def __init__(self, channels: int, dim: int, attention: AttentionLayer) -> None:
        super().__init__()
        self.ask = initialize(nn.Linear(channels, dim))
        self.query_norm, self.memory_norm = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attention = attention
        self.hear = nn.Linear(dim, channels)
        nn.init.zeros_(self.hear.weight)
        nn.init.zeros_(self.hear.bias)

    def forward(self, h: Tensor, told: Sequence[Tensor]) -> Tensor:
        """h (N, C, H, W), and S maps (N, E, ., .) of any sizes -> (N, C, H, W), in channels_last order."""
        heard = self.hear(self.attention(*self._tokens(h, told)))  # (N H W, 1, C)
        return heard.view(len(h), *h.shape[2:], -1).permute(0, 3, 1, 2)

    def weights(self, h: Tensor, told: Sequence[Tensor]) -> Tensor:
        """How much each pixel attends to each map at its place, row by row: (N, heads, H W, S)."""
        weights = self.attention.weights(*self._tokens(h, told)).squeeze(2)  # (N H W, heads, S)
        return weights.unflatten(0, (len(h), -1)).transpose(1, 2)

    def _tokens(self, h: Tensor, told: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Queries (N H W, 1, E) and memories (N H W, S, E): a row of a batch for each pixel."""
        size = h.shape[2], h.shape[3]
        query = self.query_norm(self.ask(h.permute(0, 2, 3, 1)))
        memory = self.memory_norm(torch.stack([resize(each, size).permute(0, 2, 3, 1) for each in told], 3))
        return query.flatten(0, 2).unsqueeze(1), memory.flatten(0, 2)


def tellers(n: int, channels: int, dim: int) -> nn.ModuleList:
    """n convolutions of single pixels, from C channels to the E features that others may attend to."""
    return nn.ModuleList(initialize(nn.Conv2d(channels, dim, 1)) for _ in range(n))
