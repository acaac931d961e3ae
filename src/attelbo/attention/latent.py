"""Multi-head latent attention: keys and values are projections of a low-dimensional latent vector, which a cache holds
in their place.

    c = norm(m W_down),   k_n = [c W_n, R k_p],   v_n = c W'_n,   q_n = [x W_n'', R (x W_n''')]

Some of a key's features are its head's own and carry no position; the others, k_p, are shared by all heads and rotated
(R, decoupled rotary positions), since with R in between W_n could not be absorbed into the queries.

Source: DeepSeek-AI 2024, "DeepSeek-V2: A Strong, Economical, and Efficient Mixture-of-Experts Language Model", section
2.1, eqs. 9-19. Ours differs: queries are projected directly, not by a latent of their own (as in their small model);
both parts of a key together have the D features of a value, so that fused kernels serve; any position may be chosen.

Shapes: B batch, T queries, S tokens of the memory m, E features of a token, N heads, D = E / N, P of them with a
position, R features of the latent.
"""

from typing import Any, Unpack

import torch
from torch import Tensor, nn

from attelbo.attention.cache import KeyValueCache, KeyValues
from attelbo.attention.layer import AttentionLayer, HeadFeatures, LayerOptions, join_heads, split_heads
from attelbo.attention.masks import Mask
from attelbo.attention.precision import rms_normed
from attelbo.attention.scores import Dot, ScaledDot
from attelbo.checks import check_at_least


class LatentAttention(AttentionLayer):
    """Self-attention over tokens (B, T, E), or cross-attention from them to a memory (B, S, E').

    A cache holds R + P numbers for each token, not 2 E. With a dot product as the score, decoding never expands it to
    keys and values: their projections are absorbed into the queries and applied after the kernel.

    Args:
        dim: E.
        heads: N; must divide ``dim``.
        latent_dim: R.
        placed_dim: P; half of D if None.
        memory_dim, bias, options: as in ``MultiHeadAttention``.

    Raises:
        ValueError: a size below 1, heads that do not divide, a ``placed_dim`` that leaves nothing of D; a dropout
            outside [0, 1), a kernel that cannot compute this.
    """

    as_projected = False  # a step of decoding absorbs projections of keys into the queries

    def __init__(
        self,
        dim: int,
        heads: int,
        *,
        latent_dim: int,
        placed_dim: int | None = None,
        memory_dim: int | None = None,
        bias: bool = True,
        **options: Unpack[LayerOptions],
    ) -> None:
        head_dim, placed = self.head_features(dim, heads, placed_dim=placed_dim)
        check_at_least(1, latent_dim=latent_dim, memory_dim=memory_dim)
        super().__init__(dim, heads, head_dim, **options)
        self.latent_dim = latent_dim
        self.own_placed = [head_dim - placed, placed]
        self.query = nn.Linear(dim, dim, bias=bias)
        self.down = nn.Linear(dim if memory_dim is None else memory_dim, latent_dim + placed, bias=bias)
        self.norm = nn.RMSNorm(latent_dim, eps=1e-6)
        self.up_key = nn.Linear(latent_dim, heads * (head_dim - placed), bias=False)
        self.up_value = nn.Linear(latent_dim, dim, bias=False)
        self.output = nn.Linear(dim, dim, bias=bias)
        self.reset_parameters()

    @staticmethod
    def head_features(dim: int, heads: int, *, placed_dim: int | None = None, **options: Any) -> HeadFeatures:
        head_dim, _ = AttentionLayer.head_features(dim, heads)
        placed = head_dim // 2 if placed_dim is None else placed_dim
        if not 0 < placed < head_dim:
            raise ValueError(f"placed_dim must be some of the {head_dim} features of a head, not all, got {placed}")
        return HeadFeatures(head_dim, placed)

    def reset_parameters(self, gain: float = 1.0) -> None:
        """Glorot-uniform for each projection by itself, with a gain for values and output; biases zero."""
        weights = [self.query.weight, *self.down.weight.split([self.latent_dim, self.own_placed[1]])]
        for projection in (*weights, self.up_key.weight):
            nn.init.xavier_uniform_(projection)
        for projection in (self.up_value.weight, self.output.weight):
            nn.init.xavier_uniform_(projection, gain)
        for layer in (self.query, self.down, self.output):
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)

    def forward(
        self,
        query: Tensor,
        memory: Tensor | KeyValues | None = None,
        *,
        mask: Mask | None = None,
        cache: KeyValueCache | None = None,
    ) -> Tensor:
        if cache is None or memory is not None or type(self.score) not in (Dot, ScaledDot):
            return super().forward(query, memory, mask=mask, cache=cache)
        own, placed, latent, placed_key = self._placed(query, cache)
        up_key, up_value = (up.weight.unflatten(0, (self.heads, -1)) for up in (self.up_key, self.up_value))
        own = torch.einsum("bntd,ndr->bntr", own, up_key)  # <q, W c> = <W^T q, c>
        q = torch.cat([own, placed], -1)
        k = torch.cat([latent, placed_key], -1)
        heads = self.attend(q, k, latent, self.masked(mask))
        return self.combine(torch.einsum("bntr,ndr->bntd", heads, up_value), query)

    def project(
        self, query: Tensor, memory: Tensor | KeyValues | None = None, cache: KeyValueCache | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        if memory is not None:
            k, v = memory if isinstance(memory, KeyValues) else self.keys_values(memory)
            return split_heads(self.query(query), self.heads), k, v
        own, placed, latent, placed_key = self._placed(query, cache)
        k, v = self._raise(latent, placed_key)
        return torch.cat([own, placed], -1), k, v

    def keys_values(self, memory: Tensor) -> KeyValues:
        return self._raise(*self._compress(memory))

    def combine(self, heads: Tensor, query: Tensor) -> Tensor:
        return self.output(join_heads(heads))

    def _placed(self, x: Tensor, cache: KeyValueCache | None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Of self-attention, the two parts of the queries (B, N, T, D - P) and (B, N, T, P), and the output of
        :meth:`_compress`; with positions, and with the tokens in the cache."""
        own, placed = split_heads(self.query(x), self.heads).split(self.own_placed, -1)
        latent, placed_key = self._compress(x)
        placed, placed_key = self.position.at_query_key(placed, placed_key, 0 if cache is None else cache.length)
        if cache is not None:
            latent, placed_key = cache.extend(latent, placed_key)
        return own, placed, latent, placed_key

    def _compress(self, memory: Tensor) -> tuple[Tensor, Tensor]:
        """The latents (B, 1, S, R) of tokens, and the part of their keys (B, 1, S, P) that all heads share."""
        latent, placed_key = self.down(memory).unsqueeze(1).split([self.latent_dim, self.own_placed[1]], -1)
        return rms_normed(latent, self.norm), placed_key

    def _raise(self, latent: Tensor, placed_key: Tensor) -> KeyValues:
        """Keys and values (B, N, S, D)."""
        own, value = (split_heads(up(latent[:, 0]), self.heads) for up in (self.up_key, self.up_value))
        return KeyValues(torch.cat([own, placed_key.expand(-1, self.heads, -1, -1)], -1), value)
