"""What a position is: three places at which attention may be told where its tokens stand.

    tokens -- at_input --> x -- projections --> q, k -- at_query_key --> q', k' -- score + bias --> weights

Shapes: B batch, N heads, M heads of keys, T queries, S keys, D features of a head, E features of a token.
"""

from abc import ABC

from torch import Tensor, nn


class Position(nn.Module, ABC):
    """Does nothing at any of the three places, unless a subclass says otherwise.

    A subclass that names ``dim`` (E), ``heads`` (N), ``head_dim`` (D), ``max_length``, ``causal`` or, of an image,
    ``size`` (H, W) in its constructor is given them by whoever owns it.
    """

    max_length: int | None = None
    """The most tokens that it can tell the places of; None: any number."""
    heads: int | None = None
    """N, where its bias is another for each head."""
    has_bias: bool = False
    """Whether there is a bias on the scores."""
    learns_bias: bool = False
    """Whether the bias has parameters: fused kernels then leave their fast path on a CPU."""

    @property
    def is_at_input(self) -> bool:
        """Whether nothing is told to queries, keys and scores."""
        return type(self).at_query_key is Position.at_query_key and not self.has_bias

    def at_input(self, x: Tensor, first: int = 0) -> Tensor:
        """The tokens x (B, T, E) that stand at ``first``, first + 1, ..., before the first layer."""
        return x

    def at_query_key(self, query: Tensor, key: Tensor, first: int = 0) -> tuple[Tensor, Tensor]:
        """query (B, N, T, D) and key (B, M, T, D) of the tokens that stand at ``first``, first + 1, ... in
        self-attention. What is kept of keys in a cache has been here already."""
        return query, key

    def bias(self, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        """What is added to the score of a pair: integer tensors that broadcast -> float."""
        raise NotImplementedError(f"{type(self).__name__} has no bias")


class NoPosition(Position):
    """Nothing: what attends are sets, or something else tells the places apart."""
