"""What a position is: an encoding of where tokens stand, which may act at three points of attention.

    tokens -- at_input --> x -- projections --> q, k -- at_query_key --> q', k' -- score + bias --> weights

Shapes: B batch, N heads, M heads of keys, T queries, S keys, D features of a head, E features of a token.
"""

from abc import ABC

from torch import Tensor, nn


class Position(nn.Module, ABC):
    """Does nothing at any of the three points, unless a subclass overrides it.

    A subclass that names ``dim`` (E), ``heads`` (N), ``head_dim`` (D), ``max_length``, ``causal`` or, of an image,
    ``size`` (H, W) in its constructor is given them by the module that owns it.
    """

    max_length: int | None = None
    """The longest sequence that it can encode; None: any."""
    heads: int | None = None
    """N, if its bias differs between heads."""
    has_bias: bool = False
    """Whether there is a bias on the scores."""
    learns_bias: bool = False
    """Whether the bias has parameters: fused kernels then leave their fast path on a CPU."""
    computes_bias: bool = False
    """Whether the bias comes from a network, for all pairs together; FlexAttention asks for one pair at a time."""
    reads_scores: bool = False
    """Whether it adds :meth:`of_scores`; kernels that show no scores cannot compute it."""

    @property
    def is_at_input(self) -> bool:
        """Whether it leaves queries, keys and scores unchanged."""
        acts = self.has_bias or self.reads_scores
        return type(self).at_query_key is Position.at_query_key and not acts

    def at_input(self, x: Tensor, first: int = 0) -> Tensor:
        """The tokens x (B, T, E) that stand at ``first``, first + 1, ..., before the first layer."""
        return x

    def at_query_key(self, query: Tensor, key: Tensor, first: int = 0) -> tuple[Tensor, Tensor]:
        """query (B, N, T, D) and key (B, M, T, D) of the tokens that stand at ``first``, first + 1, ... in
        self-attention. Keys in a cache have been encoded already."""
        return query, key

    def bias(self, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        """What is added to the score of a pair: integer tensors that broadcast -> float."""
        raise NotImplementedError(f"{type(self).__name__} has no bias")

    def of_scores(self, query: Tensor, scores: Tensor, allowed: Tensor | None) -> Tensor:
        """What is added to the scores (..., N, T, S) of query (..., N, T, D or more), where ``allowed``, which
        broadcasts, says which keys each may attend to; those that are not there are masked for all of them."""
        raise NotImplementedError(f"{type(self).__name__} reads no scores")


class NoPosition(Position):
    """No encoding: for sets, or where something else encodes the position."""
