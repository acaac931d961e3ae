"""Each registered objective on known answers and by finite differences."""

import math
from collections.abc import Callable

import latent_contract as contract
import pytest
import torch
from torch import Tensor

from attelbo.latent import ELBO, IWAE, DiagonalNormal, Evidence


def evidence(log_likelihood: Tensor, kl: Tensor, log_weights: Tensor | None = None) -> Evidence:
    n, batch = log_likelihood.shape
    posterior = DiagonalNormal(torch.zeros(batch, 2), torch.zeros(batch, 2))
    return Evidence(log_likelihood, kl, z=torch.zeros(n, batch, 2), posterior=posterior, log_weights=log_weights)


# The loss written down once more, in the plainest way, for the arguments of the file.
TABLE: dict[str, Callable[[Evidence], float]] = {
    "elbo": lambda e: -float(e.log_likelihood.mean() - e.kl.sum(1).mean()),
    "iwae": lambda e: -float(torch.as_tensor(e.log_weights).exp().mean(0).log().mean()),
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
    assert contract.build_part("objective", name, n_samples=3).n_samples == 3


def test_elbo_is_minus_the_bound_of_the_evidence() -> None:
    terms = random_evidence()
    torch.testing.assert_close(ELBO()(terms), -terms.elbo.mean())


def test_weight_multiplies_the_kl_and_leaves_the_bound_alone() -> None:
    terms = random_evidence()
    before = terms.elbo
    difference = ELBO(weight=4.0)(terms) - ELBO(weight=1.0)(terms)
    torch.testing.assert_close(difference, 3 * terms.kl.sum(1).mean())
    assert (terms.elbo == before).all()


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


def test_iwae_without_weights_says_what_is_missing() -> None:
    with pytest.raises(ValueError, match="evidence has no log_weights"):
        IWAE()(evidence(torch.zeros(2, 1), torch.zeros(1, 1)))
