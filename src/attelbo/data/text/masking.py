"""Masked language modelling: hidden tokens are predicted from those on both sides of them.

Source: Devlin et al. 2019, "BERT: Pre-training of Deep Bidirectional Transformers", section 3.1, task 1: of the tokens
to be predicted, 80 % become MASK, 10 % any other, 10 % stay as they are. Differs: their number in a row is not random
but the share of the tokens that may be hidden, rounded, and at least one.

Shapes: B batch, T tokens.
"""

import torch
from torch import Tensor

from attelbo.data.batch import EOS, IGNORE, UNK

AS_MASK, AS_IT_IS = 0.8, 0.1
"""Shares of the hidden tokens."""
WRITTEN = "<mask>"
"""MASK, as it is written for people: the token behind the last one of a vocabulary."""


def hide(
    x: Tensor, share: float, n_tokens: int, pads: bool, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor]:
    """Tokens x (B, T) -> the same with some hidden, and y (B, T): those, IGNORE at all other places; int64.

    Args:
        x: tokens.
        share: of the tokens that are hidden.
        n_tokens: in the vocabulary, without MASK, which is this number.
        pads: whether the vocabulary begins with PAD, BOS and EOS, which are never hidden, and UNK.
        generator: what is drawn from; the default one of the device if None.
    """

    def uniform() -> Tensor:
        return torch.rand(x.shape, device=x.device, generator=generator)

    may = x > EOS if pads else torch.ones_like(x, dtype=torch.bool)
    n = (share * may.sum(1, keepdim=True)).round().clamp(min=1)
    order = uniform().masked_fill(~may, 2.0).argsort(1).argsort(1)  # the place of each in a random order
    hidden, fate = may & (order < n), uniform()
    other = torch.randint(UNK + 1 if pads else 0, n_tokens, x.shape, device=x.device, generator=generator)
    changed = torch.where(fate < AS_MASK, n_tokens, torch.where(fate < 1 - AS_IT_IS, other, x))
    return torch.where(hidden, changed, x), x.masked_fill(~hidden, IGNORE)
