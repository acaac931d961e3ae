"""Exact attention in O(T + S) memory, for every normalizer, bias and soft cap: by chunks of queries.

A mask that shows only what is near is computed in one batch of small problems (``folding``). Otherwise each chunk of
queries attends to the keys in its range, and its weights are not kept: they are recomputed in the backward pass.

Source: Rabe & Staats 2021, "Self-attention Does Not Need O(n^2) Memory", which also cuts the keys; ours does not, so
that normalizers that sort can be computed too, and memory is O(S) for each query of a chunk.

Shapes: B batch, N heads, M heads of keys and values, T queries, S keys, C queries in a chunk, D features of a head, V
of a value.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from attelbo.attention.kernels.base import Call, Kernel, Mechanism, dense_bias, grouped
from attelbo.attention.kernels.eager import weights_of
from attelbo.attention.kernels.folding import attend_nearby, folding_of
from attelbo.attention.kernels.sdpa import Sdpa, fused, is_plain
from attelbo.attention.masks import Mask
from attelbo.attention.scores import Location

CHUNK_NUMBERS = 1 << 21
"""Scores of a chunk, of all rows and heads together: 8 MB, which the cache of a CPU holds."""
SHORTEST_CHUNK = 32

_SDPA = Sdpa()
_private: Any = torch._C  # there is no public way to ask


class Chunked(Kernel):
    """Computes what eager does, a chunk at a time, with PyTorch's fused kernel where that can compute a chunk.

    Under ``torch.vmap``, as with replicas, weights are kept: recomputation does not work there.
    """

    name = "chunked"

    def refuses(self, mechanism: Mechanism, *, dropout: float, mask: Mask | None) -> str | None:
        if isinstance(mechanism.score, Location):
            return "location scores count keys from the first, and it leaves out those that are masked"
        return None

    def describe(self, mechanism: Mechanism, mask: Mask | None, call: Call) -> str:
        folding = folding_of(mask, call.n_queries, call.n_keys, call.offset)
        if folding is not None:
            return f"runs of {folding.run} queries with {folding.sight} keys in sight"
        n_rows = call.batch_size * call.n_heads * mechanism.score.numbers_per_pair
        if _can_fuse(mechanism, call.dropout):
            if is_plain(mask, call.n_queries, call.n_keys, call.offset):
                return "as sdpa"
            n_rows = (mask.batch_size or 1) if mask is not None else n_rows
        length = chunk_length(n_rows, call.n_queries, call.n_keys)
        if length == call.n_queries:
            return "all queries in one chunk"
        return f"chunks of {length} queries{', computed twice' if call.training else ''}"

    def compute(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        mechanism: Mechanism,
        mask: Mask | None,
        offset: int,
        dropout: float,
    ) -> Tensor:
        score, n_heads, n_queries, n_keys = mechanism.score, query.shape[1], query.shape[2], key.shape[2]
        use_fused = _can_fuse(mechanism, dropout)
        if not use_fused:
            key, value = grouped(key, n_heads), grouped(value, n_heads)
        asked, query, key = query, score.at_query(query), score.at_key(key)
        folding = folding_of(mask, n_queries, n_keys, offset)
        if mask is not None and folding is not None:
            return attend_nearby(asked, query, key, value, mechanism, mask, offset, dropout, folding, use_fused)
        if use_fused and is_plain(mask, n_queries, n_keys, offset):
            return fused(query, key, value, mechanism, causal=mask is not None)

        def attend(query: Tensor, key: Tensor, value: Tensor, at: int, low: int) -> Tensor:
            """Queries at ``at`` and on attend to keys from ``low`` on."""
            n, high = query.shape[2], low + key.shape[2]
            allowed = None
            if mask is not None and not mask.allows_all(n, high, at):
                allowed = mask.dense(n, high - low, offset=at, first_key=low, device=query.device)
            if use_fused:
                return fused(query, key, value, mechanism, allowed=allowed)
            bias = dense_bias(mechanism, n_heads, n, high - low, at, query.device, low)
            scores, first = score.compared(query, key), at - offset
            weights = weights_of(scores, mechanism, bias, allowed, asked[:, :, first : first + n])
            if dropout > 0:
                weights = F.dropout(weights, dropout)
            return weights @ value

        # What is fused keeps no weights, but its mask.
        n_rows = (mask.batch_size or 1) if use_fused and mask is not None else len(query) * n_heads
        n_rows *= score.numbers_per_pair
        length = chunk_length(n_rows, n_queries, n_keys)
        forget = length < n_queries and torch.is_grad_enabled() and not _private._functorch.is_batchedtensor(query)
        chunks = []
        for first in range(0, n_queries, length):
            part, at = query[:, :, first : first + length], offset + first
            low, high = keys_in_range(mask, at, at + part.shape[2] - 1, n_keys)
            given = (part, key[:, :, low:high], value[:, :, low:high], at, low)
            if forget:
                # The state of the generator is kept only where it matters: a CUDA graph could not.
                chunks.append(checkpoint(attend, *given, use_reentrant=False, preserve_rng_state=dropout > 0))
            else:
                chunks.append(attend(*given))
        return chunks[0] if len(chunks) == 1 else torch.cat(chunks, 2)


def _can_fuse(mechanism: Mechanism, dropout: float) -> bool:
    fits = _SDPA.refuses(mechanism, dropout=dropout, mask=None) is None
    return fits and dropout == 0 and not mechanism.position.has_bias


def chunk_length(n_rows: int, n_queries: int, n_keys: int) -> int:
    """C, given the numbers held for each query and key, over all rows and heads; T if all queries fit into one
    chunk."""
    return min(n_queries, max(SHORTEST_CHUNK, CHUNK_NUMBERS // max(n_rows * n_keys, 1)))


def keys_in_range(mask: Mask | None, first: int, last: int, n_keys: int) -> tuple[int, int]:
    """[low, high) of the keys that some query in first..last may attend to; never empty."""
    if mask is None:
        return 0, n_keys
    low, high = mask.key_range(first, last)
    low = min(max(low, 0), n_keys - 1)
    return low, min(max(high, low + 1), n_keys)
