"""Scores of token predictions: exact means over tokens, independent of batches.

Shapes: B rows, T tokens of a row, N predicted ones of all rows, V vocabulary.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F
from torchmetrics import Metric

from attelbo.metrics.measure import Measure

_SUMS = ("nats", "tokens", "correct", "characters", "rows", "exact")


class TokenScores(Metric):
    """Mean nats per predicted token (``loss``), its exponential (``perplexity``), and the share of tokens that are
    predicted right (``accuracy``); if applicable, bits per character and the share of rows without a wrong token
    (``exact``).

    Args:
        characters: the number of characters of each token of the vocabulary, V of them; None: not known.
        answers: whether a row's tokens are an answer that is right or wrong as a whole.
        hidden: whether the tokens are masked ones: their conditional probabilities do not make up a density of the
            text, so there is no perplexity.
    """

    full_state_update = False
    nats: Tensor
    tokens: Tensor
    correct: Tensor
    characters: Tensor
    rows: Tensor
    exact: Tensor

    def __init__(self, characters: Sequence[int] | None = None, answers: bool = False, hidden: bool = False) -> None:
        super().__init__()
        self.answers = answers
        self.hidden = hidden
        lengths = None if characters is None else torch.tensor(characters, dtype=torch.float64)
        self.register_buffer("lengths", lengths, persistent=False)
        for name in _SUMS:
            self.add_state(name, torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, logits: Tensor, target: Tensor) -> None:
        """Take in logits (N, V) for the predicted tokens of target (B, T), which is negative elsewhere."""
        predicted = target >= 0
        tokens = target[predicted]  # (N,)
        right = logits.argmax(-1) == tokens
        self.nats = self.nats + F.cross_entropy(logits, tokens, reduction="none").double().sum()
        self.tokens = self.tokens + len(tokens)
        self.correct = self.correct + right.sum()
        answers = predicted.any(-1)
        self.rows = self.rows + answers.sum()
        self.exact = self.exact + ((~predicted).masked_scatter(predicted, right).all(-1) & answers).sum()
        if isinstance(self.lengths, Tensor):
            self.characters = self.characters + self.lengths[tokens].sum()

    def compute(self) -> dict[str, Tensor]:
        loss = self.nats / self.tokens
        scores = {"loss": loss, "accuracy": self.correct / self.tokens}
        if not self.hidden:
            scores["perplexity"] = loss.exp()
        if self.lengths is not None:
            scores["bits_per_character"] = self.nats / (math.log(2) * self.characters)
        if self.answers:
            scores["exact"] = self.exact / self.rows
        return {name: value.float() for name, value in scores.items()}

    @property
    def measures(self) -> Sequence[Measure]:
        """How they are displayed."""
        each = "hidden token, the others seen" if self.hidden else "token"
        return (
            Measure("loss", "loss", f"nats per {each}", 4, better="less"),
            Measure("perplexity", "perplexity", "tokens, if all were equally likely", 3, better="less"),
            Measure("bits_per_character", "bits/character", "bits", 4, better="less"),
            Measure("accuracy", "accuracy", f"of the {'hidden ' if self.hidden else ''}tokens", 4, better="more"),
            Measure("exact", "exact", "of the answers, right in every token", 4, better="more"),
        )
