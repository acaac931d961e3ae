"""How the parameters of scores begin.

Shapes: N heads.
"""

import torch
from torch import Tensor, nn


def glorot(heads: int, fan_in: int, fan_out: int) -> Tensor:
    """Matrices (N, in, out), Glorot-uniform, each head by itself."""
    weights = torch.empty(heads, fan_in, fan_out)
    for weight in weights:
        nn.init.xavier_uniform_(weight)
    return weights
