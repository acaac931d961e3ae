"""The choice of a kernel, by what is known without reading any tensor: sizes, mask, mechanism, device.

Measured on a CPU (``benchmarks/attention.py``, docs/attention.md): PyTorch's fused kernel is the fastest from 16 tokens
on, in training and out of it, wherever it is fused; where a mask shows less than half of the keys, leaving out the
others is faster. Where it is not fused, it takes as long as the reference. Chunks beat both where they skip keys, as
under a causal mask; otherwise they cost a third more, for the second forward pass, and are chosen to save memory.

Shapes: B batch, N heads, T queries, S keys.
"""

from torch import Tensor

from attelbo.attention.kernels.base import Call, Kernel, Mechanism
from attelbo.attention.kernels.chunked import Chunked, chunk_length, keys_in_range
from attelbo.attention.kernels.eager import Eager
from attelbo.attention.kernels.folding import folding_of
from attelbo.attention.kernels.sdpa import Sdpa, is_plain
from attelbo.attention.masks import Mask

MANY_WEIGHTS = 1 << 24
"""More than these (64 MB, kept several times over) are avoided if another kernel can."""

_EAGER, _SDPA, _CHUNKED = Eager(), Sdpa(), Chunked()


class Auto(Kernel):
    """The fastest of the others that can compute a call, given its sizes."""

    name = "auto"

    def refuses(self, mechanism: Mechanism, *, dropout: float, mask: Mask | None) -> str | None:
        return None

    def describe(self, mechanism: Mechanism, mask: Mask | None, call: Call) -> str:
        kernel, _ = choose(mechanism, mask, call)
        return kernel.describe(mechanism, mask, call)

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
        kernel, _ = choose(mechanism, mask, Call.of(query, key, value, dropout=dropout, offset=offset))
        return kernel.compute(query, key, value, mechanism, mask, offset, dropout)


def choose(mechanism: Mechanism, mask: Mask | None, call: Call) -> tuple[Kernel, str]:
    """The kernel for a call, and why."""
    can_fuse = _SDPA.refuses(mechanism, dropout=call.dropout, mask=mask) is None
    can_cut = _CHUNKED.refuses(mechanism, dropout=call.dropout, mask=mask) is None
    seen = _in_sight(mask, call)
    if can_cut and 2 * seen < call.n_keys:
        return _CHUNKED, f"the mask shows {seen} of {call.n_keys} keys to queries that are neighbours"
    unfused = None
    if call.device == "cpu":
        unfused = _SDPA.leaves_fused_path(mechanism, dropout=call.dropout, training=call.training)
    if can_fuse and unfused is None:
        n_dense = _n_dense(mechanism, mask, call)
        if can_cut and n_dense > MANY_WEIGHTS:
            return _CHUNKED, f"PyTorch's fused kernel would need {n_dense:,} numbers of mask and bias, too many to keep"
        return _SDPA, "PyTorch's fused kernel can compute it and keeps no weights"
    reason = f"not fused on a CPU, since {unfused}" if can_fuse else "no fused kernel can compute it"
    n_numbers = call.n_weights * mechanism.score.numbers_per_pair
    of_each = "" if n_numbers == call.n_weights else f", {mechanism.score.numbers_per_pair} numbers for each"
    reason = f"{reason}; there are {call.n_weights:,} weights{of_each}"
    if can_cut and n_numbers > MANY_WEIGHTS:
        return _CHUNKED, f"{reason}, too many to keep"
    if can_cut and _chunks_spare_keys(mechanism, mask, call):
        return _CHUNKED, f"{reason}, and chunks of queries see fewer keys"
    return (_SDPA if can_fuse else _EAGER), reason


def _in_sight(mask: Mask | None, call: Call) -> int:
    """The number of keys that a run of neighbouring queries may attend to."""
    if mask is None:
        return call.n_keys
    folding = folding_of(mask, call.n_queries, call.n_keys, call.offset)
    if folding is not None:
        return folding.sight
    low, high = keys_in_range(mask, call.offset, call.offset + call.n_queries - 1, call.n_keys)
    return high - low


def _n_dense(mechanism: Mechanism, mask: Mask | None, call: Call) -> int:
    """The numbers of the dense mask or bias that the fused kernel would need."""
    n_rows = 1 if mask is None or mask.batch_size is None else mask.batch_size
    if mechanism.position.has_bias:
        n_rows *= call.n_heads
    elif is_plain(mask, call.n_queries, call.n_keys, call.offset):
        return 0
    return n_rows * call.n_queries * call.n_keys


def _chunks_spare_keys(mechanism: Mechanism, mask: Mask | None, call: Call) -> bool:
    """Whether there are several chunks, and the first half of the queries sees fewer keys."""
    n_rows = call.batch_size * call.n_heads * mechanism.score.numbers_per_pair
    length = chunk_length(n_rows, call.n_queries, call.n_keys)
    low, high = keys_in_range(mask, call.offset, call.offset + call.n_queries // 2, call.n_keys)
    return length < call.n_queries and high - low < call.n_keys
