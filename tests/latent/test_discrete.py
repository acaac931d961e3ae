"""Categorical and joint posteriors with their priors, against torch.distributions and enumeration."""

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import latent_contract as contract
import pytest
import torch
from torch import Tensor
from torch import distributions as D

from attelbo.latent import JointPrior, OneHotCategorical, RelaxedOneHot, UniformCategorical
from attelbo.latent.spaces import Codes, Product, Real

IN_SHAPE = (3, 2, 2)


@dataclass(frozen=True)
class Entry:
    prior: str
    settings: dict[str, Any]
    """Small: two choices of three, or of three and two beside two normal dimensions."""
    choices: tuple[tuple[int, int], ...]
    """Where the one-hot vectors are in the flattened z: (first, classes)."""
    log_prob: Callable[[Any, Tensor], Tensor]
    """log q of flattened z (n, B, D), by torch."""


def of_choices(log_probs: Tensor, z: Tensor) -> Tensor:
    return D.Independent(D.OneHotCategorical(logits=log_probs, validate_args=False), 1).log_prob(z)


def of_joint(q: Any, z: Tensor) -> Tensor:
    normal, *choices = q.parts
    total = D.Independent(D.Normal(normal.mean, normal.std), 1).log_prob(z[..., :2])
    for part, own in zip(choices, z[..., 2:].split([3, 2], dim=-1), strict=True):
        total = total + of_choices(part.log_probs, own.unsqueeze(-2))
    return total


TABLE = {
    "gumbel_softmax": Entry(
        "uniform_categorical",
        {"n_classes": 3},
        ((0, 3), (3, 3)),
        lambda q, z: of_choices(q.log_probs, z.unflatten(-1, (2, 3))),
    ),
    "joint": Entry("joint", {"categories": [3, 2]}, ((2, 3), (5, 2)), of_joint),
}
NAMES = sorted(contract.FAMILIES["posterior"]["discrete"])


def posterior(name: str, **settings: Any) -> Any:
    settings = {**TABLE[name].settings, **settings}
    part = contract.build_part("posterior", name, in_shape=IN_SHAPE, latent_dim=2, **settings)
    return contract.randomize(part, scale=0.3)


def prior(name: str) -> Any:
    part = posterior(name)
    given = {"space": part.space} if name == "joint" else {"latent_shape": part.latent_shape}
    return contract.build_part("prior", TABLE[name].prior, **given)


def features(batch: int = 4) -> Tensor:
    return torch.randn(batch, *IN_SHAPE, dtype=torch.float64)


def choices_of(name: str, z: Tensor) -> list[Tensor]:
    """The (relaxed) one-hot vectors in z, each (n, B, K)."""
    flat = z.flatten(2)
    return [flat[..., first : first + classes] for first, classes in TABLE[name].choices]


def probabilities(name: str, q: Any) -> list[Tensor]:
    """Those of each choice, (B, K)."""
    if name == "joint":
        return [part.log_probs.exp()[:, 0] for part in q.parts[1:]]
    return list(q.log_probs.exp().unbind(1))


def test_every_part_is_in_the_table() -> None:
    assert set(NAMES) == set(TABLE)
    assert contract.FAMILIES["prior"]["discrete"] == {entry.prior for entry in TABLE.values()}


@pytest.mark.parametrize("name", NAMES)
def test_in_evaluation_samples_are_true_ones_with_their_probability(name: str) -> None:
    q = posterior(name).eval()(features())
    z, log_q = q.rsample_with_log_prob(5)
    assert z.shape[:2] == (5, 4)
    for one_hot in choices_of(name, z):
        assert set(one_hot.unique().tolist()) == {0.0, 1.0}
        assert (one_hot.sum(-1) == 1).all()
    torch.testing.assert_close(log_q, TABLE[name].log_prob(q, z.flatten(2)))
    torch.testing.assert_close(q.log_prob(z), log_q)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("mode", ["evaluation", "cold", "warm"])
def test_the_largest_has_the_probabilities_of_the_categorical(name: str, mode: str) -> None:
    # Whatever the temperature (Maddison et al. 2017, proposition 1); towards 0 the largest is all there is.
    n = 40_000
    part = posterior(name, **({} if mode == "evaluation" else {"temperature": 0.001 if mode == "cold" else 1.5}))
    q = part.train(mode != "evaluation")(features(2))
    z = q.rsample(n).detach()
    for relaxed, expected in zip(choices_of(name, z), probabilities(name, q), strict=True):
        shares = torch.nn.functional.one_hot(relaxed.argmax(-1), relaxed.shape[-1]).double().mean(0)
        assert ((shares - expected).abs() < 5 * (expected * (1 - expected) / n).sqrt()).all()
        certain = (relaxed.amax(-1) > 0.99).double().mean()
        assert certain < 0.5 if mode == "warm" else certain > 0.98


