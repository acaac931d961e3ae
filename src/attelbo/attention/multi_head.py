"""Multi-head attention over tokens.

Source: Vaswani et al. 2017, "Attention Is All You Need", section 3.2.2.

    head_n = softmax(Q_n K_n^T / sqrt(D)) V_n,   Q = x W_q, K = m W_k, V = m W_v
    output = [head_1, ..., head_N] W_o

Shapes: B batch, T queries, S tokens of the memory m, E features of a token, N heads, D = E / N.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from attelbo.attention.kernels import KERNELS, KernelName


class MultiHeadAttention(nn.Module):
    """Self-attention over tokens (B, T, E), or cross-attention from them to a memory (B, S, E).

    The three input projections are one packed layer, laid out like ``torch.nn.MultiheadAttention``'s
    ``in_proj_weight``: one matrix product in self-attention, two in cross-attention.

    Args:
        dim: E.
        heads: N; must divide ``dim``.
        dropout: the probability with which an attention weight is dropped in training.
        kernel: how the heads are computed; "eager" where second derivatives are needed.

    Raises:
        ValueError: a size below 1, heads that do not divide ``dim``, a dropout outside [0, 1).
    """

    def __init__(self, dim: int, heads: int, *, dropout: float = 0.0, kernel: KernelName = "sdpa") -> None:
        super().__init__()
        if dim < 1:
            raise ValueError(f"dim must be at least 1, got {dim}")
        if heads < 1 or dim % heads:
            divisors = [n for n in range(1, dim + 1) if dim % n == 0]
            raise ValueError(f"heads must divide the {dim} features of a token: one of {divisors}, got {heads}")
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout must be in [0, 1), got {dropout}")
        if kernel not in KERNELS:
            raise ValueError(f"kernel must be one of {', '.join(KERNELS)}, got {kernel!r}")
        self.dim = dim
        self.heads = heads
        self.dropout = dropout
        self.scale = (dim // heads) ** -0.5
        self.kernel = KERNELS[kernel]
        self.qkv = nn.Linear(dim, 3 * dim)
        self.output = nn.Linear(dim, dim)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Glorot-uniform for each of the four projections by itself, biases zero."""
        for projection in (*self.qkv.weight.chunk(3), self.output.weight):
            nn.init.xavier_uniform_(projection)
        nn.init.zeros_(self.qkv.bias)
        nn.init.zeros_(self.output.bias)

    def forward(self, query: Tensor, memory: Tensor | None = None) -> Tensor:
        """query (B, T, E) attends to memory (B, S, E), or to itself if there is none -> (B, T, E)."""
        if memory is None:
            q, k, v = self._split(self.qkv(query), 3)
        else:
            weight, bias = self.qkv.weight, self.qkv.bias
            (q,) = self._split(F.linear(query, weight[: self.dim], bias[: self.dim]), 1)
            k, v = self._split(F.linear(memory, weight[self.dim :], bias[self.dim :]), 2)
        heads = self.kernel(q, k, v, scale=self.scale, dropout=self.dropout if self.training else 0.0)
        return self.output(heads.transpose(1, 2).flatten(2))

    def _split(self, projected: Tensor, parts: int) -> tuple[Tensor, ...]:
        """(B, T, parts * E) -> ``parts`` views (B, N, T, D), whose last dimension stays contiguous."""
        return projected.unflatten(-1, (parts, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
