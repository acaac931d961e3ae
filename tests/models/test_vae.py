"""The VAE as its parts are wired: shapes, terms, exact evaluation, errors of composition."""

import math

import pytest
import torch
from torch import nn

from attelbo.data.batch import Batch, DataSpec
from attelbo.errors import ConfigError
from attelbo.models import build_vae, count_parameters
from attelbo.models.schedulers import Cosine

SPEC = DataSpec("images", (3, 12, 8), "levels", None)
BINARY = DataSpec("bits", (1, 8, 8), "binary", None)
PARTS = {
    "encoder": {"_target_": "attelbo.networks.MLPEncoder", "hidden": [16], "activation": "tanh"},
    "decoder": {"_target_": "attelbo.networks.MLPDecoder", "hidden": [16], "activation": "tanh"},
    "posterior": {"_target_": "attelbo.latent.posteriors.DiagonalNormalPosterior"},
    "prior": {"_target_": "attelbo.latent.priors.StandardNormal"},
    "likelihood": {"_target_": "attelbo.latent.likelihoods.Bernoulli", "allow_levels": False},
    "objective": {"_target_": "attelbo.latent.objectives.ELBO", "weight": 1.0, "free_bits": 0.0, "n_samples": 1},
}
ADAM = {"_target_": "torch.optim.Adam", "lr": 1e-3}
CONSTANT = {"_target_": "attelbo.models.schedulers.Constant"}


def make(data=BINARY, latent_dim=3, scheduler=CONSTANT, **changes):
    parts = {name: {**node, **changes.pop(name, {})} for name, node in PARTS.items()}
    assert not changes
    torch.manual_seed(0)
    return build_vae(data=data, latent_dim=latent_dim, optimizer=ADAM, scheduler=scheduler, **parts)


def build(data, **parts):
    torch.manual_seed(0)
    return build_vae(data, latent_dim=3, optimizer=ADAM, scheduler=CONSTANT, **(PARTS | parts))


def batch(n: int, data=BINARY) -> Batch:
    x = torch.rand(n, *data.shape, generator=torch.Generator().manual_seed(5))
    return Batch(x.round() if data.kind == "binary" else (x * 255).round() / 255, None, torch.arange(n))


LEVELS = {"_target_": "attelbo.latent.likelihoods.Bernoulli", "allow_levels": True}


@pytest.mark.parametrize("data", [SPEC, BINARY], ids=lambda spec: spec.name)
@pytest.mark.parametrize("k", [1, 4])
def test_shapes(data, k):
    model = make(data, likelihood=LEVELS)
    x = batch(5, data).x
    evidence = model.evidence(x, n_samples=k, log_weights=True)
    assert evidence.log_likelihood.shape == (k, 5)
    assert evidence.kl.shape == (5, 3)
    assert evidence.z.shape == (k, 5, 3)
    assert evidence.log_weights is not None
    assert evidence.log_weights.shape == (k, 5)
    assert model.evidence(x, n_samples=k).log_weights is None
    assert model.encode(x).shape == (5, 3)
    assert model.weight_sampler(x)(k).shape == (k, 5)
    for images, n in ((model.reconstruct(x), 5), (model.sample(7), 7)):
        assert images.shape == (n, *data.shape)
        assert images.min() >= 0
        assert images.max() <= 1


def test_the_terms_are_those_of_the_definition():
    model = make()
    x = batch(6).x
    evidence = model.evidence(x, n_samples=2, log_weights=True)
    q = evidence.posterior
    reference = torch.distributions.Independent(torch.distributions.Normal(q.mean, q.std), 1)
    prior = torch.distributions.Independent(torch.distributions.Normal(torch.zeros(3), torch.ones(3)), 1)
    logits = model.decoder(evidence.z.flatten(0, 1)).unflatten(0, (2, 6))
    log_likelihood = torch.distributions.Bernoulli(logits=logits).log_prob(x).flatten(2).sum(2)
    torch.testing.assert_close(evidence.log_likelihood, log_likelihood)
    torch.testing.assert_close(evidence.kl.sum(-1), torch.distributions.kl_divergence(reference, prior))
    weights = log_likelihood + prior.log_prob(evidence.z) - reference.log_prob(evidence.z)
    torch.testing.assert_close(evidence.log_weights, weights)


def test_the_loss_is_the_objective_and_the_rest_is_only_watched():
    model = make(objective={"weight": 0.5})
    torch.manual_seed(1)
    terms = model.losses(batch(6))
    assert next(iter(terms)) == "loss"
    torch.testing.assert_close(terms["loss"], terms["reconstruction"] + 0.5 * terms["kl"])
    torch.testing.assert_close(terms["elbo"], -terms["reconstruction"] - terms["kl"])  # a bound, whatever the weight
    assert [name for name, value in terms.items() if value.requires_grad] == ["loss"]


def test_schedules_move():
    schedule = {"_target_": "attelbo.latent.schedules.Linear", "fraction": 0.5}
    model = make(objective={"weight": schedule})
    weights = []
    for step in (0, 25, 50, 99):
        model.at_step(step, 100)
        weights.append(float(model.objective.weight.value))
    assert weights[0] < weights[1] < weights[2] == weights[3] == 1.0