@pytest.mark.parametrize("name", NAMES)
def test_kl_is_that_of_torch_by_group(name: str) -> None:
    for training in (True, False):
        q = posterior(name).train(training)(features())
        kl = prior(name).exact_kl(q)
        expected = []
        for p in probabilities(name, q):
            uniform = D.Categorical(torch.ones_like(p))
            expected.append(D.kl_divergence(D.Categorical(p), uniform))
        if name == "joint":
            normal = D.Normal(q.parts[0].mean, q.parts[0].std)
            expected = [*D.kl_divergence(normal, D.Normal(0.0, 1.0)).unbind(1), *expected]
        torch.testing.assert_close(kl, torch.stack(expected, dim=1))


def test_kl_is_that_of_enumeration() -> None:
    part = posterior("gumbel_softmax").eval()
    q, p = part(features()), prior("gumbel_softmax")
    every = torch.eye(3, dtype=torch.float64)
    z = torch.stack([torch.stack(pair) for pair in itertools.product(every, every)]).unsqueeze(1)  # (9, 1, 2, 3)
    log_q, log_p = q.log_prob(z), p.log_prob(z)
    torch.testing.assert_close(log_q.exp().sum(0), torch.ones(4, dtype=torch.float64))
    assert float(log_p.exp().sum()) == pytest.approx(1)
    torch.testing.assert_close((log_q.exp() * (log_q - log_p)).sum(0), p.exact_kl(q).sum(-1))


@pytest.mark.parametrize("name", NAMES)
def test_prior_density_and_samples(name: str) -> None:
    n, p = 20_000, prior(name)
    z = p.sample(n)
    assert z.shape == (n, *posterior(name).latent_shape)
    assert z.dtype == torch.float64
    for one_hot in choices_of(name, z.unsqueeze(1)):
        share = 1 / one_hot.shape[-1]
        assert ((one_hot.mean(0) - share).abs() < 5 * (share * (1 - share) / n) ** 0.5).all()
    expected = -sum(math.log(classes) for _, classes in TABLE[name].choices) * torch.ones(n, 1, dtype=torch.float64)
    if name == "joint":
        numbers = z[:, :2]
        assert ((numbers.mean(0).abs() < 5 / n**0.5) & ((numbers.var(0) - 1).abs() < 5 * (2 / n) ** 0.5)).all()
        expected += D.Normal(0.0, 1.0).log_prob(numbers).sum(-1, keepdim=True)
    torch.testing.assert_close(p.log_prob(z.unsqueeze(1)), expected)


@pytest.mark.parametrize("name", NAMES)
def test_gradients_through_relaxed_samples(name: str) -> None:
    part = posterior(name)

    def sample_and_log_prob(h: Tensor) -> tuple[Tensor, Tensor]:
        torch.manual_seed(1)
        return part(h).rsample_with_log_prob(2)

    assert torch.autograd.gradcheck(sample_and_log_prob, (features(2).requires_grad_(),))


def test_hard_samples_are_one_hot_and_have_the_gradient_of_the_relaxed() -> None:
    logits = torch.randn(3, 2, 4, dtype=torch.float64)
    weights = torch.randn(5, 3, 2, 4, dtype=torch.float64)
    gradients, samples = [], []
    for hard in (False, True):
        torch.manual_seed(1)
        leaf = logits.clone().requires_grad_()
        z = RelaxedOneHot(leaf, torch.tensor(0.7), hard).rsample(5)
        (z * weights).sum().backward()
        gradients.append(leaf.grad)
        samples.append(z.detach())
    torch.testing.assert_close(*gradients)
    relaxed, hard_ones = samples
    torch.testing.assert_close(hard_ones.sum(-1), torch.ones(5, 3, 2, dtype=torch.float64))
    torch.testing.assert_close(hard_ones.amax(-1), torch.ones(5, 3, 2, dtype=torch.float64))
    assert (hard_ones.argmax(-1) == relaxed.argmax(-1)).all()


