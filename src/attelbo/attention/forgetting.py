"""Forgetting attention: in each head, every token has a forget gate on the tokens before it.

    f_t = sigmoid(<w_n, x_t> + b_n),   c_t = log f_1 + ... + log f_t
    weights_t = normalizer over s <= t of score(q_t, k_s) + c_t - c_s

The added term is the logarithm of the product of the gates f_(s+1) ... f_t, a bias; where all gates are equal, f_t =
exp(-slope), it is ALiBi's. Since it is a dot product too, it goes into the queries and keys, and any kernel for dot
products computes it, fused and without a bias (T, S):

    <q_t, k_s> + c_t - c_s = <[q_t, c_t, 1], [k_s, 1, -c_s]>

Source: Lin, Nikishin, He & Courville 2025, "Forgetting Transformer: Softmax Attention with a Forget Gate", section 3
(FoX; their kernel takes c besides the queries and keys).

Shapes: B batch, T queries, S keys, E features of a token, N heads, M heads of keys and values, R = N / M that share, D
features of a head, P parts of a sum.
"""

from typing import Unpack

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attelbo.attention.cache import KeyValueCache, KeyValues
from attelbo.attention.masks import Causal, Mask, merged
from attelbo.attention.multi_head import AttentionOptions, MultiHeadAttention
from attelbo.attention.precision import full_precision
from attelbo.attention.scores import Lengthened, ScaledDot

UNIT = 256.0
"""The unit of the sums, in nats: float16 ends at 65,504."""


class ForgettingAttention(MultiHeadAttention):
    """Causal multi-head attention with a forget gate for each head; without gates where it attends to a memory, whose
    tokens are neither before nor after the queries.

    The gates always have a bias; those of padding are 1. A cache holds N more numbers for each token: log f.

    Args:
        causal: whether it is self-attention, and has gates; else it is for a memory only.
        dim, heads, options: as in ``MultiHeadAttention``; the score must be a dot product.

    Raises:
        ValueError: a score that is no dot product, a position where it is not causal; those of ``MultiHeadAttention``.
    """

    def __init__(
        self,
        dim: int,
        heads: int,
        *,
        causal: bool = True,
        **options: Unpack[AttentionOptions],
    ) -> None:
        head_dim, _ = self.head_features(dim, heads, **options)
        if not causal and options.get("position") is not None:
            raise ValueError(
                "forgetting attention looks back only: tokens that see those after them too take MultiHeadAttention"
            )
        score = options.get("score") or ScaledDot(head_dim)
        options["score"] = Lengthened(score, head_dim, "forgetting attention has its gates")
        super().__init__(dim, heads, **options)
        self.forget = nn.Linear(dim, heads) if causal and self.from_memory is None else None
        if self.forget is not None:
            nn.init.xavier_uniform_(self.forget.weight)
            nn.init.zeros_(self.forget.bias)

    def project(
        self, query: Tensor, memory: Tensor | KeyValues | None = None, cache: KeyValueCache | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """As in ``MultiHeadAttention``; in self-attention keys have log f as R further features.

        Raises:
            ValueError: self-attention of what is not causal.
        """
        if memory is not None:
            return super().project(query, memory)
        if self.forget is None:
            raise ValueError("forgetting attention that is not causal is for a memory: it has no gates")
        q, k, v = self.placed(query, 0 if cache is None else cache.length)
        gates = F.logsigmoid(self.forget(query)).unflatten(-1, (self.kv_heads, -1)).transpose(1, 2)  # (B, M, T, R)
        k = torch.cat([k, gates.to(k.dtype)], -1)
        if cache is not None:
            k, v = cache.extend(k, v)
        return q, k, v

    def attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Mask | None) -> Tensor:
        q, k, mask = self._with_gates(q, k, mask)
        return super().attend(q, k, v, mask)

    def attention_weights(self, q: Tensor, k: Tensor, mask: Mask | None) -> Tensor:
        return super().attention_weights(*self._with_gates(q, k, mask))

    def _with_gates(self, q: Tensor, k: Tensor, mask: Mask | None) -> tuple[Tensor, Tensor, Mask | None]:
        """Queries and keys with the sums of log gates as further features, (B, N, T, D + P + P R) and (B, M, S, D + P +
        P R), and a causal mask; for a memory all are unchanged."""
        n_features, n_queries, n_keys = q.shape[-1], q.shape[2], k.shape[2]
        if k.shape[-1] == n_features:
            return q, k, mask
        if mask is None or mask.reach(1, 0)[1] > 0:
            mask = merged(Causal(), mask)
        gates = full_precision(k[..., n_features:])
        present = None if mask is None else mask.present(n_keys)
        if present is not None:
            gates = gates.masked_fill(~present[:, None, :, None], 0.0)
        sums = gates.cumsum(2) / UNIT  # (B, M, S, R)
        of_query = sums[:, :, n_keys - n_queries :].transpose(2, 3).flatten(1, 2).unsqueeze(-1)  # (B, N, T, 1)
        own_c, c = (_parts(each, q.dtype) for each in (of_query, sums))
        n_parts, shared = own_c.shape[-1], sums.shape[-1]
        # A query selects the sums of its own head among those of the heads that share a key.
        own_head = UNIT * torch.eye(shared, dtype=q.dtype, device=q.device).repeat(self.kv_heads, n_parts)
        asked = own_head[:, None].expand(len(q), -1, n_queries, -1)
        units = torch.full_like(c[..., :1], UNIT).expand(-1, -1, -1, n_parts)
        return torch.cat([q, own_c, asked], -1), torch.cat([k[..., :n_features], units, -c], -1), mask


def _parts(sums: Tensor, dtype: torch.dtype) -> Tensor:
    """(..., R) -> (..., P R) of this type, which add up to the sums: three of 8 bits each, which neither bfloat16 nor
    the products of float32 on a GPU (TF32) round; in float64 the sums themselves."""
    if dtype == torch.float64:
        return sums
    rest, parts = sums.detach(), []
    for _ in range(3):
        parts.append(rest.bfloat16().to(rest.dtype))
        rest = rest - parts[-1]
    parts[0] = parts[0] + (sums - sums.detach())  # 0: it has the gradient of them all
    return torch.cat(parts, -1).to(dtype)
