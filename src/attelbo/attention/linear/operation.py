"""Linear attention: sums over keys, taken once for all queries.

Katharopoulos, Vyas, Pappas & Fleuret 2020, "Transformers are RNNs", arXiv:2006.16236:

    out_t = phi(q_t)^T S_t / (phi(q_t) . z_t),   S_t = sum_s phi(k_s) v_s^T,   z_t = sum_s phi(k_s)

over all keys (eq. 5), or over s <= t (eq. 9 to 12), where (S, z) is the state of a recurrent network (eq. 18 to 20).
z is S for a value that is 1, so values get such a feature, and the division comes last.

Shapes: B batch, N heads, T queries, S keys, F features of phi, V features of a value, M chunks of C tokens.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

CHUNK = 128
"""The most tokens that interact in pairs; between chunks, sums are passed on."""


def linear_attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Features of queries (B, N, T, F) and keys (B, N, S, F), value (B, N, S, V) -> (B, N, T, V).

    O((T + S) F V) time; a key whose features are zero does not take part, and where all are, the output is zero.
    """
    return _divide(query @ (key.mT @ _with_one(value)))


def causal_linear_attention(
    query: Tensor, key: Tensor, value: Tensor, sums: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The same, where query t sees the keys s <= t, after those that are already in ``sums``.

    query, key (B, N, T, F), value (B, N, T, V), sums (B, N, F, V + 1) -> output (B, N, T, V) and the new sums.
    Tokens of a chunk interact in pairs, those before it as sums: no loop over tokens, O(T) time and memory. With T = 1
    it is a step of the recurrent form.
    """
    value = _with_one(value)
    length = query.shape[-2]
    query, key, value = (_in_chunks(t, max(1, -(-length // CHUNK))) for t in (query, key, value))  # (B, N, M, C, ...)
    own = key.mT @ value  # (B, N, M, F, V + 1)
    out = (query @ key.mT).tril() @ value
    if sums is None and own.shape[2] == 1:
        states = own  # nothing is before the only chunk
    else:
        first = torch.zeros_like(own[:, :, :1]) if sums is None else sums.unsqueeze(2)
        states = torch.cat([first, own], 2).cumsum(2)  # before each chunk, and after the last
        out = query @ states[:, :, :-1] + out
    return _divide(out.flatten(2, 3)[:, :, :length]), states[:, :, -1]


def _with_one(value: Tensor) -> Tensor:
    return F.pad(value, (0, 1), value=1.0)


def _in_chunks(t: Tensor, n_chunks: int) -> Tensor:
    """(B, N, T, X) -> (B, N, M, C, X) with M as asked for and C as small as possible; zeros after the last token."""
    chunk = -(-t.shape[-2] // n_chunks)
    return F.pad(t, (0, 0, 0, n_chunks * chunk - t.shape[-2])).unflatten(-2, (n_chunks, chunk))


def _divide(out: Tensor) -> Tensor:
    """(..., V + 1) -> (..., V): weighted sums of values by the sum of the weights; zero where that is zero."""
    weighted, total = out[..., :-1], out[..., -1:]
    return weighted / torch.where(total == 0, 1.0, total)
