"""Copying: symbols to be remembered until a marker asks for them.

Source: the copying problem of Hochreiter & Schmidhuber 1997 in the form of Arjovsky, Shah & Bengio 2016, "Unitary
evolution recurrent neural networks", arXiv:1511.06464, section 4.1: 10 symbols of 8 kinds, 100 to 500 places. There the
blanks before the answer are to be predicted too; here nothing is asked but the symbols.

Shapes: n rows, L symbols, T = 2 L + delay tokens.
"""

import torch
from torch import Tensor

from attelbo.checks import check_at_least
from attelbo.data.batch import IGNORE, DataSpec
from attelbo.data.tasks.base import Task


class Copy(Task):
    """x: symbols, blanks, a marker, blanks; y: the symbols where the last blanks are.

    Tokens are the symbols, 0 .. n_symbols - 1, then the blank and the marker.

    Args:
        length: L.
        delay: places from the last symbol to the first of the answer, the marker's among them.
        n_symbols: kinds of symbols.

    Raises:
        ValueError: no symbols, no room for the marker, or fewer than two kinds.
    """

    def __init__(self, length: int = 10, delay: int = 100, n_symbols: int = 8) -> None:
        check_at_least(1, length=length, delay=delay)
        check_at_least(2, n_symbols=n_symbols)
        self.length = length
        self.delay = delay
        self.n_symbols = n_symbols

    def spec(self, name: str) -> DataSpec:
        shape = (2 * self.length + self.delay,)
        return DataSpec(name, shape, "tokens", n_tokens=self.n_symbols + 2, answer_length=self.length)

    def draw(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        symbols = torch.randint(self.n_symbols, (n, self.length), generator=generator)
        blank, marker = self.n_symbols, self.n_symbols + 1
        x = torch.full((n, 2 * self.length + self.delay), blank)
        x[:, : self.length] = symbols
        x[:, self.length + self.delay - 1] = marker
        y = torch.full_like(x, IGNORE)
        y[:, -self.length :] = symbols
        return x, y