@pytest.mark.parametrize("name", NAMES)
def test_the_mean_is_the_most_probable_point_of_the_space(name: str) -> None:
    q = posterior(name)(features())
    for one_hot, p in zip(choices_of(name, q.mean.unsqueeze(0)), probabilities(name, q), strict=True):
        assert (one_hot[0].argmax(-1) == p.argmax(-1)).all()
        assert (one_hot[0].sum(-1) == 1).all()


@pytest.mark.parametrize("name", NAMES)
def test_without_gradient_it_is_the_same_distribution(name: str) -> None:
    part = posterior(name)
    q = part(features())
    assert isinstance(q, part.distribution)
    z = q.rsample(3).detach().requires_grad_()
    log_q = q.stop_gradient().log_prob(z)
    torch.testing.assert_close(log_q, q.log_prob(z))
    log_q.sum().backward()
    assert z.grad is not None
    assert all(parameter.grad is None for parameter in part.parameters())


@pytest.mark.parametrize("name", NAMES)
def test_samples_of_one_row_do_not_depend_on_another(name: str) -> None:
    h = features(2).requires_grad_()
    (posterior(name)(h).rsample(3)[:, 0].square()).sum().backward()
    assert h.grad is not None
    assert h.grad[0].abs().sum() > 0
    assert (h.grad[1] == 0).all()


@pytest.mark.parametrize("name", NAMES)
def test_the_temperature_follows_its_schedule(name: str) -> None:
    linear = {"_target_": "attelbo.latent.schedules.Linear", "start": 1.0, "end": 0.5, "fraction": 1.0}
    part = posterior(name, temperature=linear)
    temperatures = []
    for step in (0, 50, 100):
        part.at_step(step, 100)
        temperatures.append(float(part.temperature.value))
    assert temperatures == [1.0, 0.75, 0.5]
    assert float(part.state_dict()["temperature.value"]) == 0.5


@pytest.mark.parametrize("name", NAMES)
def test_full_precision_under_autocast(name: str) -> None:
    part = posterior(name).float().eval()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        q = part(features().float())
        z, log_q = q.rsample_with_log_prob(50)
    assert z.dtype == log_q.dtype == torch.float32
    torch.testing.assert_close(log_q, TABLE[name].log_prob(q, z.flatten(2)), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_wild_features_stay_finite(name: str) -> None:
    part = posterior(name).float()
    h = (1e6 * features(8)).float().requires_grad_()
    q = part(h)
    (prior(name).float().exact_kl(q).sum() + q.rsample(1).square().sum()).backward()
    assert h.grad is not None
    assert h.grad.isfinite().all()


DOWN_TO_ZERO = {"_target_": "attelbo.latent.schedules.Cyclical", "start": 1.0, "end": 0.0, "fraction": 0.5}
"""Within each cycle; a run begins at one, and so does the cycle behind its end."""


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("gumbel_softmax", {"latent_dim": 0}, "latent_dim must be at least 1, got 0"),
        ("gumbel_softmax", {"n_classes": 1}, "n_classes must be at least 2, got 1"),
        ("gumbel_softmax", {"temperature": 0.0}, "temperature must be positive, got 0"),
        ("gumbel_softmax", {"temperature": -1.0}, "temperature must be "),
        ("gumbel_softmax", {"temperature": DOWN_TO_ZERO}, "temperature must be positive, got 0"),
        ("joint", {"temperature": DOWN_TO_ZERO}, "temperature must be positive, got 0"),
        ("joint", {"latent_dim": 0}, "latent_dim must be at least 1, got 0"),
        ("joint", {"categories": []}, "categories must name at least one variable"),
        ("joint", {"categories": [10, 1]}, "categories must be at least 2, got 1"),
    ],
)
def test_out_of_range(name: str, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        contract.build_part("posterior", name, **{"in_shape": IN_SHAPE, "latent_dim": 2, **settings})


def test_priors_know_no_kl_of_what_is_not_theirs() -> None:
    q = OneHotCategorical(torch.zeros(2, 1, 3))
    assert JointPrior(Product((4,), (Real((4,)),))).exact_kl(q) is None
    assert UniformCategorical((1, 3)).exact_kl(posterior("joint")(features())) is None
    with pytest.raises(ValueError, match=r"^parts must be real numbers or choices, got 2 codes out of 8"):
        JointPrior(Product((2,), (Codes((2,), 8),)))
