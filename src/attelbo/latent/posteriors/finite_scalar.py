"""Finite scalar quantization (Mentzer et al. 2023, "Finite Scalar Quantization: VQ-VAE Made Simple", arXiv:2309.15505).

Shapes: B batch, (H, W) places, Q codes at each, d scalars in each code, D = latent_dim = Q d.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from attelbo.latent.posteriors.quantizing import QuantizingPosterior, codes_at_places, straight_through

_MARGIN = 1e-3
"""Relative distance that keeps bounded values from rounding to an additional level."""


class FiniteScalarPosterior(QuantizingPosterior):
    """Each number of z is one of L_i evenly spaced values: no codebook, nothing to collapse, no penalty.

        u = (L - 1) / 2 * (1 - margin) * tanh(v + shift) - offset        z = round(u) / floor(L / 2)

    with offset 1/2 where L is even, and the shift by which v = 0 gives u = 0: the values run from -1 to 1 where L is
    odd, and from -1 to 1 - 2/L, with 0 among them, where it is even. The gradient of rounding is straight-through; that
    of tanh is exact. d numbers are one code out of prod(L_i) (sec. 3.1).

    Differs from the paper: its listing has tan(offset / ...) as shift, which tanh does not invert; latent_dim may be a
    multiple of d, for several codes at each place.

    Args:
        in_shape: of the encoder's output, (C,) or (C, H, W).
        latent_dim: D, a multiple of the number of levels.
        levels: L_i; the paper advises at least 5 each. 8 x 5 x 5 x 5 = 1,000 codes.

    Raises:
        ValueError: no level, one below 3, or a latent_dim that is not a multiple of their number.
    """

    half_range: Tensor
    offset: Tensor
    shift: Tensor
    half_width: Tensor
    basis: Tensor
    _levels: Tensor

    def __init__(self, in_shape: Sequence[int], latent_dim: int, levels: Sequence[int] = (8, 5, 5, 5)) -> None:
        if not levels or min(levels) < 3:
            raise ValueError(f"levels must be at least one number of at least 3, got {list(levels)}")
        if latent_dim % len(levels):
            raise ValueError(f"latent_dim must be a multiple of {len(levels)}, the number of levels, got {latent_dim}")
        per_place = latent_dim // len(levels)
        super().__init__(in_shape, latent_dim, codes_at_places(in_shape, per_place, math.prod(levels), per_place))
        self._groups = (per_place, len(levels))
        n = torch.tensor(levels, dtype=torch.get_default_dtype())
        half_range = (n - 1) * (1 - _MARGIN) / 2
        offset = 0.5 * (1 - n % 2)
        basis = torch.tensor([math.prod(levels[:place]) for place in range(len(levels))])
        # (d,) each; the index of a code counts its first scalar fastest.
        for name, value in {
            "half_range": half_range,
            "offset": offset,
            "shift": (offset / half_range).atanh(),
            "half_width": n.div(2, rounding_mode="floor"),
            "basis": basis,
            "_levels": torch.tensor(levels),
        }.items():
            self.register_buffer(name, value, persistent=False)

    def quantize(self, v: Tensor) -> tuple[Tensor, Tensor, None]:
        u = self.half_range * (v.unflatten(-1, self._groups) + self.shift).tanh() - self.offset
        level = straight_through(u, u.round())
        codes = ((level.detach() + self.half_width).round().long() * self.basis).sum(-1)
        return (level / self.half_width).flatten(-2), codes, None

    def look_up(self, codes: Tensor) -> Tensor:
        levels = self.by_place(codes).unsqueeze(-1).div(self.basis, rounding_mode="floor") % self._levels
        return ((levels - self.half_width) / self.half_width).flatten(-2)
