"""What a layer of attention is: projections to heads, a kernel between them, and a projection back.

    tokens -- project --> q, k, v of each head -- kernel --> heads -- combine --> tokens

Its variants differ in how they project, and in what they make of the heads.

Shapes: B batch, T queries, S tokens of the memory, E features of a token, N heads, M heads of keys and values, D
features of a head's query and key, V of its value.
"""

from abc import ABC, abstractmethod
from typing import Any, NamedTuple, TypedDict

import torch
from torch import Tensor, nn

from attelbo.attention.cache import KeyValueCache, KeyValues
from attelbo.attention.kernels import KERNELS, Call, KernelName, Mechanism, attention_weights, explain
from attelbo.attention.masks import Mask, merged
from attelbo.attention.normalizers import Normalizer, Softmax
from attelbo.attention.positions import NoPosition, Position
from attelbo.attention.scores import ScaledDot, Score
from attelbo.checks import check_at_least, check_below_one, check_positive, divisors


class HeadFeatures(NamedTuple):
    """How many features of a head's query and key its score and its position are built for."""

    scored: int
    """D, which the score compares."""
    placed: int
    """Those that a position changes."""


class LayerOptions(TypedDict, total=False):
    """The arguments that every layer takes by keyword."""

    score: Score | None
    """How well a key matches a query; 1 / sqrt(D) times the dot product if None."""
    normalizer: Normalizer | None
    """From scores to weights; softmax if None."""
    position: Position | None
    """The encoding of where tokens stand; none if None."""
    mask: Mask | None
    """Who may attend to whom, in every call."""
    soft_cap: float | None
    """c, where scores become c tanh(score / c)."""
    dropout: float
    """The probability with which an attention weight is dropped in training."""
    kernel: KernelName
    """How the heads are computed: the fastest that can, for the sizes of each call, if "auto", which
    :meth:`AttentionLayer.explain` tells; "eager" where second derivatives are needed."""


