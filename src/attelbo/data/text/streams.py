"""Rows of text to model: windows of one long stream of tokens, or documents, one in a row.

In each row y holds the token after that of x, IGNORE where none is to be predicted: behind the end, and at the end of a
document, where the next one begins.

Shapes: M places of a stream, B batch, T tokens of the context.
"""

from collections.abc import Iterable, Sequence
from copy import copy
from typing import Literal, Self

import torch
from torch import Tensor
from torch.nn import functional as F

from attelbo.data.batch import BOS, EOS, IGNORE, PAD, Batch
from attelbo.data.padded import PaddedSplit
from attelbo.data.resident import ResidentSplit

Windows = Literal["random", "consecutive"]


class StreamSplit(ResidentSplit):
    """Windows of T places in a stream.

    Args:
        tokens: M + 1 of them, of the integers that ``Tokenizer.encode_long`` makes.
        context: T.
        windows: a row begins at every place that T places follow (``random``, since they overlap, and training draws
            from them) or at every T-th (``consecutive``: each token but the first is predicted once; what is missing
            in the last row is not predicted).
        packed: documents lie between BOS and EOS; ``segments`` numbers those of each row.

    Raises:
        ValueError: fewer than T places, of random windows, or none.
    """

    def __init__(self, tokens: Tensor, context: int, windows: Windows, packed: bool) -> None:
        places = len(tokens) - 1
        if places < (context if windows == "random" else 1):
            raise ValueError(f"a text of {len(tokens):,} tokens has no window of {context:,} and one more")
        # A byte has no room for IGNORE.
        targets = tokens[1:].to(torch.int16) if tokens.dtype == torch.uint8 else tokens[1:].clone()
        if packed:
            targets[targets == BOS] = IGNORE
        self.context = context
        self.packed = packed
        self._lay(tokens[:-1], targets, windows)

    def _lay(self, tokens: Tensor, targets: Tensor, windows: Windows) -> None:
        """Take tokens and those behind them, (M,) each, as rows."""
        padding = (0, -len(tokens) % self.context if windows == "consecutive" else 0)
        self.tokens = F.pad(tokens, padding, value=PAD)
        self.targets = F.pad(targets, padding, value=IGNORE)
        self.step = 1 if windows == "random" else self.context

    def consecutive(self, places: int) -> Self:
        """The first so many places of a stream of random windows in windows that follow each other."""
        other = copy(self)
        other._checksum = None
        other._lay(self.tokens[:places], self.targets[:places], "consecutive")
        return other

    def __len__(self) -> int:
        return (len(self.tokens) - self.context) // self.step + 1

    def materialize(self, index: Tensor) -> Batch:
        self.to(index.device)
        x, y = (
            stream.unfold(0, self.context, self.step).index_select(0, index).long()
            for stream in (self.tokens, self.targets)
        )
        return Batch(x, y, index, segments_of(x) if self.packed else None)


def segments_of(x: Tensor) -> Tensor:
    """The number of the document that each token of x (B, T) belongs to, counted in each row; -1 for padding."""
    return (x == BOS).cumsum(1).masked_fill(x == PAD, IGNORE)


def pack(documents: Iterable[Tensor]) -> Tensor:
    """One stream in which every document, (n,), lies between BOS and EOS."""
    return torch.cat([F.pad(F.pad(document, (1, 0), value=BOS), (0, 1), value=EOS) for document in documents])


def windows_of(tokens: Sequence[int], context: int) -> list[tuple[Sequence[int], Sequence[int]]]:
    """At most ``context`` tokens, and those that come after each of them, again and again until all but the first of
    a text's ``tokens`` are predicted once."""
    last = len(tokens) - 1
    return [
        (tokens[start : min(start + context, last)], tokens[start + 1 : start + 1 + context])
        for start in range(0, last, context)
    ]


class DocumentSplit(PaddedSplit):
    """Documents, one in a row, between BOS and EOS; what does not fit into T places is in rows of its own, without
    what came before. Padded, and on a CPU cropped to the longest of a minibatch.

    Args:
        documents: their tokens.
        context: T.

    Raises:
        ValueError: there is no document.
    """

    def __init__(self, documents: Sequence[Sequence[int]], context: int) -> None:
        rows = [row for document in documents for row in windows_of((BOS, *document, EOS), context)]
        super().__init__([x for x, _ in rows], [y for _, y in rows])

    def materialize(self, index: Tensor) -> Batch:
        batch = super().materialize(index)
        assert batch.y is not None
        padding = batch.x == PAD
        segments = torch.zeros_like(batch.x).masked_fill(padding, IGNORE)
        return batch._replace(y=batch.y.masked_fill(padding, IGNORE), segments=segments)
