"""The radial flow (Rezende & Mohamed 2015, "Variational Inference with Normalizing Flows", eq. 14, appendix A.2).

Shapes: n samples, B batch, D dimensions.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from attelbo.latent.flows.base import Flow


class Radial(Flow):
    """z' = z + beta (z - c) / (alpha + r), r = |z - c|, with c (D), alpha and beta given for each row.

    Contracts towards c where beta < 0, expands where beta > 0. alpha > 0 and gamma = alpha + beta > 0, the condition
    for invertibility, are softplus of the given numbers, clamped from below at -10. The paper leaves the inverse to a
    numerical solver; but r solves the quadratic r^2 + (gamma - r') r - alpha r' = 0, of which one root is positive.

    Args:
        dim: D.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim
        self.n_given = dim + 2

    def forward(self, z: Tensor, given: Tensor) -> tuple[Tensor, Tensor]:
        center, alpha, gamma = self._unpack(given)
        deviation = z - center
        r = torch.linalg.vector_norm(deviation, dim=-1, keepdim=True)  # (n, B, 1)
        stretch = (r + gamma) / (r + alpha)  # 1 + beta / (alpha + r)
        return center + stretch * deviation, self._log_det(r, alpha, gamma, stretch)

    def inverse(self, z: Tensor, given: Tensor) -> tuple[Tensor, Tensor]:
        center, alpha, gamma = self._unpack(given)
        deviation = z - center
        moved = torch.linalg.vector_norm(deviation, dim=-1, keepdim=True)  # r', (n, B, 1)
        gap = moved - gamma
        # The larger of the two roots' sizes, without cancellation; their product is alpha r'.
        larger = 0.5 * (gap.abs() + (gap.square() + 4 * alpha * moved).sqrt())
        r = torch.where(gap >= 0, larger, alpha * moved / larger)
        stretch = (r + gamma) / (r + alpha)
        return center + deviation / stretch, -self._log_det(r, alpha, gamma, stretch)

    @torch.no_grad()
    def start(self, weight: Tensor, bias: Tensor) -> None:
        weight[self.dim :].zero_()  # alpha = gamma
        bias[self.dim :].zero_()

    def _unpack(self, given: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        center, shape = given.split([self.dim, 2], dim=-1)
        alpha, gamma = F.softplus(shape.clamp(min=-10.0)).split(1, dim=-1)
        return center, alpha, gamma

    def _log_det(self, r: Tensor, alpha: Tensor, gamma: Tensor, stretch: Tensor) -> Tensor:
        """``stretch`` in the D - 1 directions across the radius, and dr'/dr along it."""
        along = (r * (r + 2 * alpha) + alpha * gamma).log() - 2 * (r + alpha).log()
        return ((self.dim - 1) * stretch.log() + along).squeeze(-1)
