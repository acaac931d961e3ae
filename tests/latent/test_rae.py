"""Regularized autoencoders: each term against its definition, the Jacobian against autograd's own."""

import math

import latent_contract as contract
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from attelbo.attention import SelfAttention2d
from attelbo.latent import RAE, Bernoulli, Evidence, Point, StandardNormal


class Decoder(nn.Module):
    """z (n, 4) -> eta (n, 1, 2, 2), with attention, which is fused unless a second derivative is wanted."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 8)
        self.attention = SelfAttention2d(2, 1)
        self.output = nn.Linear(8, 4)

    def forward(self, z: Tensor) -> Tensor:
        h = self.attention(self.first(z).tanh().unflatten(1, (2, 2, 2)))
        return self.output(h.flatten(1)).unflatten(1, (1, 2, 2))


class Generative:
    def __init__(self) -> None:
        self.prior = StandardNormal((4,))
        self.likelihood = Bernoulli((1, 2, 2))
        self.decoder = contract.randomize(Decoder().double(), 0.7)

    def decode(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        return self.decoder(z.flatten(0, 1)).unflatten(0, z.shape[:2])

    def sample_prior(self, n: int) -> Tensor:
        return self.prior.sample(n)


@pytest.fixture
def model() -> Generative:
    torch.manual_seed(0)
    return Generative()


def evidence(model: Generative, z: Tensor) -> Evidence:
    x = (torch.arange(len(z) * 4, dtype=torch.float64) % 3 == 0).double().view(-1, 1, 2, 2)
    q = Point(z)
    eta = model.decode(q.rsample(1))
    log_likelihood = model.likelihood.log_prob(eta, x)
    return Evidence(log_likelihood, z.new_zeros(len(z), 0), q.rsample(1), q, x=x, eta=eta, generative=model)


Z = torch.tensor([[0.3, -1.0, 0.5, 2.0], [1.0, 0.0, -0.2, 0.1], [0.0, 0.4, 0.4, -2.0]], dtype=torch.float64)


def test_every_objective_of_points_is_here() -> None:
    assert contract.FAMILIES["objective"]["autoencoder"] == {"rae"}


def test_nothing_but_the_reconstruction(model: Generative) -> None:
    terms = evidence(model, Z)
    torch.testing.assert_close(RAE("none", z_weight=0.0)(terms), -terms.log_likelihood.mean())


def test_the_norm_of_z(model: Generative) -> None:
    terms = evidence(model, Z)
    difference = RAE("none", z_weight=0.25)(terms) - RAE("none", z_weight=0.0)(terms)
    assert difference.item() == pytest.approx(0.25 * 0.5 * float(Z.square().sum()) / 3)


def test_l2_is_the_sum_of_squares_of_the_decoder(model: Generative) -> None:
    terms = evidence(model, Z)
    difference = RAE("l2", weight=0.5, z_weight=0.0)(terms) - RAE("none", z_weight=0.0)(terms)
    squares = nn.utils.parameters_to_vector(model.decoder.parameters()).square().sum()
    torch.testing.assert_close(difference, 0.5 * squares)


def test_the_gradient_penalty_is_the_squared_jacobian(model: Generative) -> None:
    n = 4000
    terms = evidence(model, Z.repeat(n, 1))
    objective, plain = RAE("gradient_penalty", weight=1.0, z_weight=0.0), RAE("none", z_weight=0.0)
    estimate = (objective(terms) - plain(terms)).item()
    jacobians = [
        torch.autograd.functional.jacobian(lambda z: model.decode(z.view(1, 1, 4)).sigmoid().flatten(), z) for z in Z
    ]
    exact = sum(float(torch.as_tensor(jacobian).square().sum()) for jacobian in jacobians) / 3
    # Var |J^T v|^2 = 2 |J J^T|_F^2, for each x.
    variance = sum(2 * float((torch.as_tensor(j).T @ torch.as_tensor(j)).square().sum()) for j in jacobians) / 3
    assert abs(estimate - exact) < 5 * math.sqrt(variance / (3 * n))
    assert math.sqrt(variance / (3 * n)) < 0.02 * exact


def test_gradients_of_the_gradient_penalty(model: Generative) -> None:
    objective = RAE("gradient_penalty", weight=0.7, z_weight=0.3)

    def loss(z: Tensor, *parameters: Tensor) -> Tensor:
        torch.manual_seed(1)
        return objective(evidence(model, z))

    assert torch.autograd.gradcheck(loss, (Z.clone().requires_grad_(), *model.decoder.parameters()))


def test_it_can_be_evaluated_without_gradients(model: Generative) -> None:
    objective, values = RAE("gradient_penalty", weight=1.0), []
    for mode in (torch.enable_grad, torch.no_grad, torch.inference_mode):
        torch.manual_seed(1)
        with mode():
            values.append(objective(evidence(model, Z.clone())).item())
    assert values[1:] == values[:1] * 2


def test_a_spectral_decoder_is_smooth(model: Generative) -> None:
    RAE("spectral").attach(model)  # pyright: ignore[reportArgumentType]
    layers = [layer for layer in model.decoder.modules() if isinstance(layer, nn.Linear)]
    assert all(parametrize.is_parametrized(layer) == (layer is not model.decoder.output) for layer in layers)
    for _ in range(200):
        model.decode(Z.unsqueeze(0))
    for layer in layers[:-1]:
        assert torch.linalg.matrix_norm(layer.weight, 2).item() <= 1 + 1e-6


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"regularization": "l1"}, r"^regularization must be none or l2 or .* got 'l1'"),
        ({"weight": -1.0}, r"^weight must be finite and not negative, got -1.0"),
        ({"z_weight": math.inf}, r"^z_weight must be finite and not negative, got inf"),
    ],
)
def test_what_makes_no_sense(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RAE(**arguments)