class AttentionLayer(nn.Module, ABC):
    """Self-attention over tokens (B, T, E), or cross-attention from them to a memory (B, S, E').

    Args:
        dim: E.
        heads: N.
        head_dim: D.
        score, normalizer, position, mask, soft_cap, dropout, kernel: see :class:`LayerOptions`.

    Raises:
        ValueError: a dropout outside [0, 1), a position for another number of heads, a kernel that cannot compute this.
    """

    output: nn.Linear
    """Its last layer."""
    as_projected: bool = True
    """Whether kernels get queries that begin with those of :meth:`project`, and keys of tokens only, also while
    decoding; positions that read scores need both."""

    def __init__(
        self,
        dim: int,
        heads: int,
        head_dim: int,
        *,
        score: Score | None = None,
        normalizer: Normalizer | None = None,
        position: Position | None = None,
        mask: Mask | None = None,
        soft_cap: float | None = None,
        dropout: float = 0.0,
        kernel: KernelName = "auto",
    ) -> None:
        super().__init__()
        check_below_one(dropout=dropout)
        self.dim = dim
        self.heads = heads
        self.dropout = dropout
        self.mask = mask
        self.score = score or ScaledDot(head_dim)
        self.normalizer = normalizer or Softmax()
        self.position = position or NoPosition()
        if self.position.heads not in (None, heads):
            raise ValueError(f"position: the {type(position).__name__} is for {self.position.heads} heads, got {heads}")
        if self.position.reads_scores and not self.as_projected:
            raise ValueError(
                f"position: {type(position).__name__} counts tokens by the scores that queries give them, which "
                f"{type(self).__name__} changes; MultiHeadAttention does not"
            )
        if soft_cap is not None:
            check_positive(soft_cap=soft_cap)
        self.mechanism = Mechanism(self.score, self.normalizer, self.position, soft_cap)
        self.kernel = KERNELS[check_kernel(kernel, self.mechanism, dropout, mask)]
        self.last_call: Call | None = None

    @staticmethod
    def head_features(dim: int, heads: int, *, head_dim: int | None = None, **options: Any) -> HeadFeatures:
        """The head features of a layer with these arguments, needed to build its score and position before the
        layer.

        Raises:
            ValueError: a size below 1, heads that do not divide.
        """
        check_heads(dim, heads, head_dim)
        head_dim = dim // heads if head_dim is None else head_dim
        return HeadFeatures(head_dim, head_dim)

    def forward(
        self,
        query: Tensor,
        memory: Tensor | KeyValues | None = None,
        *,
        mask: Mask | None = None,
        cache: KeyValueCache | None = None,
    ) -> Tensor:
        """query (B, T, E) attends to memory (B, S, E'), or to itself if there is none -> (B, T, E).

        Args:
            query: the tokens that attend.
            memory: those that are attended to, or their :meth:`keys_values`.
            mask: who may attend to whom, besides the mask of the constructor.
            cache: in self-attention, the tokens before these, which go into it.

        Raises:
            ValueError: a query of another shape, or both a cache and a memory.
        """
        self.check_call(query, memory, cache)
        q, k, v = self.project(query, memory, cache)
        return self.combine(self.attend(q, k, v, self.masked(mask)), query)

    def check_call(self, query: Tensor, memory: Tensor | KeyValues | None, cache: KeyValueCache | None) -> None:
        """Raise ValueError for a query of another shape, or a cache beside a memory."""
        if query.dim() != 3 or query.shape[2] != self.dim:
            raise ValueError(f"tokens must be (B, T, {self.dim}), got {tuple(query.shape)}")
        if memory is not None and cache is not None:
            raise ValueError("a cache is for self-attention, not for attention to a memory")

    def cache(self, capacity: int) -> KeyValueCache:
        """An empty one, for up to ``capacity`` tokens."""
        return KeyValueCache(capacity)

    def weights(self, query: Tensor, memory: Tensor | KeyValues | None = None, *, mask: Mask | None = None) -> Tensor:
        """How much each head of each query attends to each key, (B, N, T, S), whatever the kernel; arguments as in
        :meth:`forward`. The weights times the values of :meth:`project` are what :meth:`combine` gets."""
        q, k, _ = self.project(query, memory)
        return self.attention_weights(q, k, self.masked(mask))

    def masked(self, mask: Mask | None) -> Mask | None:
        """Who may attend to whom in a call with this mask: to the keys as :meth:`attend` has them."""
        return merged(self.mask, mask)

    @abstractmethod
    def reset_parameters(self, gain: float = 1.0) -> None:
        """Initial weights, with a gain for those of values and output."""

    @abstractmethod
    def project(
        self, query: Tensor, memory: Tensor | KeyValues | None = None, cache: KeyValueCache | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """q (B, N, T, D), k (B, M, S, D) and v (B, M, S, V), with positions."""

    @abstractmethod
    def keys_values(self, memory: Tensor) -> KeyValues:
        """Keys and values of a memory (B, S, E'), for several calls."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Mask | None) -> Tensor:
        """The outputs of the heads: (B, N, T, V)."""
        dropout = self.dropout if self.training else 0.0
        if not torch.compiler.is_compiling():
            self.last_call = Call.of(q, k, v, dropout=dropout)
        return self.kernel(q, k, v, self.mechanism, mask=mask, dropout=dropout)

    def explain(
        self,
        n_queries: int | None = None,
        n_keys: int | None = None,
        *,
        batch_size: int = 1,
        mask: Mask | None = None,
        training: bool | None = None,
        device: torch.device | str | None = None,
    ) -> str:
        """Which kernel computes the heads and why, and what each of the others would do; a line for each.

        Args:
            n_queries: T; those of the last call if None.
            n_keys: S; T if None.
            batch_size: B.
            mask: besides that of the constructor.
            training: whether with dropout and gradients; as the module is now if None.
            device: the one of the parameters if None.

        Raises:
            ValueError: no sizes, and no call yet.
        """
        call = self.last_call
        if n_queries is not None:
            training = self.training if training is None else training
            device = next(self.parameters()).device if device is None else torch.device(device)
            dropout = self.dropout if training else 0.0
            n_keys = n_queries if n_keys is None else n_keys
            call = Call(batch_size, self.heads, n_queries, n_keys, n_keys - n_queries, dropout, training, device.type)
        if call is None:
            raise ValueError("there was no call yet: give the numbers of queries and keys")
        return explain(self.kernel.name, self.mechanism, self.masked(mask), call)

    def attention_weights(self, q: Tensor, k: Tensor, mask: Mask | None) -> Tensor:
        """The weights (B, N, T, S) that :meth:`attend` applies."""
        return attention_weights(q, k, self.mechanism, mask=mask)

    @abstractmethod
    def combine(self, heads: Tensor, query: Tensor) -> Tensor:
        """The outputs of the heads (B, N, T, V), and the query tokens (B, T, E) -> (B, T, E)."""


def split_heads(projected: Tensor, heads: int) -> Tensor:
    """(B, T, N D) -> a view (B, N, T, D), whose last dimension stays contiguous."""
    return projected.unflatten(-1, (heads, -1)).transpose(1, 2)


def join_heads(heads: Tensor) -> Tensor:
    """(B, N, T, D) -> (B, T, N D)."""
    return heads.transpose(1, 2).flatten(2)


def check_heads(dim: int, heads: int, head_dim: int | None = None) -> None:
    """The heads must divide the features of a token, unless it is said how many features they have themselves.

    Raises:
        ValueError: they do not; those that do are named. A size below 1.
    """
    check_at_least(1, dim=dim, head_dim=head_dim)
    if head_dim is not None:
        check_at_least(1, heads=heads)
    elif heads < 1 or dim % heads:
        raise ValueError(f"heads must divide the {dim} features of a token: one of {divisors(dim)}, got {heads}")


def check_score_and_mask(
    score: Score | None, mask: Mask | None, heads: int, head_dim: int, max_length: int | None
) -> None:
    """Try a score and a mask, which may be user-defined, on a query and two keys, or one if there can be no more.

    Raises:
        ValueError: they give something else than they must; the message begins with the name of the part.
    """
    places = torch.arange(min(max_length or 2, 2))
    if score is not None:
        score(torch.zeros(1, heads, 1, head_dim), torch.zeros(1, heads, len(places), head_dim))
    if mask is not None:
        mask.allowed(places[:1], places[:, None], places)


def check_kernel(name: KernelName, mechanism: Mechanism, dropout: float, mask: Mask | None) -> KernelName:
    """The name, checked to be that of a kernel that can compute this.

    Raises:
        ValueError: it cannot; those that can are named.
    """
    if name not in KERNELS:
        raise ValueError(f"kernel must be one of {', '.join(KERNELS)}, got {name!r}")
    refusal = KERNELS[name].refuses(mechanism, dropout=dropout, mask=mask)
    if refusal is not None:
        able = [other for other in KERNELS if KERNELS[other].refuses(mechanism, dropout=dropout, mask=mask) is None]
        raise ValueError(f"kernel={name} cannot compute this: {refusal}; {' or '.join(able)} can")
    return name
