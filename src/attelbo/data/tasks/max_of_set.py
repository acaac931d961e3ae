"""The largest number of a set.

Source: Lee et al. 2019, "Set Transformer", section 5.1; the numbers are those of the authors' demo: 1 to 10 of 1 .. 99.
There all sets of a minibatch have one size; here each has its own.

Shapes: n sets, N numbers in the largest.
"""

import torch

from attelbo.checks import check_at_least
from attelbo.data.batch import DataSpec
from attelbo.data.tasks.sets import Sets, SetTask, there_are


class MaxOfSet(SetTask):
    """x: numbers, all equally likely, as many as any other number up to N; y: their maximum.

    Args:
        largest_set: N.
        largest: numbers are 1 .. ``largest``.

    Raises:
        ValueError: a number is below 1.
    """

    def __init__(self, largest_set: int = 10, largest: int = 99) -> None:
        check_at_least(1, largest_set=largest_set, largest=largest)
        self.largest_set = largest_set
        self.largest = largest

    def spec(self, name: str) -> DataSpec:
        return DataSpec(name, (self.largest_set, 1), "set", target=DataSpec("maximum", (), "real"))

    def draw(self, n: int, device: torch.device, generator: torch.Generator | None = None) -> Sets:
        size = torch.randint(1, self.largest_set + 1, (n,), device=device, generator=generator)
        numbers = torch.randint(1, self.largest + 1, (n, self.largest_set), device=device, generator=generator)
        numbers = (numbers * there_are(size, self.largest_set)).float()
        return Sets(numbers.unsqueeze(-1), size, numbers.amax(1))
