"""What a sequence-to-sequence network is: it reads a source once and predicts the target token by token.

    p(y | x) = prod_u p(y_u | y_<u, x)

Source: Sutskever, Vinyals & Le 2014, "Sequence to Sequence Learning with Neural Networks", eq. 1.

Shapes: B sentences, S tokens of the source, U tokens of the target, V tokens of the target's vocabulary, F input
features of the logits.
"""

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from attelbo.attention import record_attention


class Decoding(ABC):
    """The state of decoding a batch of targets: what has been read of sources and targets so far.

    Args:
        device: where it is.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device

    @abstractmethod
    def advance(self, tokens: Tensor) -> Tensor:
        """Take in the next token of each row, (B,), the first one BOS; the logits (B, V) of the token after it."""

    @abstractmethod
    def reorder(self, rows: Tensor) -> None:
        """Go on with these rows (B',), with repetition."""

    def exchange(self, rows: Tensor) -> None:
        """Go on with these rows (B,), each replacing one with the same source, so that what has been read of sources
        may stay in place."""
        self.reorder(rows)


class EncoderDecoder(nn.Module, ABC):
    """p(y | x) for tokens x (B, S) and y (B, U), PAD after the end of each row, where it has no effect."""

    alignment_layer: str | None = None
    """The name of the attention layer whose weights align target and source; None: there is none."""
    output: nn.Linear
    """From features to logits (..., V)."""

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        """The logits (B, U, V) of the token after each one of target (B, U), which begins with BOS."""
        return self.output(self.features(source, target))

    @abstractmethod
    def features(self, source: Tensor, target: Tensor) -> Tensor:
        """The input of the output layer, (B, U, F)."""

    @abstractmethod
    def begin(self, source: Tensor, capacity: int) -> Decoding:
        """Read source (B, S) and start decoding, up to ``capacity`` tokens.

        Raises:
            ValueError: a source or ``capacity`` is longer than the positions allow.
        """

    @property
    def aligns(self) -> bool:
        """Whether there is an :meth:`alignment`."""
        return self.alignment_layer is not None

    def alignment(self, source: Tensor, target: Tensor, heads: bool = False) -> Tensor:
        """How much the prediction after each token of target (B, U) attends to each one of source (B, S): weights (B,
        U, S), the mean over heads, or those of each of N heads, (B, N, U, S)."""
        if self.alignment_layer is None:
            raise NotImplementedError(f"{type(self).__name__} has no attention to align by")
        with record_attention(self, (self.alignment_layer,)) as maps:
            self.features(source, target)
        # A recurrent decoder may attend once for each token.
        weights = torch.cat(maps.calls[self.alignment_layer], 2)
        return weights if heads else weights.mean(1)
