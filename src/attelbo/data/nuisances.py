"""Nuisances: what varies in black and white images without being one of their factors.

Locatello, Bauer, Lucic, Raetsch, Gelly, Schoelkopf & Bachem 2019, "Challenging Common Assumptions in the Unsupervised
Learning of Disentangled Representations" (arXiv:1811.12359), appendix H: Color-dSprites and Noisy-dSprites.

Shapes: B batch, (C, H, W) image.
"""

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from attelbo.seeding import SPLITMIX, derive_seed

_STEP, _FIRST, _SECOND = (n - (1 << 64) for n in SPLITMIX)
"""As int64 has them."""

Nuisance = Literal["none", "color", "noise"]
"""``color``: in each image, what is white has one colour, whose red, green and blue are in 128..255; ``noise``: each
pixel that is black has a colour of its own, whose red, green and blue are in 0..255."""


def with_nuisance(x: Tensor, nuisance: Nuisance, rows: Tensor | None = None, purpose: str = "") -> Tensor:
    """Bits as colours: (B, 1, H, W), 0 or 1, to (B, 3, H, W) uint8.

    Args:
        x: the images.
        nuisance: which one; not ``none``.
        rows: their numbers (B,), where what is drawn is to be a function of them; from the default generator if None.
        purpose: of what is drawn for them, such as the name of a split.
    """
    shape = (3, 1, 1) if nuisance == "color" else (3, *x.shape[2:])
    if rows is None:
        drawn = _random_bytes((len(x), *shape), x.device)
    else:
        drawn = bytes_of_rows(rows, shape, derive_seed(0, f"nuisance of {purpose}"))
    if nuisance == "color":
        return x * (drawn // 2 + 128)
    return torch.where(x == 1, 255, drawn)


def _random_bytes(shape: Sequence[int], device: torch.device) -> Tensor:
    if device.type != "cpu":
        return torch.randint(256, tuple(shape), dtype=torch.uint8, device=device)
    n = math.prod(shape)  # a CPU generator is asked once per element: eight bytes of each draw
    words = torch.empty(-(-n // 8), dtype=torch.int64).random_(-(2**63), None)
    return words.view(torch.uint8)[:n].view(tuple(shape))


def bytes_of_rows(rows: Tensor, shape: Sequence[int], seed: int) -> Tensor:
    """Bytes that are a function of seed, row and place, the same on every device and in every batch, and held nowhere:
    (B, *shape), uint8.

    Each is the highest byte of one round of SplitMix64 (Steele, Lea & Flood 2014) for its row and its place.
    """
    places = torch.arange(math.prod(shape), device=rows.device)
    of_rows = _mixed(rows * _STEP + seed).unsqueeze(1)
    return _shifted(_mixed(of_rows + places * _STEP), 56).to(torch.uint8).view(len(rows), *shape)


def _mixed(x: Tensor) -> Tensor:
    x = (x ^ _shifted(x, 30)) * _FIRST
    x = (x ^ _shifted(x, 27)) * _SECOND
    return x ^ _shifted(x, 31)


def _shifted(x: Tensor, bits: int) -> Tensor:
    """To the right, zeros coming in, which int64 has no operation for."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)
