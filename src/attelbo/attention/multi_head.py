"""Multi-head attention over tokens.

Source: Vaswani et al. 2017, "Attention Is All You Need", section 3.2.2; heads that share keys and values: Shazeer 2019
(multi-query), Ainslie et al. 2023 (grouped-query).

    head_n = attend(x W_q, m W_k, m W_v)_n,   output = [head_1, ..., head_N] W_o

Shapes: B batch, T queries, S tokens of the memory m, E features of a token, N heads, M heads of keys and values (M
divides N; neighbouring heads share), D = E / N.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from attelbo.attention.cache import KeyValueCache, KeyValues
from attelbo.attention.kernels import KERNELS, KernelName, Mechanism
from attelbo.attention.masks import Mask, merged
from attelbo.attention.normalizers import Normalizer, Softmax
from attelbo.attention.positions import NoPosition, Position
from attelbo.attention.scores import ScaledDot, Score


class MultiHeadAttention(nn.Module):
    """Self-attention over tokens (B, T, E), or cross-attention from them to a memory (B, S, E').

    The input projections are one packed layer, laid out like ``torch.nn.MultiheadAttention``'s ``in_proj_weight``: one
    matrix product in self-attention, two in cross-attention.

    Args:
        dim: E.
        heads: N; must divide ``dim``.
        kv_heads: M; must divide ``heads``. N if None; 1 is multi-query attention.
        memory_dim: E', of a memory whose tokens have another size; such attention is cross-attention only.
        score: how well a key answers a query; 1 / sqrt(D) times the dot product if None.
        normalizer: from scores to weights; softmax if None.
        position: how it knows where a token stands; not at all if None.
        mask: who may attend to whom, in every call.
        soft_cap: c, where scores become c tanh(score / c).
        dropout: the probability with which an attention weight is dropped in training.
        bias: whether the projections have one.
        kernel: how the heads are computed; "eager" where second derivatives are needed.

    Raises:
        ValueError: a size below 1, heads that do not divide, a dropout outside [0, 1), a kernel that cannot compute
            what is asked for.
    """

    def __init__(
        self,
        dim: int,
        heads: int,
        *,
        kv_heads: int | None = None,
        memory_dim: int | None = None,
        score: Score | None = None,
        normalizer: Normalizer | None = None,
        position: Position | None = None,
        mask: Mask | None = None,
        soft_cap: float | None = None,
        dropout: float = 0.0,
        bias: bool = True,
        kernel: KernelName = "sdpa",
    ) -> None:
        super().__init__()
        _check_sizes(dim, heads, kv_heads, dropout)
        self.dim = dim
        self.heads = heads
        self.kv_heads = heads if kv_heads is None else kv_heads
        self.head_dim = dim // heads
        self.dropout = dropout
        self.mask = mask
        self.score = score or ScaledDot(self.head_dim)
        self.position = position or NoPosition()
        self.mechanism = Mechanism(self.score, normalizer or Softmax(), self.position, soft_cap)
        self.kernel = KERNELS[check_kernel(kernel, self.mechanism, dropout, mask)]
        self.widths = [dim, self.kv_heads * self.head_dim, self.kv_heads * self.head_dim]
        if memory_dim is None or memory_dim == dim:
            self.qkv = nn.Linear(dim, sum(self.widths), bias=bias)
            self.from_memory = None
        else:
            self.qkv = nn.Linear(dim, dim, bias=bias)
            self.from_memory = nn.Linear(memory_dim, sum(self.widths[1:]), bias=bias)
        self.output = nn.Linear(dim, dim, bias=bias)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Glorot-uniform for each of the four projections by itself, biases zero."""
        weights = [*self.qkv.weight.split(self.widths if self.from_memory is None else self.widths[:1])]
        if self.from_memory is not None:
            weights += self.from_memory.weight.chunk(2)
        for projection in (*weights, self.output.weight):
            nn.init.xavier_uniform_(projection)
        for layer in (self.qkv, self.from_memory, self.output):
            if layer is not None and layer.bias is not None:
                nn.init.zeros_(layer.bias)

    def forward(
        self,
        query: Tensor,
        memory: Tensor | KeyValues | None = None,
        *,
        mask: Mask | None = None,
        cache: KeyValueCache | None = None,
    ) -> Tensor:
        """query (B, T, E) attends to memory (B, S, E'), or to itself if there is none -> (B, T, E).

        Args:
            query: the tokens that attend.
            memory: those that are attended to, or their :meth:`keys_values`.
            mask: who may attend to whom, besides the mask of the constructor.
            cache: in self-attention, the tokens before these, which go into it.
        """
        q, k, v = self.project(query, memory, cache)
        heads = self.kernel(
            q, k, v, self.mechanism, mask=merged(self.mask, mask), dropout=self.dropout if self.training else 0.0
        )
        return self.output(heads.transpose(1, 2).flatten(2))

    def project(
        self, query: Tensor, memory: Tensor | KeyValues | None = None, cache: KeyValueCache | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """What the kernel gets: q (B, N, T, D), k and v (B, M, S, D), told where they stand."""
        if memory is not None:
            weight, bias = self._rows(0, self.dim)
            q = self._split(F.linear(query, weight, bias), self.heads)
            k, v = memory if isinstance(memory, KeyValues) else self.keys_values(memory)
            return q, k, v
        q, k, v = (
            self._split(part, heads)
            for part, heads in zip(
                self.qkv(query).split(self.widths, -1), (self.heads, self.kv_heads, self.kv_heads), strict=True
            )
        )
        q, k = self.position.at_query_key(q, k, 0 if cache is None else cache.length)
        if cache is not None:
            k, v = cache.extend(k, v)
        return q, k, v

    def keys_values(self, memory: Tensor) -> KeyValues:
        """Keys and values of a memory (B, S, E'), for several calls."""
        weight, bias = self._rows(self.dim, sum(self.widths))
        k, v = F.linear(memory, weight, bias).split(self.widths[1:], -1)
        return KeyValues(self._split(k, self.kv_heads), self._split(v, self.kv_heads))

    def _rows(self, first: int, last: int) -> tuple[Tensor, Tensor | None]:
        """These rows of the packed projection."""
        if self.from_memory is not None and first:
            return self.from_memory.weight, self.from_memory.bias
        bias = self.qkv.bias
        return self.qkv.weight[first:last], None if bias is None else bias[first:last]

    @staticmethod
    def _split(projected: Tensor, heads: int) -> Tensor:
        """(B, T, heads * D) -> a view (B, heads, T, D), whose last dimension stays contiguous."""
        return projected.unflatten(-1, (heads, -1)).transpose(1, 2)


def check_kernel(name: KernelName, mechanism: Mechanism, dropout: float, mask: Mask | None) -> KernelName:
    """The name of a kernel that can compute what is asked for.

    Raises:
        ValueError: it cannot; those that can are named.
    """
    if name not in KERNELS:
        raise ValueError(f"kernel must be one of {', '.join(KERNELS)}, got {name!r}")
    refusal = KERNELS[name].refuses(mechanism, dropout=dropout, mask=mask)
    if refusal is not None:
        able = [other for other in KERNELS if KERNELS[other].refuses(mechanism, dropout=dropout, mask=mask) is None]
        raise ValueError(f"kernel={name} cannot compute this: {refusal}; {' or '.join(able)} can")
    return name


def check_heads(dim: int, heads: int) -> None:
    """The heads must divide the features of a token.

    Raises:
        ValueError: they do not; those that do are named.
    """
    if dim < 1:
        raise ValueError(f"dim must be at least 1, got {dim}")
    if heads < 1 or dim % heads:
        divisors = [n for n in range(1, dim + 1) if dim % n == 0]
        raise ValueError(f"heads must divide the {dim} features of a token: one of {divisors}, got {heads}")


def _check_sizes(dim: int, heads: int, kv_heads: int | None, dropout: float) -> None:
    check_heads(dim, heads)
    if kv_heads is not None and (kv_heads < 1 or heads % kv_heads):
        divisors = [n for n in range(1, heads + 1) if heads % n == 0]
        raise ValueError(f"kv_heads must divide the {heads} heads: one of {divisors}, got {kv_heads}")
    if not 0 <= dropout < 1:
        raise ValueError(f"dropout must be in [0, 1), got {dropout}")
