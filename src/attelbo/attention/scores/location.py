"""Location-based scores: of the query alone, with a vector for each position of the keys.

    score(q, position s) = w_s^T q

Source: Luong, Pham & Manning 2015, "Effective Approaches to Attention-based Neural Machine Translation", section
3.1, eq. 8 (location).

Shapes: B batch, N heads, T queries, S keys, D features of a head, L places.
"""

from torch import Tensor, nn

from attelbo.attention.scores.base import Score
from attelbo.attention.scores.matrices import glorot, per_head
from attelbo.checks import check_at_least


class Location(Score):
    """w_s^T q for the s-th key, whatever the key is; each head has its own vectors.

    Args:
        heads: N.
        head_dim: D.
        max_length: L; more keys are an error.

    Raises:
        ValueError: no max_length; in use: more keys than L.
    """

    def __init__(self, heads: int, head_dim: int, max_length: int | None) -> None:
        super().__init__()
        if max_length is None:
            raise ValueError("location scores need max_length: how many keys there are at most")
        check_at_least(1, max_length=max_length)
        self.weight = nn.Parameter(glorot(heads, head_dim, max_length))

    def compare(self, query: Tensor, key: Tensor) -> Tensor:
        n_keys, most = key.shape[-2], self.weight.shape[-1]
        if n_keys > most:
            raise ValueError(f"location scores know {most} places, got {n_keys} keys: max_length is too small")
        return per_head(query, self.weight[..., :n_keys])
