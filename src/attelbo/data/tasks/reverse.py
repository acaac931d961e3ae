"""Reversal: at each place the digit that stands as far from the other end.

Source: Lightning's tutorial on transformers and multi-head attention (Lippe 2021), 16 digits of 10 kinds.

Shapes: n rows, T digits.
"""

import torch
from torch import Tensor

from attelbo.checks import check_at_least
from attelbo.data.batch import DataSpec
from attelbo.data.tasks.base import Task


class Reverse(Task):
    """x: digits; y: the same from back to front. For models that see all of a row.

    Args:
        length: T.
        n_digits: kinds of digits.

    Raises:
        ValueError: no digits, or fewer than two kinds.
    """

    def __init__(self, length: int = 16, n_digits: int = 10) -> None:
        check_at_least(1, length=length)
        check_at_least(2, n_digits=n_digits)
        self.length = length
        self.n_digits = n_digits

    def spec(self, name: str) -> DataSpec:
        return DataSpec(name, (self.length,), "tokens", n_tokens=self.n_digits, answer_length=self.length)

    def draw(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        x = torch.randint(self.n_digits, (n, self.length), generator=generator)
        return x, x.flip(1)
