"""Sorting: digits, then the same digits in order.

Source: the demo of minGPT (Karpathy 2020), 6 digits of 3 kinds. It draws questions with at most half as many different
digits as places more often, which with 3 kinds are all; here all questions are equally likely.

Shapes: n rows, L digits, T = 2 L - 1 tokens.
"""

import torch
from torch import Tensor

from attelbo.checks import check_at_least
from attelbo.data.batch import IGNORE, DataSpec
from attelbo.data.tasks.base import Task


class Sort(Task):
    """x: the digits, then the sorted ones but for the last; y: the next tokens, from the last digit of the question on.

    Args:
        length: L.
        n_digits: kinds of digits.

    Raises:
        ValueError: no digits, or fewer than two kinds.
    """

    def __init__(self, length: int = 6, n_digits: int = 3) -> None:
        check_at_least(1, length=length)
        check_at_least(2, n_digits=n_digits)
        self.length = length
        self.n_digits = n_digits

    def spec(self, name: str) -> DataSpec:
        shape = (2 * self.length - 1,)
        return DataSpec(name, shape, "tokens", n_tokens=self.n_digits, answer_length=self.length, next_tokens=True)

    def draw(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        digits = torch.randint(self.n_digits, (n, self.length), generator=generator)
        row = torch.cat([digits, digits.sort(1).values], 1)
        x, y = row[:, :-1], row[:, 1:].clone()
        y[:, : self.length - 1] = IGNORE
        return x, y
