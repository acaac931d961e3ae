"""Each registered objective whose loss is a bound, on known answers and by finite differences."""

import math
from collections.abc import Callable
from typing import Any

import latent_contract as contract
import pytest
import torch
from torch import Tensor

from attelbo.latent import CIWAE, ELBO, IWAE, MIWAE, PIWAE, DiagonalNormal, DReG, Evidence, Lagging, Objective


def evidence(log_likelihood: Tensor, kl: Tensor, log_weights: Tensor | None = None) -> Evidence:
    n, batch = log_likelihood.shape
    posterior = DiagonalNormal(torch.zeros(batch, 2), torch.zeros(batch, 2))
    z, zeros = torch.zeros(n, batch, 2), torch.zeros(n, batch)
    return Evidence(log_likelihood, kl, z, posterior, log_weights, sample_weights=zeros)


def elbo(e: Evidence) -> float:
    return float(e.log_likelihood.mean() - e.kl.sum(1).mean())


def iwae(e: Evidence) -> float:
    return float(torch.as_tensor(e.log_weights).exp().mean(0).log().mean())


def miwae(e: Evidence) -> float:
    bounds = [math.log(sum(math.exp(w) for w in group) / len(group)) for group in _groups_of_two(e)]
    return sum(bounds) / len(bounds)


def _groups_of_two(e: Evidence) -> list[list[float]]:
    """Of 4 samples of each x: the first and the third, the second and the fourth."""
    return [column[g::2] for column in torch.as_tensor(e.log_weights).T.tolist() for g in (0, 1)]


# The loss written down once more, in the plainest way, for the arguments of the file.
TABLE: dict[str, Callable[[Evidence], float]] = {
    "ciwae": lambda e: -(0.05 * elbo(e) + 0.95 * iwae(e)),
    "dreg": lambda e: -iwae(e),
    "elbo": lambda e: -elbo(e),
    "iwae": lambda e: -iwae(e),
    "lagging": lambda e: -elbo(e),
    "miwae": lambda e: -miwae(e),
    "piwae": lambda e: -iwae(e),
}
NAMES = sorted(contract.FAMILIES["objective"]["bound"])


def random_evidence(n: int = 4) -> Evidence:
    log_likelihood, log_weights = torch.randn(2, n, 3, dtype=torch.float64)
    return evidence(log_likelihood, torch.rand(3, 5, dtype=torch.float64), log_weights)


def test_every_objective_is_in_the_table() -> None:
    assert set(NAMES) == set(TABLE)


@pytest.mark.parametrize("name", NAMES)
def test_loss_is_the_definition(name: str) -> None:
    terms = random_evidence()
    loss = contract.build_part("objective", name)(terms)
    assert loss.shape == ()
    assert float(loss) == pytest.approx(TABLE[name](terms))


@pytest.mark.parametrize("name", NAMES)
def test_gradients(name: str) -> None:
    objective = contract.build_part("objective", name)

    def loss(log_likelihood: Tensor, kl: Tensor, log_weights: Tensor) -> Tensor:
        return objective(evidence(log_likelihood, kl, log_weights))

    terms = random_evidence()
    assert terms.log_weights is not None
    inputs = (terms.log_likelihood, terms.kl, terms.log_weights)
    assert torch.autograd.gradcheck(loss, tuple(t.requires_grad_() for t in inputs))


@pytest.mark.parametrize("name", NAMES)
def test_no_samples_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"^n_samples must be at least 1, got 0"):
        contract.build_part("objective", name, n_samples=0)
    assert contract.build_part("objective", name, n_samples=4).n_samples == 4


def test_elbo_is_minus_the_bound_of_the_evidence() -> None:
    terms = random_evidence()
    torch.testing.assert_close(ELBO()(terms), -terms.elbo.mean())


def test_weight_multiplies_the_kl_and_leaves_the_bound_alone() -> None:
    terms = random_evidence()
    before = terms.elbo
    difference = ELBO(weight=4.0)(terms) - ELBO(weight=1.0)(terms)
    torch.testing.assert_close(difference, 3 * terms.kl.sum(1).mean())
    assert (terms.elbo == before).all()


def ramp(name: str, **values: float) -> dict[str, Any]:
    return {"_target_": f"attelbo.latent.schedules.{name}", **values}


@pytest.mark.parametrize(
    ("weight", "watched"),
    [
        (1.0, "elbo"),
        (ramp("Linear", fraction=1.0), "elbo"),
        (ramp("Cyclical", n_cycles=4, fraction=1.0), "elbo"),
        (ramp("Logistic", midpoint=2500.0), "elbo"),
        (4.0, "loss"),
        (0.0, "loss"),
        (ramp("Linear", end=4.0), None),
    ],
)
def test_the_bound_tells_the_best_epoch_only_where_it_is_the_aim(weight: Any, watched: str | None) -> None:
    assert ELBO(weight).watched == watched
    assert Lagging(weight=weight).watched == watched


def test_free_bits_known_answer() -> None:
    # Means over the batch: 0.5, 2.0, 0.0. Clamping each x by itself would give 1.0, 2.5, 1.0.
    kl = torch.tensor([[0.0, 3.0, 0.0], [1.0, 1.0, 0.0]])
    terms = evidence(torch.full((1, 2), -10.0), kl)
    assert float(ELBO(free_bits=0.75)(terms)) == pytest.approx(10 + 0.75 + 2.0 + 0.75)
    assert float(ELBO(free_bits=0.75, weight=2.0)(terms)) == pytest.approx(10 + 2 * 3.5)
    assert float(ELBO(free_bits=0.25)(terms)) == pytest.approx(10 + 0.5 + 2.0 + 0.25)


