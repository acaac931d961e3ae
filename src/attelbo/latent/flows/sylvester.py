"""The Sylvester flow, by Householder reflections (van den Berg et al. 2018, "Sylvester Normalizing Flows for
Variational Inference", eq. 13-15 and sec. 4: H-SNF).

Shapes: n samples, B batch, D dimensions, H reflections.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from attelbo.checks import check_at_least
from attelbo.latent.arithmetic import full_precision
from attelbo.latent.flows.base import Flow
from attelbo.latent.triangular import triangular, triangular_places

_DIAGONAL_BOUND = 0.999
"""So that 1 - r s stays positive in float32."""


class Sylvester(Flow):
    """z' = z + Q R tanh(S Q^T z + b): Q orthogonal, R and S upper triangular (D, D), all given for each row.

    Q is the product of H reflections I - 2 v v^T. The determinant is prod_i (1 + tanh'(.)_i R_ii S_ii); the diagonals
    of R and S go through tanh, so that every factor is positive and the flow invertible. All of R, S, b and the
    v are given, D (D + H + 2) numbers; what lies above the diagonals is divided by sqrt(D), as in the planar flow. The
    inverse is not known in closed form.

    Args:
        dim: D.
        n_reflections: H. D of them reach every orthogonal matrix of determinant (-1)^D.

    Raises:
        ValueError: n_reflections below 1.
    """

    _places: Tensor

    def __init__(self, dim: int, n_reflections: int = 8) -> None:
        super().__init__()
        check_at_least(1, n_reflections=n_reflections)
        self.dim = dim
        self.register_buffer("_places", triangular_places(dim, "above"), persistent=False)
        n_above = dim * (dim - 1) // 2
        self.sizes = [dim, n_above, dim, n_above, dim, n_reflections * dim]
        self.n_given = sum(self.sizes)

    def forward(self, z: Tensor, given: Tensor) -> tuple[Tensor, Tensor]:
        r_diagonal, r_above, s_diagonal, s_above, b, vectors = given.split(self.sizes, dim=-1)
        r_above, s_above = r_above / math.sqrt(self.dim), s_above / math.sqrt(self.dim)
        r_diagonal, s_diagonal = _DIAGONAL_BOUND * r_diagonal.tanh(), _DIAGONAL_BOUND * s_diagonal.tanh()
        # Autocast would round the products to bfloat16, and the determinant would be that of another map.
        with torch.autocast(z.device.type, enabled=False):
            q = orthogonal(vectors.unflatten(-1, (-1, self.dim)).mT)
            outer = q @ triangular(r_diagonal, r_above, self._places)
            inner = triangular(s_diagonal, s_above, self._places) @ q.mT
            rows = full_precision(z).transpose(0, 1)  # (B, n, D)
            t = torch.tanh(torch.baddbmm(b.unsqueeze(1), rows, inner.mT))
            moved = torch.baddbmm(rows, t, outer.mT)
        slope = 1 - t.square()
        log_det = torch.log1p(slope * (r_diagonal * s_diagonal).unsqueeze(1)).sum(-1)  # (B, n)
        return moved.transpose(0, 1), log_det.mT

    @torch.no_grad()
    def start(self, weight: Tensor, bias: Tensor) -> None:
        n_entries = len(self._places)
        weight[:n_entries].zero_()  # R
        bias[:n_entries].zero_()


def orthogonal(vectors: Tensor) -> Tensor:
    """The product Q (B, D, D) of the reflections at the planes across the columns of ``vectors`` (B, D, H).

    All at once: with the columns V of unit length, Q = I - V T V^T, and the inverse of T is the part of V^T V above the
    diagonal with 1/2 on it (Joffrain et al. 2006, "Accumulating Householder transformations, revisited").
    """
    v = F.normalize(vectors, dim=-2)
    identity = torch.eye(v.shape[-1], dtype=v.dtype, device=v.device)
    inverse = (v.mT @ v).triu(1) + 0.5 * identity
    vt = torch.linalg.solve_triangular(inverse, v, upper=True, left=False)
    return torch.eye(v.shape[-2], dtype=v.dtype, device=v.device) - vt @ v.mT
