from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch import distributions as D


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture
def linear_gaussian() -> tuple[Callable[[Tensor], Tensor], Tensor]:
    """z (n, 3, 2) -> log p(x, z) of x = W z + b + noise, of four dimensions, and log p(x), (3,)."""
    weight, bias = torch.randn(4, 2, dtype=torch.float64), torch.randn(4, dtype=torch.float64)
    x, std = torch.randn(3, 4, dtype=torch.float64) + bias, 0.7

    def log_joint(z: Tensor) -> Tensor:
        log_likelihood = D.Normal(z @ weight.T + bias, std).log_prob(x).sum(-1)
        return log_likelihood + D.Normal(0.0, 1.0).log_prob(z).sum(-1)

    covariance = weight @ weight.T + std**2 * torch.eye(4, dtype=torch.float64)
    return log_joint, D.MultivariateNormal(bias, covariance).log_prob(x)
