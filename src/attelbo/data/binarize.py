"""Binarization: from bytes x in 0..255 to {0, 1}, a one having probability x / 255.

A byte u drawn uniformly from 0..254 is below x with probability x / 255 exactly: never for x = 0, always
for x = 255. Comparing bytes is an order of magnitude cheaper than ``torch.bernoulli`` of floats.
"""

from typing import Literal

import torch
from torch import Tensor

Binarization = Literal["none", "threshold", "static", "dynamic"]

_ONES = 0x0101010101010101
_HIGH_BITS = -0x7F7F7F7F7F7F7F80  # 0x8080808080808080 as a signed number
_LOWEST = -(2**63)


def draw_bits(x: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Independent Bernoulli(x / 255) draws, drawn from the device's default generator unless one is given.

    Args:
        x: bytes, any shape, uint8.
        generator: of x's device.

    Returns:
        Zeros and ones, uint8, x's shape.
    """
    return torch.gt(x, _bytes_below_255(x, generator)).view(torch.uint8)


def threshold_bits(x: Tensor) -> Tensor:
    """One where x >= 128 (probability x / 255 above one half), else zero: uint8, x's shape."""
    return (x >= 128).view(torch.uint8)


def _bytes_below_255(like: Tensor, generator: torch.Generator | None) -> Tensor:
    """Uniform draws from 0..254 in the shape of ``like``."""
    if like.device.type != "cpu":
        return torch.empty_like(like).random_(0, 255, generator=generator)
    # A CPU generator is asked once per element, so eight bytes are taken from each 64-bit draw. A word
    # with a byte 255 in it (3 % of them) is drawn again, which leaves every byte uniform on 0..254.
    words = torch.empty((like.numel() + 7) // 8, dtype=torch.int64).random_(_LOWEST, None, generator=generator)
    rejected = _has_byte_255(words).nonzero().view(-1)
    eights = words.view(-1, 1).view(torch.uint8)
    eights.index_copy_(0, rejected, eights.new_empty(len(rejected), 8).random_(0, 255, generator=generator))
    return eights.view(-1)[: like.numel()].view(like.shape)


def _has_byte_255(words: Tensor) -> Tensor:
    """Non-zero for the 64-bit words in which a byte is 255: the classic search for a zero byte in ~words."""
    return words.bitwise_not().sub_(_ONES).bitwise_and_(words).bitwise_and_(_HIGH_BITS)
