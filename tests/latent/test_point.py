"""Points in place of distributions, on known answers."""

import latent_contract as contract
import pytest
import torch

from attelbo.latent import Point

NAMES = sorted(contract.FAMILIES["posterior"]["point"])


@pytest.mark.parametrize("name", NAMES)
def test_a_point_is_one_linear_map_of_the_features(name: str) -> None:
    posterior = contract.build_part("posterior", name, in_shape=(3, 2, 2), latent_dim=5)
    h = torch.randn(4, 3, 2, 2, dtype=torch.float64)
    q = posterior(h)
    rows = h.permute(0, 2, 3, 1).reshape(4, 12)  # pixel by pixel
    torch.testing.assert_close(q.mean, rows @ posterior.head.weight.T + posterior.head.bias)
    assert posterior.latent_shape == (5,)
    assert isinstance(q, posterior.distribution)
    assert not posterior.has_density
    with pytest.raises(ValueError, match=r"^latent_dim must be at least 1, got 0"):
        contract.build_part("posterior", name, in_shape=(3,), latent_dim=0)


def test_samples_are_the_point() -> None:
    value = torch.randn(4, 2, requires_grad=True)
    z = Point(value).rsample(3)
    assert z.shape == (3, 4, 2)
    assert all(torch.equal(sample, value) for sample in z)
    (gradient,) = torch.autograd.grad(z.sum(), value)
    assert (gradient == 3).all()
    assert Point.deterministic


def test_a_point_has_no_density() -> None:
    with pytest.raises(NotImplementedError, match="a point has no density"):
        Point(torch.zeros(1, 2)).rsample_with_log_prob(3)


def test_half_precision_is_lifted() -> None:
    assert Point(torch.zeros(1, 2, dtype=torch.bfloat16)).mean.dtype == torch.float32