def test_free_bits_give_no_gradient_to_groups_below() -> None:
    kl = torch.tensor([[0.0, 3.0], [1.0, 1.0]], requires_grad=True)
    ELBO(free_bits=0.75)(evidence(torch.zeros(1, 2), kl)).backward()
    assert kl.grad is not None
    assert kl.grad.tolist() == [[0.0, 0.5], [0.0, 0.5]]


def test_a_negative_sampled_kl_is_not_cut_off() -> None:
    # The estimate of a small KL may be negative; cutting it off would bias the loss.
    assert float(ELBO()(evidence(torch.zeros(1, 2), torch.full((2, 1), -0.5)))) == pytest.approx(-0.5)


def test_scheduled_weight_is_written_in_place_and_travels_with_the_state() -> None:
    objective = ELBO(weight={"_target_": "attelbo.latent.schedules.Linear", "fraction": 0.5})
    buffer = objective.weight.value
    terms = random_evidence()
    losses = []
    for step in (0, 25, 50, 99):
        objective.at_step(step, 100)
        losses.append(float(objective(terms)))
    assert objective.weight.value is buffer
    distortion, kl = float(terms.reconstruction.mean()), float(terms.kl.sum(1).mean())
    assert losses == pytest.approx([distortion, distortion + 0.5 * kl, distortion + kl, distortion + kl])

    objective.at_step(25, 100)
    copy = ELBO()
    copy.load_state_dict(objective.state_dict())
    assert float(copy(terms)) == pytest.approx(losses[1])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"weight": -1.0}, r"^weight must be finite and not negative, got -1.0"),
        ({"weight": math.nan}, r"^weight must be finite"),
        ({"weight": {"_target_": "torch.nn.ReLU"}}, r"^weight must be a number or a schedule .* got torch.nn.ReLU"),
        ({"free_bits": -0.1}, r"^free_bits must be finite and not negative, got -0.1"),
    ],
)
def test_elbo_refuses_what_makes_no_sense(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ELBO(**arguments)


def test_iwae_best_sample_weighs_most() -> None:
    # A softmax over losses instead of log-weights turns this around.
    log_weights = torch.tensor([[-3.0], [-1.0], [-2.0]], requires_grad=True)
    IWAE(n_samples=3)(evidence(torch.zeros(3, 1), torch.zeros(1, 1), log_weights)).backward()
    assert log_weights.grad is not None
    torch.testing.assert_close(-log_weights.grad, log_weights.detach().softmax(0))
    assert int((-log_weights.grad).argmax()) == 1


def test_iwae_of_one_sample_is_its_weight_and_of_equal_samples_too() -> None:
    one = torch.tensor([[-3.0, -5.0]])
    for log_weights in (one, one.expand(7, -1)):
        n = len(log_weights)
        assert float(IWAE(n)(evidence(torch.zeros(n, 2), torch.zeros(2, 1), log_weights))) == pytest.approx(4.0)


def test_iwae_does_not_underflow() -> None:
    terms = evidence(torch.zeros(2, 1), torch.zeros(1, 1), torch.tensor([[-1e4], [-1e4]]))
    assert float(IWAE()(terms)) == pytest.approx(1e4)


@pytest.mark.parametrize("objective", [IWAE(), MIWAE(2, 1), CIWAE(), PIWAE(2, 1), DReG()], ids=repr)
def test_without_weights_it_says_what_is_missing(objective: Objective) -> None:
    with pytest.raises(ValueError, match="evidence has no log_weights"):
        objective(evidence(torch.zeros(2, 1), torch.zeros(1, 1)))


def test_miwae_is_between_iwae_and_the_sampled_elbo() -> None:
    log_weights = 2 * torch.randn(12, 3, dtype=torch.float64)
    terms = evidence(torch.zeros(12, 3), torch.zeros(3, 1), log_weights)
    losses = [float(MIWAE(12, groups)(terms)) for groups in (1, 2, 4, 12)]
    assert losses == sorted(losses)
    assert losses[0] == pytest.approx(float(IWAE(12)(terms)))
    assert losses[-1] == pytest.approx(-float(log_weights.mean()))


def test_ciwae_mixes_its_two_bounds() -> None:
    terms = random_evidence()
    assert float(CIWAE(beta=1.0)(terms)) == pytest.approx(float(ELBO()(terms)))
    assert float(CIWAE(beta=0.0)(terms)) == pytest.approx(float(IWAE()(terms)))


@pytest.mark.parametrize(
    ("kind", "arguments", "message"),
    [
        (MIWAE, {"n_samples": 8, "n_groups": 3}, r"^n_groups must divide n_samples, 8, got 3"),
        (PIWAE, {"n_groups": 0}, r"^n_groups must divide n_samples, 8, got 0"),
        (CIWAE, {"beta": 1.5}, r"^beta must be between 0 and 1, got 1.5"),
        (Lagging, {"inner_steps": 0}, r"^inner_steps must be at least 1, got 0"),
        (Lagging, {"fraction": 1.5}, r"^fraction must be between 0 and 1"),
    ],
)
def test_refuses_what_makes_no_sense(kind: type[Objective], arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        kind(**arguments)
