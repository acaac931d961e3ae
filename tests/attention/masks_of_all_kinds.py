"""Masks of every kind and some of their combinations, for batches of two rows and up to LENGTH tokens."""

import torch

from attelbo.attention import (
    Behind,
    Block,
    BlockCausal,
    Causal,
    Document,
    Global,
    Mask,
    Padding,
    Prefix,
    SlidingWindow,
)

LENGTH = 16

VALID = torch.tensor([[1, 1, 1, 0, 1, 0, 1, 1] * 2, [0, 0, 1, 1, 1, 1, 1, 0] + [0] * 8], dtype=torch.bool)
IDS = torch.tensor([[0] * 5 + [1] * 3 + [2] * 6 + [-1] * 2, [3, 3] + [1] * 13 + [-1]])
MASKS: dict[str, Mask | None] = {
    "none": None,
    "causal": Causal(),
    "window": SlidingWindow(2),
    "causal window": Causal() & SlidingWindow(3),
    "wide causal window": Causal() & SlidingWindow(7),
    "prefix": Prefix(3),
    "block": Block(3),
    "blocks up to one's own": BlockCausal((1, 4, 9)),
    "blocks up to one's own, and a window": BlockCausal((2, 3)) & SlidingWindow(4),
    "causal block": Causal() & Block(4),
    "padding": Padding(VALID),
    "document": Document(IDS),
    "causal document": Causal() & Document(IDS),
    "window with padding": SlidingWindow(2) & Padding(VALID),
    "window in documents": SlidingWindow(2) & Document(IDS),
    "causal window or prefix": Causal() & SlidingWindow(3) | Prefix(1),
    "blocks and a window": Block(2) | Causal() & SlidingWindow(2),
    "documents behind others": Behind(Causal() & Document(IDS), 3),
    "blocks, with tokens that see everyone": Global(Block(3), 2),
    "causal, with tokens that everyone sees": Causal() & Global(SlidingWindow(2), 2),
    "nothing": Prefix(1) & SlidingWindow(1) & Block(1),
}
