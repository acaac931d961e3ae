"""Models with discrete latents: true bounds, by enumeration; what is reported of their codes."""

import itertools
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from attelbo.data.batch import Batch, DataSpec
from attelbo.latent import estimate_log_likelihood
from attelbo.models import VariationalAutoencoder, build_vae

DATA = DataSpec("bits", (1, 4, 4), "binary", None)
LATENT = "attelbo.latent"
NETWORK = {"hidden": [6], "activation": "tanh"}


def make(posterior: dict[str, Any], prior: str, latent_dim: int = 2) -> VariationalAutoencoder:
    torch.manual_seed(0)
    model = build_vae(
        data=DATA,
        encoder={"_target_": "attelbo.networks.MLPEncoder", **NETWORK},
        decoder={"_target_": "attelbo.networks.MLPDecoder", **NETWORK},
        posterior=posterior,
        prior={"_target_": f"{LATENT}.{prior}"},
        likelihood={"_target_": f"{LATENT}.Bernoulli"},
        objective={"_target_": f"{LATENT}.ELBO"},
        latent_dim=latent_dim,
        optimizer={"_target_": "torch.optim.Adam"},
        scheduler={"_target_": "attelbo.models.schedulers.Constant"},
    ).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.7)
    return model.eval()


def images(n: int = 5) -> Tensor:
    return torch.randint(2, (n, *DATA.shape)).double()


GUMBEL = {"_target_": f"{LATENT}.GumbelSoftmaxPosterior", "n_classes": 3}
VECTORS = {"_target_": f"{LATENT}.VectorQuantizedPosterior", "n_codes": 5, "pieces": 2}


@torch.no_grad()
def test_the_nll_of_a_categorical_model_is_that_of_enumeration() -> None:
    model, x = make(GUMBEL, "UniformCategorical"), images()
    every = torch.eye(3, dtype=torch.float64)
    z = torch.stack([torch.stack(pair) for pair in itertools.product(every, every)])  # (9, 2, 3)
    eta = model.decode(z.unsqueeze(1).expand(-1, 5, -1, -1))
    log_likelihood = model.likelihood.log_prob(eta, x)  # (9, 5)
    exact = log_likelihood.logsumexp(0) - math.log(9)
    estimate = estimate_log_likelihood(model.weight_sampler(x), 20_000, chunk=5_000)
    assert ((estimate.log_likelihood - exact).abs() < 5 * estimate.standard_error).all()
    # The ELBO, whose KL is exact, by enumeration too, and below.
    log_q = model.infer(x).log_prob(z.unsqueeze(1).expand(-1, 5, -1, -1))
    elbo = (log_q.exp() * (log_likelihood - math.log(9) - log_q)).sum(0)
    evidence = model.evidence(x, n_samples=20_000)
    error = evidence.log_likelihood.std(0) / 20_000**0.5
    assert ((evidence.elbo - elbo).abs() < 5 * error).all()
    assert (elbo < exact).all()


@pytest.mark.parametrize("prior", ["UniformCodes", "AutoregressiveRecurrent", "AutoregressiveConvolutional"])
@torch.no_grad()
def test_the_elbo_of_codes_is_a_bound(prior: str) -> None:
    model, x = make(VECTORS, prior, latent_dim=4), images()
    codes = torch.tensor(list(itertools.product(range(5), repeat=2)))
    log_prior = model.prior.log_prob(codes.unsqueeze(0))[0]
    z = model.posterior.from_prior(codes)
    log_likelihood = model.likelihood.log_prob(model.decode(z.unsqueeze(1).expand(-1, 5, -1)), x)  # (25, 5)
    joint = log_likelihood + log_prior.unsqueeze(1)
    evidence = model.evidence(x, n_samples=2, log_weights=True)
    index = evidence.posterior.prior_value(evidence.z)[0] @ torch.tensor([5, 1])
    torch.testing.assert_close(evidence.elbo, joint[index, torch.arange(5)])
    torch.testing.assert_close(evidence.log_weights, evidence.elbo.expand(2, 5))
    assert (evidence.elbo < joint.logsumexp(0)).all()
    torch.testing.assert_close(model.weight_sampler(x)(7), evidence.elbo.expand(7, 5))


def test_codes_pass_no_gradient_from_the_prior_to_the_encoder() -> None:
    model, x = make(VECTORS, "AutoregressiveRecurrent", latent_dim=4), images()
    model.evidence(x).rate.backward()
    assert all(parameter.grad is None for parameter in model.inference_parameters())
    assert all(parameter.grad is not None for parameter in model.prior.parameters())


def test_usage_of_codes_is_reported_and_the_commitment_is_in_the_loss() -> None:
    model, x = make(VECTORS, "UniformCodes", latent_dim=4), images(8)
    batch = Batch(x, None, torch.arange(8))
    with torch.no_grad():
        model.evaluation_step(batch)
        q = model.infer(x)
    results = {name: float(value) for name, value in model.evaluation_results().items()}
    shares = torch.bincount(q.codes.flatten(), minlength=5).double() / 16
    assert results["perplexity"] == pytest.approx(float(torch.special.entr(shares).sum().exp()))
    assert results["code_usage"] == float((shares > 0).double().mean())
    assert q.penalty is not None
    assert results["loss"] == pytest.approx(-results["elbo"] + float(q.penalty.mean()), rel=1e-6)
    assert make(GUMBEL, "UniformCategorical").code_usage is None


def test_steps_reach_the_posterior() -> None:
    linear = {"_target_": "attelbo.latent.schedules.Linear", "start": 1.0, "end": 0.5, "fraction": 1.0}
    model = make({**GUMBEL, "temperature": linear}, "UniformCategorical")
    model.at_step(50, 100)
    assert float(model.posterior.get_buffer("temperature.value")) == 0.75
