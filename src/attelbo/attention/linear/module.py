"""Linear attention over tokens, with the projections of multi-head attention.

Katharopoulos, Vyas, Pappas & Fleuret 2020, "Transformers are RNNs", arXiv:2006.16236; with random features it is the
attention of Choromanski et al. 2021, "Rethinking Attention with Performers", arXiv:2009.14794.

Shapes: B batch, T queries, S tokens of the memory, E features of a token, N heads, D = E / N, F features of phi.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attelbo.attention.layer import check_heads, join_heads, split_heads
from attelbo.attention.linear.features import EluFeatures, FeatureMap
from attelbo.attention.linear.operation import causal_linear_attention, linear_attention
from attelbo.attention.masks import Mask, Padding
from attelbo.attention.precision import full_precision


class LinearCache:
    """The recurrent state of one causal attention: of the same size for any number of tokens."""

    def __init__(self) -> None:
        self.length = 0
        """Tokens so far."""
        self.sums: Tensor | None = None
        """sum of phi(k) (v, 1)^T / exp(log_scale), (B, N, F, D + 1)."""
        self.log_scale: Tensor | None = None
        """(B, N, 1, 1); None: 0."""

    def reorder(self, rows: Tensor) -> None:
        """Go on with these rows (B',) of the batch, as beam search does."""
        if self.sums is not None:
            self.sums = self.sums.index_select(0, rows)
        if self.log_scale is not None:
            self.log_scale = self.log_scale.index_select(0, rows)


class LinearAttention(nn.Module):
    """Self-attention over tokens (B, T, E), or attention from them to a memory (B, S, E), in O(T + S) time and memory.

    Parameters, their layout and their initial values are those of ``MultiHeadAttention``. Sums are taken in float32
    at least: a sum over all tokens so far is useless in bfloat16. Random features of keys are scaled by the largest of
    a call: beside a key that is much longer or shorter (norms apart by tens) they can vanish, in the causal form also
    beside one that comes later. The estimate is meaningless there, see
    :class:`~attelbo.attention.PositiveRandomFeatures`.

    Args:
        dim: E.
        heads: N; must divide ``dim``.
        feature_map: phi, of the D features of a head; elu + 1 if None.
        causal: whether a token sees itself and those before it only; of self-attention alone.
        bias: whether the projections have one.

    Raises:
        ValueError: a size below 1, or heads that do not divide ``dim``.
    """

    def __init__(
        self, dim: int, heads: int, *, feature_map: FeatureMap | None = None, causal: bool = False, bias: bool = True
    ) -> None:
        super().__init__()
        check_heads(dim, heads)
        self.dim = dim
        self.heads = heads
        self.causal = causal
        self.feature_map = feature_map or EluFeatures()
        self.qkv = nn.Linear(dim, 3 * dim, bias=bias)
        self.output = nn.Linear(dim, dim, bias=bias)
        self.reset_parameters()

    def reset_parameters(self, gain: float = 1.0) -> None:
        """Glorot-uniform for each of the four projections by itself, with a gain for values and output; biases zero."""
        for projection, own in zip((*self.qkv.weight.chunk(3), self.output.weight), (1, 1, gain, gain), strict=True):
            nn.init.xavier_uniform_(projection, own)
        for layer in (self.qkv, self.output):
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)

    def forward(
        self,
        query: Tensor,
        memory: Tensor | None = None,
        *,
        mask: Mask | None = None,
        cache: LinearCache | None = None,
    ) -> Tensor:
        """query (B, T, E) attends to memory (B, S, E), or to itself if there is none -> (B, T, E).

        Args:
            query: the tokens that attend.
            memory: those that are attended to.
            mask: which of them are not padding, whose contents have no influence on the output.
            cache: the tokens before these, to which these are added; of causal attention.

        Raises:
            ValueError: a mask other than ``Padding``, or a memory or a cache where there can be none.
        """
        if cache is not None and not self.causal:
            raise ValueError("only causal linear attention has a cache")
        heads = self._attend(*self._project(query, memory), mask, cache)
        return self.output(join_heads(heads).to(query.dtype))

    def weights(self, query: Tensor, memory: Tensor | None = None, *, mask: Mask | None = None) -> Tensor:
        """How much each head of each query attends to each key, (B, N, T, S): the output for unit vectors as values,
        since it has no weights otherwise. Arguments as in :meth:`forward`."""
        q, k, _ = self._project(query, memory)
        units = torch.eye(k.shape[2], dtype=k.dtype, device=k.device).expand(*k.shape[:2], -1, -1)
        return self._attend(q, k, units, mask, None)

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Mask | None, cache: LinearCache | None) -> Tensor:
        """q (B, N, T, D), k (B, N, S, D), v (B, N, S, V) -> (B, N, T, V), in float32 at least."""
        with torch.autocast(q.device.type, enabled=False):
            q, k, v = (full_precision(t) for t in (q, k, v))
            q, _ = self.feature_map(q)
            k, v, log_scale = self._keys(k, v, _valid(mask), cache)
            if not self.causal:
                return linear_attention(q, k, v)
            heads, sums = causal_linear_attention(q, k, v, _sums_of(cache, log_scale))
            if cache is not None:
                cache.length, cache.sums, cache.log_scale = cache.length + q.shape[2], sums, log_scale
            return heads

    def cache(self, capacity: int) -> LinearCache:
        """An empty one, for any number of tokens."""
        return LinearCache()

    def _project(self, query: Tensor, memory: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """q (B, N, T, D), k and v (B, N, S, D)."""
        if self.causal and memory is not None:
            raise ValueError("causal linear attention has no memory: it is self-attention")
        if memory is None:
            parts = self.qkv(query).chunk(3, -1)
        else:
            weight, bias = self.qkv.weight.split([self.dim, 2 * self.dim]), (None, None)
            if self.qkv.bias is not None:
                bias = self.qkv.bias.split([self.dim, 2 * self.dim])
            parts = (F.linear(query, weight[0], bias[0]), *F.linear(memory, weight[1], bias[1]).chunk(2, -1))
        q, k, v = (split_heads(part, self.heads) for part in parts)
        return q, k, v

    def _keys(
        self, k: Tensor, v: Tensor, valid: Tensor | None, cache: LinearCache | None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """phi(k) / exp(log_scale) and v, both zero for padding; and log_scale (B, N, 1, 1), that of the largest so
        far."""
        k, log_factor = self.feature_map(k)
        log_scale = None
        if log_factor is not None:
            if valid is not None:
                log_factor = log_factor.masked_fill(~valid, torch.finfo(log_factor.dtype).min)
            log_scale = log_factor.amax(-2, keepdim=True)
            if cache is not None and cache.log_scale is not None:
                log_scale = torch.maximum(log_scale, cache.log_scale)
            k = k * (log_factor - log_scale).exp()
        if valid is not None:
            k, v = k.masked_fill(~valid, 0), v.masked_fill(~valid, 0)
        return k, v, log_scale


def _sums_of(cache: LinearCache | None, log_scale: Tensor | None) -> Tensor | None:
    """Those of the cache, for another scale."""
    if cache is None or cache.sums is None or cache.log_scale is None or log_scale is None:
        return None if cache is None else cache.sums
    return cache.sums * (cache.log_scale - log_scale).exp()


def _valid(mask: Mask | None) -> Tensor | None:
    """Which keys are not padding, (B, 1, S, 1)."""
    if mask is None:
        return None
    if not isinstance(mask, Padding):
        raise ValueError(
            f"linear attention sums over keys for all queries at once, so its mask can only be Padding, "
            f"got {type(mask).__name__}; MultiHeadAttention takes every mask"
        )
    return mask.valid[:, None, :, None]
