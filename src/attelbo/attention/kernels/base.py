"""What a kernel is: a way to compute one mechanism of attention.

    score(q, k) + bias -- soft cap --> scores -- normalizer, mask --> weights;   output = weights v

All kernels that can compute the same thing agree within rounding; a kernel refuses what it cannot compute, with a
reason.

Shapes: B batch, N heads, M heads of keys and values (N / M queries' heads share one), T queries, S keys, D features of
a head, V of a value.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Literal, Self

import torch
from torch import Tensor

from attelbo.attention.masks import Mask
from attelbo.attention.normalizers import Normalizer, Softmax
from attelbo.attention.positions import NoPosition, Position
from attelbo.attention.scores import Score

KernelName = Literal["auto", "eager", "sdpa", "chunked", "flex"]


@dataclass(frozen=True, eq=False)
class Mechanism:
    """What is computed, whatever the kernel."""

    score: Score
    normalizer: Normalizer = field(default_factory=Softmax)
    position: Position = field(default_factory=NoPosition)
    """Used for its bias on the scores only: query and key are encoded already."""
    soft_cap: float | None = None
    """c: scores become c tanh(score / c) (Gemma 2; Bello et al. 2017), bias included; no cap if None."""


@dataclass(frozen=True)
class Call:
    """What the choice of a kernel depends on besides the mechanism and the mask."""

    batch_size: int
    n_heads: int
    n_queries: int
    n_keys: int
    offset: int
    """The position of the first query."""
    dropout: float
    training: bool
    """Whether gradients are wanted."""
    device: str
    """Its type."""

    @classmethod
    def of(cls, query: Tensor, key: Tensor, value: Tensor, *, dropout: float, offset: int | None = None) -> Self:
        """The call with these inputs."""
        batch_size, n_heads, n_queries, _ = query.shape
        n_keys = key.shape[2]
        offset = n_keys - n_queries if offset is None else offset
        training = torch.is_grad_enabled() and (query.requires_grad or key.requires_grad or value.requires_grad)
        return cls(batch_size, n_heads, n_queries, n_keys, offset, dropout, training, query.device.type)

    @property
    def n_weights(self) -> int:
        return self.batch_size * self.n_heads * self.n_queries * self.n_keys


class Kernel(ABC):
    """One way to compute attention. Stateless: one instance serves all layers."""

    name: KernelName

    @abstractmethod
    def refuses(self, mechanism: Mechanism, *, dropout: float, mask: Mask | None) -> str | None:
        """Why it cannot compute this; None if it can."""

    @abstractmethod
    def describe(self, mechanism: Mechanism, mask: Mask | None, call: Call) -> str:
        """What it would do for a call that it does not refuse."""

    def __call__(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        mechanism: Mechanism,
        *,
        mask: Mask | None = None,
        offset: int | None = None,
        dropout: float = 0.0,
    ) -> Tensor:
        """query (B, N, T, D), key (B, M, S, D), value (B, M, S, V) -> (B, N, T, V); zeros where there is no key.

        What is in padding, as given by ``Padding`` and ``Document``, never affects the output, not even NaN.

        Args:
            query: of T tokens.
            key: of S tokens.
            value: of the same.
            mechanism: what is computed.
            mask: who may attend to whom; everyone to all if None.
            offset: the position of the first query, where the first key stands at 0; S - T if None.
            dropout: the probability with which each weight is dropped *now*: the caller passes 0 in evaluation, since
                a kernel does not know whether it is training.
        """
        n_queries, n_keys = query.shape[2], key.shape[2]
        offset = n_keys - n_queries if offset is None else offset
        if n_keys == 0 or n_queries == 0:
            return value.new_zeros(*query.shape[:3], value.shape[-1])
        if mask is not None and mask.allows_all(n_queries, n_keys, offset):
            mask = None
        present = None if mask is None else mask.present(n_keys)
        if present is not None:
            # A weight of 0 would not be enough: 0 NaN is NaN.
            absent = ~present[:, None, :, None]
            key, value = key.masked_fill(absent, 0.0), value.masked_fill(absent, 0.0)
        return self.compute(query, key, value, mechanism, mask, offset, dropout)

    @abstractmethod
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
        """As the call, with a mask only where something is masked."""


def grouped(tensor: Tensor, heads: int) -> Tensor:
    """Keys or values (B, M, S, D) for each of N heads (B, N, S, D): each is repeated for N / M neighbouring heads."""
    shared = heads // tensor.shape[1]
    return tensor if shared == 1 else tensor.repeat_interleave(shared, dim=1)


def dense_bias(
    mechanism: Mechanism,
    n_heads: int,
    n_queries: int,
    n_keys: int,
    offset: int,
    device: torch.device,
    first_key: int = 0,
) -> Tensor | None:
    """The bias that the position adds to the scores, (N, T, S), of the keys from ``first_key`` on; None: none."""
    if not mechanism.position.has_bias:
        return None
    head = torch.arange(n_heads, device=device)[:, None, None]
    query = torch.arange(offset, offset + n_queries, device=device)[:, None]
    return mechanism.position.bias(head, query, torch.arange(first_key, first_key + n_keys, device=device))
