"""The Perceiver: a few latents attend to a set of any size, then to each other.

Source: Jaegle et al. 2021, "Perceiver: General Perception with Iterative Attention", arXiv:2103.03206, sec. 3; with one
round it is the encoder of Perceiver IO (Jaegle et al. 2021, arXiv:2107.14795). The position of an element is encoded in
its features, or not at all.

Shapes: B batch, S elements, E' features of an element, M latents, E features of a latent, L layers, R rounds.
"""

import torch
from torch import Tensor, nn

from attelbo.attention.blocks import FeedForward, TransformerBlock
from attelbo.attention.layer import check_heads
from attelbo.attention.masks import Padding
from attelbo.attention.multi_head import MultiHeadAttention
from attelbo.attention.scores import ScaledDot
from attelbo.attention.sets.padding import without_padding
from attelbo.checks import check_at_least, check_repetitions


class LookBlock(nn.Module):
    """latents + attention(norm(latents), norm(elements)), and a feed-forward network with a norm and a residual.

    Args:
        dim: E.
        memory_dim: E'.
        heads: must divide ``dim``.
        hidden: features inside the feed-forward network.
        scale: of the scores; 1 / sqrt(E / heads) if None.

    Raises:
        ValueError: a size below 1, or heads that do not divide ``dim``.
    """

    def __init__(self, dim: int, memory_dim: int, heads: int, hidden: int, scale: float | None = None) -> None:
        super().__init__()
        check_heads(dim, heads)
        score = ScaledDot(dim // heads, scale)
        self.attention = MultiHeadAttention(dim, heads, memory_dim=memory_dim, score=score)
        self.feed_forward = FeedForward(dim, hidden)
        self.latent_norm, self.element_norm = nn.LayerNorm(dim), nn.LayerNorm(memory_dim)
        self.feed_forward_norm = nn.LayerNorm(dim)

    def forward(self, latents: Tensor, elements: Tensor, mask: Padding | None) -> Tensor:
        """Latents (B, M, E), elements (B, S, E') -> (B, M, E)."""
        latents = latents + self.attention(self.latent_norm(latents), self.element_norm(elements), mask=mask)
        return latents + self.feed_forward(self.feed_forward_norm(latents))


class Perceiver(nn.Module):
    """M learned latents attend to the elements, then go through L transformer blocks; R rounds of this.

    Invariant to the order of the elements; O(M S + L M^2) in each round. Rounds after the second have the second's
    weights, as in the paper.

    Args:
        dim: E.
        memory_dim: E'; E if None.
        n_latents: M.
        heads: of the attention between latents; must divide ``dim``.
        look_heads: of that to the elements; must divide ``dim``. 1 in the paper.
        layers: L.
        rounds: R.
        hidden: features inside the feed-forward networks; E if None, as in the authors' code.
        look_scale: of the scores of elements; 1 / sqrt(E / look_heads) if None.

    Raises:
        ValueError: a size below 1, or heads that do not divide ``dim``.
    """

    def __init__(
        self,
        dim: int,
        memory_dim: int | None = None,
        *,
        n_latents: int = 32,
        heads: int = 4,
        look_heads: int = 1,
        layers: int = 2,
        rounds: int = 1,
        hidden: int | None = None,
        look_scale: float | None = None,
    ) -> None:
        super().__init__()
        check_at_least(1, dim=dim, n_latents=n_latents)
        check_repetitions(layers=layers, rounds=rounds)
        self.rounds = rounds
        memory_dim = dim if memory_dim is None else memory_dim
        hidden = dim if hidden is None else hidden
        # Initial latents as in the paper, section 3.
        self.latents = nn.Parameter(nn.init.trunc_normal_(torch.empty(n_latents, dim), std=0.02))
        distinct = range(min(rounds, 2))
        self.looks = nn.ModuleList(LookBlock(dim, memory_dim, look_heads, hidden, look_scale) for _ in distinct)
        self.stacks = nn.ModuleList(
            nn.Sequential(
                *(TransformerBlock(MultiHeadAttention(dim, heads), FeedForward(dim, hidden)) for _ in range(layers))
            )
            for _ in distinct
        )

    def forward(self, x: Tensor, *, mask: Padding | None = None) -> Tensor:
        """A set (B, S, E') -> (B, M, E).

        Args:
            x: the elements.
            mask: which of them are there.
        """
        x = without_padding(x, mask)
        latents = self.latents.expand(len(x), -1, -1)
        for round_ in range(self.rounds):
            which = min(round_, 1)
            latents = self.stacks[which](self.looks[which](latents, x, mask))
        return latents
