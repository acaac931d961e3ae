"""Maps of one size and their coarser versions: the scales of next-scale prediction (Tian et al. 2024, "Visual
Autoregressive Modeling: Scalable Image Generation via Next-Scale Prediction", arXiv:2404.02905, sec. 3.2).

Shapes: K scales, h_k x w_k the places of one, n_k = h_k w_k; H x W those of the last and largest, N = H W;
T = n_1 + ... + n_K codes; D features.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

Size = tuple[int, int]


class Pyramid(nn.Module):
    """Resizing between a map (..., N, D) and its coarser versions (..., n_k, D), as matrices.

    Down by the mean of the area that a place covers, up by bicubic interpolation, as the authors' code does. Both are
    linear; as products of matrices they have deterministic gradients on every device.

    Args:
        sizes: (h_k, w_k), the coarsest first.
    """

    def __init__(self, sizes: Sequence[Size]) -> None:
        super().__init__()
        self.sizes = tuple(sizes)
        self.lengths = tuple(math.prod(size) for size in sizes)
        for k, size in enumerate(sizes[:-1]):
            self.register_buffer(f"down_{k}", _resizing(sizes[-1], size, "area"), persistent=False)
            self.register_buffer(f"up_{k}", _resizing(size, sizes[-1], "bicubic"), persistent=False)

    def coarsen(self, full: Tensor, k: int) -> Tensor:
        """A map (..., N, D) at scale k: (..., n_k, D)."""
        return full if k == len(self.sizes) - 1 else self.get_buffer(f"down_{k}") @ full

    def refine(self, coarse: Tensor, k: int) -> Tensor:
        """A map of scale k (..., n_k, D) at the largest: (..., N, D)."""
        return coarse if k == len(self.sizes) - 1 else self.get_buffer(f"up_{k}") @ coarse

    def split(self, codes: Tensor) -> tuple[Tensor, ...]:
        """Codes (..., T) by scale: (..., n_k) each."""
        return codes.split(self.lengths, dim=-1)


def sizes_of(size: Size, heights: Sequence[int] | None) -> tuple[Size, ...]:
    """The scales of a map of H x W with these heights, widths in proportion; None: those of the paper, 1, 2, 3, 4, 5,
    6, 8, 10, 13, 16 and on by a quarter, up to H.

    Raises:
        ValueError: heights that do not rise from at least 1 to H.
    """
    height, width = size
    if heights is None:
        heights = [1]
        while heights[-1] < height:
            heights.append(min(height, heights[-1] + max(1, (heights[-1] + 2) // 4)))
    if not heights or heights[0] < 1 or heights[-1] != height or list(heights) != sorted(set(heights)):
        raise ValueError(f"scales must rise to {height}, the height of the encoder's map, got {list(heights)}")
    return tuple((own, max(1, round(own * width / height))) for own in heights)


def _resizing(source: Size, target: Size, mode: str) -> Tensor:
    """The matrix (target's places, source's places) of this interpolation."""
    each = torch.eye(math.prod(source), dtype=torch.float64).unflatten(1, source).unsqueeze(1)
    return nn.functional.interpolate(each, target, mode=mode).flatten(1).mT.to(torch.get_default_dtype()).contiguous()
