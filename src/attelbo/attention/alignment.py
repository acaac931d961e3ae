"""Attention from a decoder's states to an encoder's: which part of the source is being translated.

    weights = normalizer(score(s, h_1), ..., score(s, h_S));   output = sum_j weights_j h_j + s

Source: Bahdanau, Cho & Bengio 2015, "Neural Machine Translation by Jointly Learning to Align and Translate", eq. 4-6,
and, for other scores, Luong, Pham & Manning 2015, "Effective Approaches to Attention-based Neural Machine Translation".
Both concatenate context and state; here the state is added, as around the layers of a transformer.

Shapes: B batch, T query states, S memory states, D features of the former, E of the latter.
"""

from torch import Tensor, nn

from attelbo.attention.cache import KeyValues
from attelbo.attention.masks import Mask
from attelbo.attention.normalizers import Normalizer, Softmax
from attelbo.attention.scores import Score
from attelbo.checks import check_at_least


class Attention(nn.Module):
    """One head, whose keys and values are the encoder's states, or a linear layer of them if E is not D.

    Args:
        dim: D.
        memory_dim: E; D if None.
        score: how well a memory state matches a query state; of one head with D features.
        normalizer: from scores to weights; softmax if None.

    Raises:
        ValueError: a size below 1.
    """

    def __init__(
        self, dim: int, memory_dim: int | None = None, *, score: Score, normalizer: Normalizer | None = None
    ) -> None:
        super().__init__()
        memory_dim = dim if memory_dim is None else memory_dim
        check_at_least(1, dim=dim, memory_dim=memory_dim)
        self.score = score
        self.normalizer = normalizer or Softmax()
        self.projection = nn.Identity() if memory_dim == dim else nn.Linear(memory_dim, dim, bias=False)

    def forward(self, query: Tensor, memory: Tensor | KeyValues, *, mask: Mask | None = None) -> tuple[Tensor, Tensor]:
        """query (B, T, D) attends to memory (B, S, E) -> output (B, T, D), weights (B, T, S).

        Args:
            query: the decoder's states.
            memory: the encoder's, or their :meth:`keys_values`.
            mask: who may attend to whom; a state that may attend to nobody is returned as it is.
        """
        known = memory if isinstance(memory, KeyValues) else self.keys_values(memory)
        weights = self.weights(query, known, mask=mask)
        return (weights @ known.value).squeeze(1) + query, weights.squeeze(1)

    def weights(self, query: Tensor, memory: Tensor | KeyValues, *, mask: Mask | None = None) -> Tensor:
        """The weights as (B, 1, T, S), one head; arguments as in :meth:`forward`."""
        key, _ = memory if isinstance(memory, KeyValues) else self.keys_values(memory)
        scores = self.score.compared(self.score.at_query(query.unsqueeze(1)), key)
        allowed = None if mask is None else mask.dense(query.shape[1], key.shape[2], device=query.device)
        return self.normalizer(scores, allowed)

    def keys_values(self, memory: Tensor) -> KeyValues:
        """The score's keys of a memory (B, S, E), and its values (B, 1, S, D), for several calls."""
        value = self.projection(memory).unsqueeze(1)
        return KeyValues(self.score.at_key(value), value)
