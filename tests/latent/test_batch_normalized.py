"""Posteriors that are normalized over the batch, against torch's batch normalization and the bound on their KL."""

from typing import Any

import latent_contract as contract
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from attelbo.latent import BatchNormalizedPosterior, StandardNormal

NAMES = sorted(contract.FAMILIES["posterior"]["batch"])
IN_SHAPE, DIM = (3, 2, 2), 5


def posterior(name: str = "batch_normalized", **options: Any) -> Any:
    part = contract.build_part("posterior", name, in_shape=IN_SHAPE, latent_dim=DIM, **options)
    return contract.randomize(part, scale=0.5)


def features(batch: int = 40, seed: int = 0) -> Tensor:
    return torch.randn(batch, *IN_SHAPE, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def flat(h: Tensor) -> Tensor:
    return h.movedim(1, -1).flatten(1)


def test_there_is_one_and_it_is_this() -> None:
    assert NAMES == ["batch_normalized"]


@pytest.mark.parametrize("gamma", [0.3, 1.0])
def test_means_are_those_of_torchs_batch_normalization(gamma) -> None:
    part = posterior(gamma=gamma)
    average, variance = part.average.clone(), part.variance.clone()
    q = part(features())
    raw = part.means(flat(features()))
    weight = torch.full((DIM,), gamma, dtype=torch.float64)
    expected = F.batch_norm(raw, average, variance, weight, part.shift, training=True, momentum=0.1, eps=1e-5)
    torch.testing.assert_close(q.mean, expected)
    torch.testing.assert_close(part.average, average)
    n = len(raw)  # torch keeps the unbiased variance
    torch.testing.assert_close(part.variance - 0.9, (variance - 0.9) * (n - 1) / n)


def test_means_start_around_zero() -> None:
    part = contract.build_part("posterior", "batch_normalized", in_shape=IN_SHAPE, latent_dim=DIM)
    torch.testing.assert_close(part(features()).mean.mean(0), torch.zeros(DIM, dtype=torch.float64))


@pytest.mark.parametrize("gamma", [0.2, 0.7])
def test_the_kl_has_a_lower_bound_whatever_the_weights(gamma) -> None:
    for seed in range(5):
        torch.manual_seed(seed)
        part = contract.randomize(posterior(gamma=gamma), scale=2.0**seed / 8)
        q = part(features(400, seed))
        kl = StandardNormal((DIM,)).exact_kl(q)
        assert kl is not None
        least = 0.5 * (DIM * gamma**2 + part.shift.square().sum())
        assert kl.sum(-1).mean() >= least - 1e-3
    # Where the deviations are those of the prior, that is the KL.
    with torch.no_grad():
        part.log_stds.weight.zero_()
        part.log_stds.bias.zero_()
    found = StandardNormal((DIM,)).exact_kl(part(features(400))).sum(-1).mean()
    torch.testing.assert_close(found, least, rtol=1e-4, atol=0)


def test_an_evaluated_posterior_is_a_function_of_its_own_row() -> None:
    part = posterior(momentum=1.0)
    together = part(features()).mean  # which are now the moving averages too
    part.eval()
    torch.testing.assert_close(part(features()).mean, together)
    torch.testing.assert_close(part(features()[:1]).mean, together[:1])
    before = part.average.clone()
    part(features(seed=1))
    assert (part.average == before).all()


def test_a_row_by_itself_moves_no_average_and_is_normalized_by_them() -> None:
    part = posterior()
    part(features())
    state = {name: value.clone() for name, value in part.named_buffers()}
    alone = part(features()[:1]).mean
    assert all(torch.equal(value, state[name]) for name, value in part.named_buffers())
    torch.testing.assert_close(alone, part.eval()(features()[:1]).mean)


def test_evaluation_is_deterministic_density_of_torch() -> None:
    q = posterior().eval()(features(4))
    z = torch.randn(6, 4, DIM, dtype=torch.float64)
    reference = torch.distributions.Independent(torch.distributions.Normal(q.mean, q.log_std.exp()), 1)
    torch.testing.assert_close(q.log_prob(z), reference.log_prob(z))


def test_every_parameter_is_trained() -> None:
    part = posterior()
    q = part(features())
    StandardNormal((DIM,)).exact_kl(q).square().sum().backward()  # pyright: ignore[reportOptionalMemberAccess]
    assert all(parameter.grad is not None and (parameter.grad != 0).all() for parameter in part.parameters())


def test_gradients_by_finite_differences() -> None:
    part = posterior()

    def mean(h: Tensor) -> Tensor:
        return part(h).mean

    assert torch.autograd.gradcheck(mean, (features(6).requires_grad_(),))


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"latent_dim": 0}, "latent_dim must be at least 1, got 0"),
        ({"gamma": 0.0}, r"gamma must be positive and finite, got 0\.0"),
        ({"eps": -1.0}, r"eps must be positive and finite, got -1\.0"),
        ({"momentum": 0.0}, r"momentum must be in \(0, 1\], got 0\.0"),
    ],
)
def test_numbers_out_of_range(options, told) -> None:
    with pytest.raises(ValueError, match=rf"^{told}$"):
        BatchNormalizedPosterior(IN_SHAPE, **{"latent_dim": DIM, **options})
