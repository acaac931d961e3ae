"""Readers and writers of DRAW: a recurrent network sees an image and paints a canvas, whole or through a moving window.

Gregor et al. 2015, "DRAW", arXiv:1502.04623, sections 3.1 and 3.2. The initial window is ours: see ``window_layer``.

Shapes: N rows, C channels, H x W pixels, n x n numbers of a patch, S the size of a state.
"""

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from attelbo.attention.glimpses import GaussianWindow, gaussian_window
from attelbo.attention.glimpses.gaussian import LOG_INTENSITY, LOG_STRIDE, N_PARAMETERS
from attelbo.networks.layers import Size, initialize


class Reader(nn.Module, ABC):
    """Images (N, C, H, W) and a state (N, S) -> ``out_features`` numbers each, and the window through which they were
    read."""

    out_features: int

    @abstractmethod
    def forward(self, images: Tensor, state: Tensor) -> tuple[Tensor, GaussianWindow | None]: ...


class WholeReader(Reader):
    """Sees every pixel (section 3.1).

    Args:
        channels: C.
        size: (H, W).
    """

    def __init__(self, channels: int, size: Size) -> None:
        super().__init__()
        self.out_features = channels * size[0] * size[1]

    def forward(self, images: Tensor, state: Tensor) -> tuple[Tensor, None]:
        return images.flatten(1), None


class WindowReader(Reader):
    """Sees n x n numbers through a window that is a linear function of the state (section 3.2).

    Args:
        channels: C.
        size: (H, W).
        patch: n.
        state: S.
    """

    def __init__(self, channels: int, size: Size, patch: int, state: int) -> None:
        super().__init__()
        self.size = size
        self.patch = patch
        self.out_features = channels * patch * patch
        self.window = window_layer(state, patch, size)

    def forward(self, images: Tensor, state: Tensor) -> tuple[Tensor, GaussianWindow]:
        window = gaussian_window(self.window(state), self.patch, self.size)
        return window.read(images).flatten(1), window


class Writer(nn.Module, ABC):
    """A state (N, S) -> what is added to canvases (N, C, H, W), and the window it is painted through."""

    @abstractmethod
    def forward(self, state: Tensor) -> tuple[Tensor, GaussianWindow | None]: ...


class WholeWriter(Writer):
    """Paints on every pixel (section 3.1).

    Args:
        channels: C.
        size: (H, W).
        state: S.
    """

    def __init__(self, channels: int, size: Size, state: int) -> None:
        super().__init__()
        self.shape = (channels, *size)
        self.paint = initialize(nn.Linear(state, channels * size[0] * size[1]))

    def forward(self, state: Tensor) -> tuple[Tensor, None]:
        return self.paint(state).unflatten(1, self.shape), None


class WindowWriter(Writer):
    """Paints n x n numbers through a window; both are linear functions of the state (section 3.2).

    Args:
        channels: C.
        size: (H, W).
        patch: n.
        state: S.
    """

    def __init__(self, channels: int, size: Size, patch: int, state: int) -> None:
        super().__init__()
        self.size = size
        self.patch = patch
        self.shape = (channels, patch, patch)
        # A number is divided by the intensity and multiplied by the filter's peak, which are equal at first.
        self.window = window_layer(state, patch, size, intensity=0.5 / math.pi)
        self.paint = initialize(nn.Linear(state, channels * patch * patch))

    def forward(self, state: Tensor) -> tuple[Tensor, GaussianWindow]:
        window = gaussian_window(self.window(state), self.patch, self.size)
        return window.write(self.paint(state).unflatten(1, self.shape)), window


def window_layer(state: int, patch: int, size: Size, intensity: float = 1.0) -> nn.Linear:
    """The linear function from a state to a window; at first roughly centered, with each filter in one of n x n equal
    cells of the image.

    Differs from the paper, whose layer has no special initialization: with all parameters zero the outermost filters
    are on the border of the image. The four of a 2 x 2 window then see the corners, which are blank in all digits, and
    on MNIST training stays at a blank canvas with a KL of 0.

    Args:
        state: S.
        patch: n.
        size: (H, W).
        intensity: gamma, at first.
    """
    layer = initialize(nn.Linear(state, N_PARAMETERS))
    side = max(size)
    with torch.no_grad():
        if patch > 1 and side > 1:
            layer.bias[LOG_STRIDE] = math.log(side / patch * (patch - 1) / (side - 1))
        layer.bias[LOG_INTENSITY] = math.log(intensity)
    return layer


class LSTMStep(nn.Module):
    """One step of an LSTM (Hochreiter & Schmidhuber 1997), initial weights and order of the gates as in torch, which
    has a second bias.

    torch's own cell is one fused kernel on a GPU, which vmap cannot stack, and keeps its memory in half precision under
    autocast; here it stays in full precision.

    Args:
        in_features: of what is read.
        hidden: S.
    """

    def __init__(self, in_features: int, hidden: int) -> None:
        super().__init__()
        self.gates = nn.Linear(in_features + hidden, 4 * hidden)
        bound = hidden**-0.5
        for parameter in self.gates.parameters():
            nn.init.uniform_(parameter, -bound, bound)

    def forward(self, x: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """x (N, in_features) and (h, c), (N, S) each -> (h, c)."""
        h, c = state
        entry, forget, cell, exit_ = self.gates(torch.cat([x, h.to(x.dtype)], 1)).chunk(4, 1)
        c = forget.sigmoid() * c + entry.sigmoid() * cell.tanh()
        return exit_.sigmoid() * c.tanh(), c
