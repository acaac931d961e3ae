"""Discriminators against densities that are known, and their losses against torch's own."""

import math

import pytest
import torch
from torch import distributions as D
from torch.nn import functional as F

from attelbo.latent import Factor
from attelbo.latent.critics import Critic, ImageCritic, loss_of_critic, loss_of_maker, shuffled


def test_losses_are_cross_entropies() -> None:
    real, made = torch.randn(2, 50, dtype=torch.float64)
    ones, zeros = torch.ones_like(real), torch.zeros_like(real)
    both = F.binary_cross_entropy_with_logits(real, ones) + F.binary_cross_entropy_with_logits(made, zeros)
    torch.testing.assert_close(loss_of_critic(real, made), both)
    torch.testing.assert_close(loss_of_maker(made), F.binary_cross_entropy_with_logits(made, ones))
    assert loss_of_critic(zeros, zeros).item() == pytest.approx(2 * math.log(2))
    assert loss_of_critic(1e4 * ones, -1e4 * ones).item() == 0  # and no overflow
    assert loss_of_maker(-1e4 * ones).item() == pytest.approx(1e4)


def test_shuffled_permutes_each_dimension_by_itself() -> None:
    torch.manual_seed(0)
    z = torch.arange(2 * 50 * 3, dtype=torch.float64).view(2, 50, 3)
    mixed = shuffled(z)
    assert torch.equal(mixed.sort(1).values, z)  # each sample's and dimension's own values, in another order
    orders = [mixed[k, :, d] - z[k, 0, d] for k in range(2) for d in range(3)]
    assert all(not torch.equal(a, b) for i, a in enumerate(orders) for b in orders[:i])


def test_shuffled_takes_every_place_equally_often() -> None:
    torch.manual_seed(0)
    n = 20_000
    places = shuffled(torch.arange(4.0).view(1, 4, 1).expand(n, 4, 1))[:, 0, 0]
    frequencies = torch.bincount(places.long(), minlength=4) / n
    assert (frequencies - 0.25).abs().max() < 5 * math.sqrt(0.25 * 0.75 / n)


def train(critic: torch.nn.Module, loss, steps: int = 400) -> None:
    optimizer = torch.optim.Adam(critic.parameters(), lr=5e-3)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = 5e-3 * (1 - step / steps)
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()


def test_a_trained_critic_is_the_log_density_ratio() -> None:
    torch.manual_seed(0)
    real, made = D.Normal(0.5, 1.0), D.Normal(-0.5, 1.0)
    critic = Critic((1,), [32])
    train(critic, lambda: loss_of_critic(critic(real.sample((500, 1))), critic(made.sample((500, 1)))))
    t = torch.linspace(-1.5, 1.5, 7).unsqueeze(1)
    with torch.no_grad():
        torch.testing.assert_close(critic(t), t.squeeze(1), atol=0.15, rtol=0)  # log p/q = t


@pytest.mark.parametrize("correlation", [0.0, 0.8])
def test_total_correlation_of_gaussians(correlation: float) -> None:
    """TC of a Gaussian is -log det R / 2 of its correlation matrix R, whatever its means and variances."""
    torch.manual_seed(0)
    covariance = torch.tensor([[4.0, 2 * correlation, 0.0], [2 * correlation, 1.0, 0.0], [0.0, 0.0, 1.0]])
    q = D.MultivariateNormal(torch.tensor([1.0, 0.0, -1.0]), covariance)
    objective = Factor((3,), hidden=[32, 32])

    def loss() -> torch.Tensor:
        z = q.sample((1, 500))
        return loss_of_critic(objective.critic(z.flatten(0, 1)), objective.critic(shuffled(z).flatten(0, 1)))

    train(objective.critic, loss)
    with torch.no_grad():
        estimate = objective.total_correlation(q.sample((1, 20_000))).item()
    assert estimate == pytest.approx(-0.5 * math.log(1 - correlation**2), abs=0.06)


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 7, 5), (2, 1, 9)])
def test_images_of_any_size_row_by_row(shape: tuple[int, ...]) -> None:
    critic = ImageCritic(shape, [4, 8, 8]).double()
    x = torch.rand(5, *shape, dtype=torch.float64)
    logits, features = critic(x)
    assert logits.shape == (5,)
    alone = [critic(row.unsqueeze(0)) for row in x]
    torch.testing.assert_close(logits, torch.cat([logit for logit, _ in alone]))
    torch.testing.assert_close(features, torch.cat([feature for _, feature in alone]))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Critic((2,), [4, 0]), r"^hidden must be positive numbers, got \[4, 0\]"),
        (lambda: ImageCritic((5,), [4]), r"^data_shape must be \(channels, height, width\) for images, got \(5,\)"),
        (lambda: ImageCritic((1, 4, 4), []), r"^channels must name at least one level"),
        (lambda: ImageCritic((1, 4, 4), [-1]), r"^channels must be positive numbers, got \[-1\]"),
    ],
)
def test_what_makes_no_sense(build, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()
