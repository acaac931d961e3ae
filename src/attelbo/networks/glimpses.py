"""How a recurrent network looks at an image and paints on a canvas: at the whole of it, or through a moving window.

Gregor et al. 2015, "DRAW", arXiv:1502.04623, sections 3.1 and 3.2.

Shapes: N rows, C channels, H x W pixels, n x n numbers of a patch, S the size of a state.
"""

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from attelbo.attention.glimpses import GaussianWindow, gaussian_window
from attelbo.attention.glimpses.gaussian import N_PARAMETERS
from attelbo.networks.layers import Size, initialize


class Reader(nn.Module, ABC):
    """Images (N, C, H, W) and a state (N, S) -> ``out_features`` numbers each, and the window they are seen through."""

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
        self.window = initialize(nn.Linear(state, N_PARAMETERS))

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
        self.window = initialize(nn.Linear(state, N_PARAMETERS))
        self.paint = initialize(nn.Linear(state, channels * patch * patch))

    def forward(self, state: Tensor) -> tuple[Tensor, GaussianWindow]:
        window = gaussian_window(self.window(state), self.patch, self.size)
        return window.write(self.paint(state).unflatten(1, self.shape)), window


class LSTMStep(nn.Module):
    """One step of an LSTM (Hochreiter & Schmidhuber 1997), initial weights and order of the
    gates as in torch.

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