@pytest.mark.parametrize("sizes", [[30], [10, 10, 10], [17, 12, 1]])
def test_evaluation_is_exact_whatever_the_batches(sizes, monkeypatch):
    from attelbo.latent.distributions import DiagonalNormal

    monkeypatch.setattr(DiagonalNormal, "rsample", lambda self, n: self.mean.expand(n, *self.mean.shape))
    model = make()
    whole = batch(30)
    with torch.no_grad():
        evidence = model.evidence(whole.x)
        for x in whole.x.split(sizes):
            model.evaluation_step(Batch(x, None, torch.arange(len(x))))
    results = {name: float(value) for name, value in model.evaluation_results().items()}
    elbo = float(evidence.elbo.double().mean())
    assert results["elbo"] == pytest.approx(elbo, rel=1e-6)
    assert results["loss"] == pytest.approx(-elbo, rel=1e-6)
    assert results["kl"] == pytest.approx(float(evidence.kl.sum(-1).double().mean()), rel=1e-5)
    assert results["bits_per_dim"] == pytest.approx(-elbo / (64 * math.log(2)), rel=1e-6)
    with torch.no_grad():  # a clean slate
        model.evaluation_step(Batch(whole.x[:1], None, torch.arange(1)))
    assert float(model.evaluation_results()["elbo"]) == pytest.approx(float(evidence.elbo[0]), rel=1e-6)


def test_a_density_has_no_bits_per_dimension():
    normal = {"_target_": "attelbo.latent.likelihoods.Normal", "calibration": "fixed", "scale": 1.0}
    parts = PARTS | {"likelihood": normal}
    model = build_vae(data=SPEC, latent_dim=2, optimizer=ADAM, scheduler=CONSTANT, **parts)
    with torch.no_grad():
        model.evaluation_step(batch(4, SPEC))
    assert "bits_per_dim" not in model.evaluation_results()


HAMILTONIAN = {"_target_": "attelbo.latent.HamiltonianPosterior"}


@pytest.mark.parametrize("calibration", ["learned", "optimal"])
@pytest.mark.parametrize("likelihood", ["Normal", "Laplace"])
def test_a_posterior_follows_a_likelihood_while_its_scale_is_found(likelihood, calibration):
    likelihood = {"_target_": f"attelbo.latent.{likelihood}", "calibration": calibration}
    model = build(SPEC, posterior=HAMILTONIAN, likelihood=likelihood)
    x = batch(6, SPEC).x
    for _ in range(2):
        model.zero_grad()
        model.losses(batch(6, SPEC))["loss"].backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    if calibration == "optimal":
        assert model.likelihood._n_batches == 2  # what leads to z is not counted
    z = torch.randn(2, 6, 3, requires_grad=True)
    force = model.infer(x)._force(z)
    model.eval()
    log_joint = model.likelihood.log_prob(model.decode(z), x) + model.prior.log_prob(z)
    torch.testing.assert_close(force, *torch.autograd.grad(log_joint.sum(), z))


def test_a_posterior_that_follows_the_decoder_takes_none_that_normalizes_over_the_batch():
    normalized = {"batch_norm": True}
    build(BINARY, posterior=HAMILTONIAN, encoder=PARTS["encoder"] | normalized)
    message = r"^model/posterior: HamiltonianPosterior takes gradients .*: model\.decoder\.batch_norm=false$"
    with pytest.raises(ConfigError, match=message):
        build(BINARY, posterior=HAMILTONIAN, decoder=PARTS["decoder"] | normalized)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"latent_dim": 0}, r"^model\.latent_dim must be at least 1, got 0"),
        ({"encoder": {"hidden": [0]}}, r"^model\.encoder: hidden .*\[attelbo\.networks\.MLPEncoder\]"),
        ({"objective": {"n_samples": 0}}, r"^model\.objective: n_samples must be at least 1, got 0"),
        ({"objective": {"weight": -1.0}}, r"^model\.objective: "),
        (
            {"data": SPEC},
            r"^model/likelihood: Bernoulli is not a likelihood of images, whose values are levels; .*binary",
        ),
    ],
)
def test_what_does_not_fit(changes, message):
    with pytest.raises(ConfigError, match=message):
        make(**changes)


def test_the_learning_rate_is_a_function_of_the_step():
    model = make(scheduler={"_target_": "attelbo.models.schedulers.Cosine", "warmup": 0.1})
    (optimizer,) = model.configure_optimizers()
    assert isinstance(optimizer, torch.optim.Adam)
    assert len(optimizer.param_groups[0]["params"]) == len(list(model.parameters()))
    factor = Cosine(warmup=0.1)
    for step in (0, 49, 3, 30, 30):
        model.at_step(step, 50)
        assert optimizer.param_groups[0]["lr"] == pytest.approx(1e-3 * factor(step, 50), rel=1e-12)
    # A restored optimizer has other groups.
    optimizer.load_state_dict(optimizer.state_dict())
    model.at_step(10, 50)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(1e-3 * factor(10, 50), rel=1e-12)


def test_only_what_is_trained_is_counted():
    module = nn.Linear(3, 2)
    assert count_parameters(module) == 8
    module.bias.requires_grad_(False)
    assert count_parameters(module) == 6
