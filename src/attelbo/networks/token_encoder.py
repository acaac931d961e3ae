"""From an image or a text to one vector: tokens, a network that mixes them, and pooling.

Source: Dosovitskiy et al. 2021, "An Image is Worth 16x16 Words", of images; of texts the same with embedded tokens.

    x -- embedding --> tokens -- network --> tokens -- pooling --> h

Shapes: B batch, (C, H, W) image, P x P pixels of a patch, T tokens, E features of a token.
"""

from collections.abc import Sequence

from torch import Tensor, nn

from attelbo.attention import Padding, Position
from attelbo.networks.layers import Size, image_shape
from attelbo.networks.pooling import Pooling, with_own


def patch_grid(in_shape: Sequence[int], patch: int) -> Size:
    """Rows and columns of patches in an image (C, H, W).

    Raises:
        ValueError: not an image, or patches that do not tile it.
    """
    _, height, width = image_shape("in_shape", in_shape)
    if patch < 1 or height % patch or width % patch:
        divisors = [n for n in range(1, min(height, width) + 1) if height % n == width % n == 0]
        raise ValueError(f"patch must divide the {height} x {width} pixels of an image: one of {divisors}, got {patch}")
    return height // patch, width // patch


class PatchEmbedding(nn.Module):
    """Images (B, C, H, W) -> tokens (B, T, E): a linear layer on each P x P patch, row by row, with positions.

    Args:
        in_shape: (C, H, W).
        patch: P; must divide H and W.
        dim: E.
        position: its encoding at the input is added.
        dropout: on the sum, in training.

    Raises:
        ValueError: not an image, or patches that do not tile it.
    """

    def __init__(self, in_shape: Sequence[int], patch: int, dim: int, position: Position, dropout: float = 0.0) -> None:
        super().__init__()
        patch_grid(in_shape, patch)
        self.project = nn.Conv2d(in_shape[0], dim, patch, stride=patch)
        self.position = position
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.project(x).flatten(2).transpose(1, 2)
        return self.dropout(self.position.at_input(tokens))


class TokenEncoder(nn.Module):
    """x -> h (B, E).

    Args:
        embedding: from x to tokens (B, T, E).
        network: from tokens to tokens, of the same shape; takes a ``mask``.
        pooling: from tokens to h.
        padding: the padding token, where x are tokens; None: there is none.
    """

    def __init__(self, embedding: nn.Module, network: nn.Module, pooling: Pooling, padding: int | None = None) -> None:
        super().__init__()
        self.embedding = embedding
        self.network = network
        self.pooling = pooling
        self.padding = padding

    def forward(self, x: Tensor) -> Tensor:
        valid = None if self.padding is None else with_own(x != self.padding, self.pooling)
        tokens = self.pooling.join(self.embedding(x))
        return self.pooling(self.network(tokens, mask=None if valid is None else Padding(valid)), valid)
