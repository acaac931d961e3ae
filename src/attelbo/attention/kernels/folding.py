"""Local attention: runs of queries become a batch of small problems, each with the keys around it.

The queries are cut into G runs of R. Run g sees the keys of its own run and of as many runs before and behind as the
mask reaches: P keys instead of S, in one batch of G small problems. Time and memory are O(T P), and no mask is larger.

Source: the sliding window of Beltagy, Peters & Cohan 2020, "Longformer", section 3.1 and appendix A, whose chunks
overlap as these do.

Shapes: B batch, N heads, M heads of keys and values, T queries, S keys, G runs of R queries, P keys in range of a run,
D features of a head, V of a value.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from attelbo.attention.kernels.base import Mechanism
from attelbo.attention.kernels.eager import weights_of
from attelbo.attention.kernels.sdpa import fused
from attelbo.attention.masks import Mask

SHORTEST_RUN = 32
"""The matrix products of shorter runs are too small to be fast."""


@dataclass(frozen=True)
class Folding:
    """How queries and keys are cut into runs."""

    run: int
    """R."""
    before: int
    """Runs in range before each run."""
    behind: int
    """Runs in range after it."""

    @property
    def sight(self) -> int:
        """P."""
        return (self.before + 1 + self.behind) * self.run


def folding_of(mask: Mask | None, n_queries: int, n_keys: int, offset: int) -> Folding | None:
    """The best cut for a local mask; None if it shows more than half of the keys."""
    reach = max(mask.reach(1, offset)) if mask is not None else n_keys
    if mask is None or 2 * reach >= n_keys:
        return None
    found = []
    for length in {-(-reach // 2) or 1, reach + 1}:
        run = length * -(-SHORTEST_RUN // length)
        before, behind = mask.reach(run, offset)
        found.append(Folding(run, -(-before // run), -(-behind // run)))
    best = min(found, key=lambda folding: folding.sight)
    return best if 2 * best.sight < n_keys and best.run < n_queries else None


def attend_nearby(
    asked: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mechanism: Mechanism,
    mask: Mask,
    offset: int,
    dropout: float,
    folding: Folding,
    use_fused: bool,
) -> Tensor:
    """Query and key after the maps of the score, value (B, M, S, V) -> (B, N, T, V).

    Args:
        asked: (B, N, T, D), the query before them.
        query: (B, N, T, D').
        key: (B, M, S, D''), M = N unless ``use_fused``.
        value: (B, M, S, V), likewise.
        mechanism: what is computed.
        mask: who may attend to whom, within the range of ``folding``.
        offset: the position of the first query.
        dropout: the probability with which a weight is dropped.
        folding: how it is cut.
        use_fused: whether PyTorch's fused kernel is to compute the small problems.
    """
    (n_rows, _, n_queries, _), n_keys, device = query.shape, key.shape[2], query.device
    n_runs = -(-n_queries // folding.run)
    query = _in_runs(query, n_runs, folding).flatten(0, 1)  # (B G, N, R, D')
    key, value = (_in_sight(part, offset, n_runs, folding) for part in (key, value))  # (B G, M, P, ...)
    run = torch.arange(n_runs, device=device)[:, None, None, None]
    first_key = offset - folding.before * folding.run
    at_query = offset + folding.run * run + torch.arange(folding.run, device=device)[:, None]  # (G, 1, R, 1)
    at_key = first_key + folding.run * run + torch.arange(folding.sight, device=device)  # (G, 1, 1, P)
    there = (at_key >= 0) & (at_key < n_keys)
    # Positions beyond both ends are masked; masks and biases are evaluated at clamped positions.
    at_query, at_key = at_query.clamp(max=offset + n_queries - 1), at_key.clamp(0, n_keys - 1)
    batch = torch.arange(mask.batch_size or 1, device=device)[:, None, None, None, None]
    allowed = mask.allowed(batch, at_query, at_key) & there  # (B or 1, G, 1, R, P)
    if use_fused:
        allowed = allowed.expand(n_rows, -1, -1, -1, -1).flatten(0, 1)
        attended = fused(query, key, value, mechanism, allowed=allowed)
    else:
        bias = None
        if mechanism.position.has_bias:
            head = torch.arange(query.shape[1], device=device)[:, None, None]
            bias = mechanism.position.bias(head, at_query, at_key)
        scores = mechanism.score.compared(query, key).unflatten(0, (n_rows, n_runs))
        if mechanism.position.reads_scores:
            asked = _in_runs(asked, n_runs, folding)
        weights = weights_of(scores, mechanism, bias, allowed, asked).flatten(0, 1)
        if dropout > 0:
            weights = F.dropout(weights, dropout)
        attended = weights @ value
    return attended.unflatten(0, (n_rows, n_runs)).transpose(1, 2).flatten(2, 3)[:, :, :n_queries]


def _in_runs(query: Tensor, n_runs: int, folding: Folding) -> Tensor:
    """(B, N, T, D) -> (B, G, N, R, D), with zeros behind the last."""
    query = F.pad(query, (0, 0, 0, n_runs * folding.run - query.shape[2]))
    return query.unflatten(2, (n_runs, folding.run)).transpose(1, 2)


def _in_sight(tensor: Tensor, offset: int, n_runs: int, folding: Folding) -> Tensor:
    """Keys or values (B, M, S, D) -> (B G, M, P, D): those in range of each run of queries, zeros beyond both ends."""
    run, sight = folding.run, folding.before + 1 + folding.behind
    first, last = offset - folding.before * run, offset + (n_runs + folding.behind) * run
    low = min(max(first, 0), tensor.shape[2])
    there, missing = tensor[:, :, low:last], max(-first, 0)
    tensor = F.pad(there, (0, 0, missing, last - first - missing - there.shape[2]))
    runs = tensor.unflatten(2, (n_runs + sight - 1, run)).transpose(1, 2)  # (B, G + ..., M, R, D)
    shifted = [runs[:, i : i + n_runs] for i in range(sight)]
    return torch.cat(shifted, 3).flatten(0, 1)
