"""The planar flow (Rezende & Mohamed 2015, "Variational Inference with Normalizing Flows", eq. 10-12, appendix A.1).

Shapes: n samples, B batch, D dimensions.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from attelbo.latent.flows.base import Flow

_AT_ONE = math.log(math.e - 1)
"""softplus of it is 1."""


class Planar(Flow):
    """z' = z + u tanh(w^T z + b), with u, w (D) and b given for each row: moves z along u, by its place along w.

    It is invertible where w^T u > -1: the given u is moved along w so that w^T u becomes -1 + softplus(log(e - 1) + w^T
    u). The constant is not in the appendix; with it u = 0, the identity, where training starts, is left unchanged. The
    argument of softplus is clamped from below at -10, so that the determinant stays positive in float32. The inverse
    requires numerical root finding and is not implemented.

    u and w are the given numbers divided by sqrt(D), so that of numbers around 1 z moves by a length around 1, whatever
    D. Adam moves all numbers equally far: without it, its first steps throw z out of the reach of the decoder.

    Args:
        dim: D.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim
        self.n_given = 2 * dim + 1

    def forward(self, z: Tensor, given: Tensor) -> tuple[Tensor, Tensor]:
        directions, b = given.split([2 * self.dim, 1], dim=-1)
        u, w = (directions / math.sqrt(self.dim)).chunk(2, dim=-1)
        inner = (w * u).sum(-1, keepdim=True)
        wanted = F.softplus((inner + _AT_ONE).clamp(min=-10.0))  # 1 + w^T u, (B, 1), > 0
        squared = w.square().sum(-1, keepdim=True).clamp(min=torch.finfo(w.dtype).tiny)
        u = u + (wanted - 1 - inner) * w / squared
        t = torch.tanh((z * w).sum(-1, keepdim=True) + b)  # (n, B, 1)
        slope = 1 - t.square()
        # 1 + slope (w^T u) as a mean of positive numbers
        log_det = (1 - slope + slope * wanted).log()
        return z + u * t, log_det.squeeze(-1)

    @torch.no_grad()
    def start(self, weight: Tensor, bias: Tensor) -> None:
        weight[: self.dim].zero_()  # u
        bias[: self.dim].zero_()
