"""Sampling the next token from the logits of a language model.

Source: the k likeliest tokens: Fan, Lewis & Dauphin 2018, section 5.4; the nucleus, the likeliest tokens that together
have probability p: Holtzman et al. 2020, "The Curious Case of Neural Text Degeneration", eq. 2; those with at least a
share of the probability of the likeliest: Nguyen et al. 2025, "Turning Up the Heat: Min-p Sampling for Creative and
Coherent LLM Outputs" (arXiv:2407.01082), section 3; those whose surprise is nearest to the entropy: Meister, Pimentel,
Wiher & Cotterell 2023, "Locally Typical Sampling", section 4. The temperature is applied first, then k, then p among
the remaining tokens, then the share, then typicality.

Shapes: B rows, V vocabulary.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from attelbo.errors import UserError


@dataclass(frozen=True)
class Sampling:
    """How a token is drawn.

    Raises:
        UserError: a number is out of range.
    """

    temperature: float = 1.0
    """Divides the logits; 0: the likeliest token."""
    top_k: int | None = None
    """One of the k likeliest tokens; of all if None."""
    top_p: float | None = None
    """One of the fewest likeliest tokens whose probabilities sum to p or more; of all if None."""
    min_p: float | None = None
    """One of those that have this share of the likeliest token's probability, or more; of all if None."""
    typical_p: float | None = None
    """One of the fewest whose probabilities sum to this or more, those first whose -log p is nearest to its mean, the
    entropy; of all if None."""

    def __post_init__(self) -> None:
        if self.temperature < 0:
            raise UserError(f"temperature must be at least 0 (0: the likeliest token), got {self.temperature}")
        if self.top_k is not None and self.top_k < 1:
            raise UserError(f"top_k must be at least 1, got {self.top_k}")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise UserError(f"top_p must be in (0, 1], got {self.top_p}")
        if self.min_p is not None and not 0 <= self.min_p <= 1:
            raise UserError(f"min_p must be in [0, 1], got {self.min_p}")
        if self.typical_p is not None and not 0 < self.typical_p <= 1:
            raise UserError(f"typical_p must be in (0, 1], got {self.typical_p}")

    def probabilities(self, logits: Tensor) -> Tensor:
        """The probabilities with which each token is drawn, for logits (B, V)."""
        if self.temperature == 0:
            return torch.zeros_like(logits).scatter_(-1, logits.argmax(-1, keepdim=True), 1.0)
        scaled = logits / self.temperature
        if all(limit is None for limit in (self.top_k, self.top_p, self.min_p, self.typical_p)):
            return scaled.softmax(-1)  # sorting a large vocabulary takes longer than a step of the network
        ordered, tokens = scaled.sort(dim=-1, descending=True, stable=True)
        if self.top_k is not None:
            ordered[:, self.top_k :] = -torch.inf
        probabilities = ordered.softmax(-1)
        if self.top_p is not None:
            probabilities = fewest(probabilities, self.top_p)
        if self.min_p is not None:
            probabilities = probabilities.masked_fill(probabilities < self.min_p * probabilities[:, :1], 0.0)
        if self.typical_p is not None:
            probabilities = typical(probabilities / probabilities.sum(-1, keepdim=True), self.typical_p)
        probabilities = probabilities / probabilities.sum(-1, keepdim=True)
        return torch.zeros_like(probabilities).scatter_(-1, tokens, probabilities)

    def draw(self, logits: Tensor) -> Tensor:
        """A token for each row of logits (B, V), (B,), from the default generator."""
        if self.temperature == 0:
            return logits.argmax(-1)
        return torch.multinomial(self.probabilities(logits), 1).squeeze(-1)


def fewest(probabilities: Tensor, mass: float) -> Tensor:
    """(B, V), 0 from where those before have this probability together."""
    return probabilities.masked_fill(probabilities.cumsum(-1) - probabilities >= mass, 0.0)


def typical(probabilities: Tensor, mass: float) -> Tensor:
    """(B, V), which sum to 1 -> the same, 0 but for the fewest most typical that have this probability together."""
    entropy = torch.special.entr(probabilities).sum(-1, keepdim=True)
    order = (probabilities.log() + entropy).abs().argsort(dim=-1, stable=True)
    return torch.zeros_like(probabilities).scatter_(-1, order, fewest(probabilities.gather(-1, order), mass))
