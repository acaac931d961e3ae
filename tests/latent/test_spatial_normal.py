"""Normal latents at the pixels of a feature map: a 1 x 1 convolution, and a distribution as any other."""

import latent_contract as contract
import pytest
import torch
from torch import distributions as D
from torch.nn import functional as F

from attelbo.latent import DiagonalNormalPosterior, SpatialNormalPosterior, StandardNormal
from attelbo.latent.spaces import Real

IN_SHAPE = (3, 4, 2)


def posterior() -> SpatialNormalPosterior:
    return contract.randomize(contract.build_part("posterior", "spatial_normal", in_shape=IN_SHAPE, latent_dim=5))


def features(batch: int = 3) -> torch.Tensor:
    return torch.randn(batch, *IN_SHAPE, dtype=torch.float64)


def test_the_head_is_a_convolution() -> None:
    part, h = posterior(), features()
    assert part.latent_shape == (5, 4, 2)
    assert part.space == Real((5, 4, 2))
    parameters = F.conv2d(h, part.head.weight[:, :, None, None], part.head.bias)
    q = part(h)
    torch.testing.assert_close(q.mean, parameters[:, :5])
    torch.testing.assert_close(q.log_std, parameters[:, 5:])


def test_density_and_kl_are_those_of_torch() -> None:
    q = posterior()(features())
    reference = D.Independent(D.Normal(q.mean, q.std), 3)
    z = q.rsample(4)
    assert z.shape == (4, 3, 5, 4, 2)
    torch.testing.assert_close(q.log_prob(z), reference.log_prob(z))
    prior = StandardNormal((5, 4, 2))
    kl = D.kl_divergence(reference, D.Independent(D.Normal(torch.zeros_like(q.mean), torch.ones_like(q.std)), 3))
    exact = prior.exact_kl(q)
    assert exact is not None
    torch.testing.assert_close(exact.sum(-1), kl)


def test_a_pixel_of_z_sees_its_own_pixel_only() -> None:
    h = features(1).requires_grad_()
    (gradient,) = torch.autograd.grad(posterior()(h).mean[0, :, 1, 0].square().sum(), h)
    seen = gradient[0].abs().sum(0)
    assert seen[1, 0] > 0
    seen[1, 0] = 0
    assert (seen == 0).all()


def test_a_vector_is_one_pixel() -> None:
    torch.manual_seed(0)
    part = SpatialNormalPosterior((7,), 2)
    whole = DiagonalNormalPosterior((7,), 2)
    whole.load_state_dict(part.state_dict())
    assert part.latent_shape == whole.latent_shape == (2,)
    h = torch.randn(3, 7)
    torch.testing.assert_close((part(h).mean, part(h).std), (whole(h).mean, whole(h).std))


def test_the_first_standard_deviation_is_chosen() -> None:
    usual, narrow = (seeded_posterior(**options) for options in ({}, {"initial_std": 0.05}))
    h = features(3)
    torch.testing.assert_close(narrow(h).std, 0.05 * usual(h).std)
    torch.testing.assert_close(narrow(h).mean, usual(h).mean)
    with pytest.raises(ValueError, match=r"^initial_std must be positive and finite, got 0"):
        seeded_posterior(initial_std=0.0)
    with pytest.raises(ValueError, match=r"^latent_dim must be at least 1, got 0"):
        SpatialNormalPosterior(IN_SHAPE, 0)


def seeded_posterior(**options: float) -> SpatialNormalPosterior:
    torch.manual_seed(0)
    return SpatialNormalPosterior(IN_SHAPE, 2, **options).double()
