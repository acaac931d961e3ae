"""Gated attention: a sigmoid gate on the outputs of the heads, computed from the query token.

    output = (sigmoid(x W_g) * [head_1, ..., head_N]) W_o

Source: Qiu et al. 2025, "Gated Attention for Large Language Models: Non-linearity, Sparsity, and Attention-Sink-Free",
section 2.2, eq. 5, at position G1 (after the attention), which they found best; x is the input of the query projection.

Shapes: B batch, T queries, E features of a token, N heads, D features of a head.
"""

from typing import Literal

from torch import Tensor, nn

from attelbo.attention.kernels import KernelName
from attelbo.attention.layer import join_heads
from attelbo.attention.masks import Mask
from attelbo.attention.multi_head import MultiHeadAttention
from attelbo.attention.normalizers import Normalizer
from attelbo.attention.positions import Position
from attelbo.attention.scores import Score


class GatedAttention(MultiHeadAttention):
    """Multi-head attention whose heads pass a gate between 0 and 1 before they are combined.

    Args:
        gate: one for each "head", or one for each "element" of the heads.
        dim, heads, kv_heads, memory_dim, score, normalizer, position, mask, soft_cap, dropout, bias, kernel: as in
            ``MultiHeadAttention``.

    Raises:
        ValueError: no such gate; those of ``MultiHeadAttention``.
    """

    def __init__(
        self,
        dim: int,
        heads: int,
        *,
        gate: Literal["head", "element"] = "element",
        kv_heads: int | None = None,
        memory_dim: int | None = None,
        score: Score | None = None,
        normalizer: Normalizer | None = None,
        position: Position | None = None,
        mask: Mask | None = None,
        soft_cap: float | None = None,
        dropout: float = 0.0,
        bias: bool = True,
        kernel: KernelName = "auto",
    ) -> None:
        if gate not in ("head", "element"):
            raise ValueError(f"gate must be head or element, got {gate!r}")
        super().__init__(
            dim,
            heads,
            kv_heads=kv_heads,
            memory_dim=memory_dim,
            score=score,
            normalizer=normalizer,
            position=position,
            mask=mask,
            soft_cap=soft_cap,
            dropout=dropout,
            bias=bias,
            kernel=kernel,
        )
        self.gate = nn.Linear(dim, heads if gate == "head" else dim, bias=bias)
        nn.init.xavier_uniform_(self.gate.weight)
        if bias:
            nn.init.zeros_(self.gate.bias)

    def combine(self, heads: Tensor, query: Tensor) -> Tensor:
        share = self.gate(query).sigmoid().unflatten(-1, (self.heads, -1))  # (B, T, N, 1 or D)
        return self.output(join_heads(heads * share.transpose(1, 2)))
