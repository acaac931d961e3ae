"""A sampled KL with less noise: the same mean, and never much worse, wherever the prior is."""

import pytest
import torch
from torch import Tensor

from attelbo.latent import DiagonalNormal, StandardNormal
from attelbo.latent.control_variates import with_less_noise

B, D, REPEATS = 64, 6, 2000


def posterior(scale: float = 1.0) -> DiagonalNormal:
    mean, log_std = torch.randn(B, D, dtype=torch.float64), 0.5 * torch.randn(B, D, dtype=torch.float64) - 1
    return DiagonalNormal(scale * mean, log_std + torch.tensor(scale).log())


def estimates(q: DiagonalNormal, log_p) -> tuple[Tensor, Tensor]:
    """Of the mean KL over the batch, plain and with less noise, in many minibatches."""
    plain, less = [], []
    for _ in range(REPEATS):
        z, log_q, reference = q.rsample_for_kl(1)
        log_ratio = log_q - log_p(z)
        plain.append(log_ratio.mean())
        less.append(with_less_noise(log_ratio, reference).mean())
    return torch.stack(plain), torch.stack(less)


@torch.no_grad()
def test_the_reference_is_the_log_ratio_to_the_standard_normal_and_its_kl() -> None:
    q, p = posterior(), StandardNormal((D,)).double()
    z, log_q, reference = q.rsample_for_kl(3)
    torch.testing.assert_close(reference.sampled, log_q - p.log_prob(z))
    torch.testing.assert_close(reference.expected, torch.as_tensor(p.exact_kl(q)).sum(-1))


@torch.no_grad()
def test_beside_the_standard_normal_no_noise_is_left() -> None:
    q, p = posterior(), StandardNormal((D,)).double()
    plain, less = estimates(q, p.log_prob)
    exact = torch.as_tensor(p.exact_kl(q)).sum(-1).mean()
    assert plain.std() > 0.1
    # In one of a thousand minibatches or so, chance has it that the reference seems to say nothing of the rows.
    assert float(torch.quantile((less - exact).abs(), 0.99)) < 1e-9


@torch.no_grad()
@pytest.mark.parametrize("spread", [0.7, 1.5])
def test_near_it_much_of_the_noise_is_gone_and_the_mean_is_right(spread: float) -> None:
    q = posterior()
    p = torch.distributions.Normal(0.1, torch.tensor(spread, dtype=torch.float64))
    plain, less = estimates(q, lambda z: p.log_prob(z).sum(-1))
    assert less.std() < 0.6 * plain.std()
    # The coefficient is fitted to the samples: a bias of the order of one in B rows of what noise there was.
    assert (less.mean() - plain.mean()).abs() < 5 * plain.std() / REPEATS**0.5 + plain.std() / B


@torch.no_grad()
def test_far_from_it_nothing_is_made_worse() -> None:
    # Posteriors and prior that have moved far away together: the control is a thousand times as noisy as the ratio.
    q = posterior(scale=300.0)
    p = torch.distributions.Normal(0.0, torch.tensor(300.0, dtype=torch.float64))
    plain, less = estimates(q, lambda z: p.log_prob(z).sum(-1))
    control = q.rsample_for_kl(1)[2].control
    assert control.std() > 1000 * plain.std()
    assert less.std() < 1.5 * plain.std()


def test_one_row_and_nothing_known_change_nothing() -> None:
    q = DiagonalNormal(torch.zeros(1, 2), torch.zeros(1, 2))
    log_ratio = torch.tensor([[0.3]])
    assert with_less_noise(log_ratio, q.rsample_for_kl(1)[2]) == log_ratio
    _, log_q, reference = super(DiagonalNormal, q).rsample_for_kl(4)
    assert (reference.sampled == 0).all()
    assert (reference.expected == 0).all()
    assert (with_less_noise(log_q, reference) == log_q).all()
