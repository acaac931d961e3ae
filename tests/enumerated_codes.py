"""All values that a few codes can have, and whether samples have their probabilities."""

import itertools
import math

import torch
from torch import Tensor

from attelbo.latent.spaces import Codes


def every_code(space: Codes) -> Tensor:
    """All values of the codes of a space, (K^T, *S), in the order of their digits."""
    values = itertools.product(range(space.n_codes), repeat=math.prod(space.shape))
    return torch.tensor(list(values)).view(-1, *space.shape)


def assert_distributed(codes: Tensor, space: Codes, expected: Tensor) -> None:
    """Assert that samples (n, *S) have the probabilities ``expected``, (K^T,) in the order of :func:`every_code`."""
    n, digits, degrees = len(codes), codes.flatten(1), len(expected) - 1
    places = (digits * space.n_codes ** torch.arange(digits.shape[1]).flip(0)).sum(1)
    shares = torch.bincount(places, minlength=len(expected)).double() / n
    # Pearson's statistic, of mean and variance known; cells that hardly occur count with those beside them.
    chi_square = float((n * (shares - expected).square() / expected.clamp_min(1 / n)).sum())
    assert chi_square < degrees + 6 * (2 * degrees) ** 0.5
