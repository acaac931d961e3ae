"""Hierarchies against quadrature over their latents, Monte Carlo, and what their parts say of each other."""

import itertools
import math

import pytest
import torch
from torch import Tensor
from torch import distributions as D

from attelbo.data.batch import Batch, DataSpec
from attelbo.errors import ConfigError
from attelbo.latent import DiagonalNormal, estimate_log_likelihood, normal_kl
from attelbo.models import Hierarchy, build_deep_attentive, build_ladder, build_top_down
from attelbo.models.ladder import precision_weighted
from attelbo.models.top_down import relative_to

ADAM = {"_target_": "torch.optim.Adam", "lr": 1e-3}
CONSTANT = {"_target_": "attelbo.models.schedulers.Constant"}
BERNOULLI = {"_target_": "attelbo.latent.likelihoods.Bernoulli"}
ELBO = {"_target_": "attelbo.latent.objectives.ELBO"}
SHARED = {"likelihood": BERNOULLI, "objective": ELBO, "optimizer": ADAM, "scheduler": CONSTANT}
VAMP = {"_target_": "attelbo.latent.priors.VampPrior", "n_components": 2}
MIXTURE = {"_target_": "attelbo.latent.priors.MixtureOfGaussians", "n_components": 2}


NORMALIZED = {"_target_": "attelbo.networks.MLPEncoder", "hidden": [6], "batch_norm": True}


def ladder(shape=(1, 2, 2), latent_dims=(1, 1), hidden=(3,), **changes) -> Hierarchy:
    arguments = {
        "encoder": {"_target_": "attelbo.networks.MLPEncoder", "hidden": [6]},
        "decoder": {"_target_": "attelbo.networks.MLPDecoder", "hidden": [6]},
        "prior": {"_target_": "attelbo.latent.priors.StandardNormal"},
        **SHARED,
        **changes,
    }
    return build_ladder(DataSpec("bits", shape, "binary"), latent_dims=latent_dims, hidden=hidden, **arguments)


def top_down(shape=(1, 2, 2), blocks=(0, 2), channels=8, latent_channels=1, **changes) -> Hierarchy:
    data = DataSpec("bits", shape, "binary")
    return build_top_down(
        data, channels=channels, latent_channels=latent_channels, blocks=blocks, **{**SHARED, **changes}
    )


def deep_attentive(shape=(1, 2, 2), blocks=(0, 2), channels=8, latent_channels=1, **changes) -> Hierarchy:
    attention = {"_target_": "attelbo.attention.MultiHeadAttention", "heads": 2}
    arguments = {**SHARED, "attention": attention, "dim": 4, **changes}
    data = DataSpec("bits", shape, "binary")
    return build_deep_attentive(data, channels=channels, latent_channels=latent_channels, blocks=blocks, **arguments)


MODELS = {
    "ladder": ladder,
    "ladder with skips and a VampPrior": lambda **changes: ladder(skip=True, prior=VAMP, **changes),
    "ladder with skips and a mixture": lambda **changes: ladder(skip=True, prior=MIXTURE, **changes),
    "top-down": top_down,
    "top-down, residual q": lambda **changes: top_down(residual_posterior=True, **changes),
    "deep attentive": deep_attentive,
}


def make(name: str, **changes) -> Hierarchy:
    """In float64, away from the initialization."""
    torch.manual_seed(3)
    model = MODELS[name](**changes).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model


def images(n: int, shape=(1, 2, 2)) -> Tensor:
    return torch.rand(n, *shape, generator=torch.Generator().manual_seed(5), dtype=torch.float64).round()


def log_likelihood_at(model: Hierarchy, x: Tensor, nodes: Tensor) -> Tensor:
    """log p(x|z) + log p of the nodes (N, L): of the topmost z itself, below it of the noise that z is made of, whose
    density does not depend on how narrow p(z_l|z_{l+1}) is."""
    log_p: list[Tensor] = []
    columns = iter(nodes.unbind(-1))

    def at_nodes(q, p):
        column = next(columns)
        if log_p:
            log_p.append(D.Normal(0.0, 1.0).log_prob(column))
            return p.mean + p.std * column.reshape(p.mean.shape)
        z = column.reshape(-1, *model.layer_shapes[0])
        log_p.append(p.log_prob(z.unsqueeze(0))[0])
        return z

    eta = model.descend(len(nodes), at_nodes, None)
    return torch.stack(log_p).sum(0) + model.likelihood.log_prob(eta.unsqueeze(0), x)[0]


@torch.enable_grad()
def fitted(model: Hierarchy, x: Tensor) -> Hierarchy:
    """With a posterior that is near enough for importance sampling to come to an end."""
    optimizer = torch.optim.Adam(model.inference_parameters(), lr=0.02)
    for _ in range(60):
        optimizer.zero_grad()
        log_weights = torch.as_tensor(model.evidence(x, n_samples=16, log_weights=True).log_weights)
        (-log_weights.logsumexp(0).mean()).backward()
        optimizer.step()
    return model


@pytest.mark.parametrize("name", MODELS)
@torch.no_grad()
def test_importance_sampling_finds_the_evidence_by_quadrature(name: str) -> None:
    model, x = fitted(make(name), images(3)), images(3)
    axis = torch.linspace(-8, 8, 121, dtype=torch.float64)
    nodes, log_cell = torch.cartesian_prod(axis, axis), 2 * math.log(axis[1] - axis[0])
    evidence = torch.stack([log_likelihood_at(model, row, nodes).logsumexp(0) + log_cell for row in x.split(1)])
    estimate = estimate_log_likelihood(model.weight_sampler(x), 20_000, chunk=10_000)
    assert (estimate.standard_error < 0.05).all()
    assert ((estimate.log_likelihood - evidence).abs() < 5 * estimate.standard_error + 1e-3).all()
    # The bounds, from the terms of many samples.
    terms = model.evidence(x.repeat_interleave(100, 0), n_samples=50, log_weights=True)
    assert terms.log_weights is not None
    elbo, sampled = (t.unflatten(0, (3, 100)) for t in (terms.elbo, terms.log_weights.mean(0)))
    error = (elbo.std(1) + sampled.std(1)) / 100**0.5
    assert ((elbo.mean(1) - sampled.mean(1)).abs() < 5 * error).all()
    assert (elbo.mean(1) < evidence + 5 * error).all()


@pytest.mark.parametrize("name", MODELS)
@torch.no_grad()
def test_kl_of_each_layer_is_that_of_monte_carlo(name: str) -> None:
    model, x, n = make(name), images(2), 5_000
    _, layers = model._sample(x, model.bottom_up(x), n, log_ratios=True)
    for layer in layers:
        assert layer.log_ratio is not None
        sampled, exact = -layer.log_ratio.unflatten(0, (n, 2)), layer.kl.unflatten(0, (n, 2))
        assert ((sampled.mean(0) - exact.mean(0)).abs() <= 5 * sampled.std(0) / n**0.5).all()


@pytest.mark.parametrize("name", MODELS)
def test_what_is_not_wanted_changes_nothing_else(name: str) -> None:
    model, x = make(name), images(5)
    torch.manual_seed(1)
    terms = model.evidence(x, None, 2)
    torch.manual_seed(1)
    with_weights = model.evidence(x, None, 2, log_weights=True)
    torch.testing.assert_close(terms.elbo, with_weights.elbo)
    assert terms.log_weights is None


@pytest.mark.parametrize("name", MODELS)
def test_what_is_encoded_is_what_is_reconstructed(name: str) -> None:
    model, x = make(name), images(5)
    z = model.encode(x)
    assert z.shape == (5, sum(math.prod(shape) for shape in model.layer_shapes))
    torch.testing.assert_close(model.generate(z), model.reconstruct(x))


@pytest.mark.parametrize("make", [top_down, deep_attentive])
@pytest.mark.parametrize(("shape", "blocks"), [((3, 5, 7), (1, 0, 2)), ((1, 1, 1), (2,)), ((1, 8, 8), (1, 1, 1, 1))])
def test_any_image_and_any_number_of_layers(make, shape, blocks) -> None:
    model = make(shape, blocks, channels=4, latent_channels=2)
    x = images(2, shape).float()
    terms = model.evidence(x, n_samples=3)
    assert terms.kl.shape == (2, sum(blocks))
    assert len(model.layer_shapes) == sum(blocks)
    assert model.sample(4).shape == (4, *shape)
    assert terms.z.shape == (3, 2, sum(math.prod(layer) for layer in model.layer_shapes))


@pytest.mark.parametrize("name", MODELS)
def test_no_unit_is_active_where_all_images_are_the_same(name: str) -> None:
    """Samples of the layers above move the means below, and are no activity."""
    model = make(name)
    x = images(1).expand(200, -1, -1, -1)
    model.evaluation_step(Batch(x, None, torch.arange(200)))
    assert float(model.evaluation_results()["active_units"]) == 0


@pytest.mark.parametrize("make", [top_down, deep_attentive])
def test_the_prior_of_a_top_down_model_starts_standard_normal(make) -> None:
    model = make((1, 4, 4), (1, 3), channels=8)
    seen = []

    def watched(q, p):
        seen.append(p)
        return p.mean

    model.descend(3, watched, None)
    assert all((p.mean == 0).all() and (p.std == 1).all() for p in seen)


@pytest.mark.parametrize("name", MODELS)
def test_every_parameter_is_trained(name: str) -> None:
    model, x = make(name), images(6)
    model.losses(Batch(x, None, torch.arange(6)))["loss"].backward()
    for key, parameter in model.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.abs().sum() > 0, key


@pytest.mark.parametrize("name", MODELS)
def test_the_gradient_of_the_loss_is_that_of_finite_differences(name: str) -> None:
    model, batch = make(name), Batch(images(2), None, torch.arange(2))

    def loss() -> Tensor:
        torch.manual_seed(1)
        return model.losses(batch)["loss"]

    loss().backward()
    direction = [torch.randn_like(parameter) for parameter in model.parameters()]
    slope = sum(float((p.grad * d).sum()) for p, d in zip(model.parameters(), direction, strict=True))  # pyright: ignore
    values = []
    with torch.no_grad():
        for step in (1e-6, -2e-6):
            for parameter, d in zip(model.parameters(), direction, strict=True):
                parameter.add_(step * d)
            values.append(float(loss()))
    assert (values[0] - values[1]) / 2e-6 == pytest.approx(slope, rel=1e-4, abs=1e-6)


def test_inference_and_generation_share_no_parameter() -> None:
    for name in MODELS.keys() - {"ladder with skips and a VampPrior"}:  # that prior is made of posteriors
        model = make(name)
        own = {id(parameter) for parameter in model.inference_parameters()}
        model.descend(
            2, lambda q, p: p.rsample(1)[0] if isinstance(p, DiagonalNormal) else p.sample(2), None
        ).sum().backward()
        reached = {id(parameter) for parameter in model.parameters() if parameter.grad is not None}
        assert own
        assert not own & reached


# -- the arithmetic of normals --------------------------------------------------------------------------


def normals(*shape: int) -> tuple[DiagonalNormal, D.Normal]:
    mean, log_std = torch.randn(2, *shape, dtype=torch.float64)
    return DiagonalNormal(mean, log_std), D.Normal(mean, log_std.exp())


def test_normal_kl_is_that_of_torch() -> None:
    (q, their_q), (p, their_p) = normals(4, 2, 3), normals(4, 2, 3)
    torch.testing.assert_close(normal_kl(q, p), D.kl_divergence(their_q, their_p))
    assert (normal_kl(q, q) == 0).all()


def test_a_residual_posterior_has_the_kl_of_nvae() -> None:
    """Vahdat & Kautz 2020, eq. 2: 1/2 (dmu^2 / sigma^2 + dsigma^2 - log dsigma^2 - 1)."""
    torch.manual_seed(0)
    p, change = (DiagonalNormal(*torch.randn(2, 3, 4, dtype=torch.float64)) for _ in range(2))
    q = relative_to(p, change)
    spread = change.log_std.exp().square()
    expected = (change.mean.square() / (2 * p.log_std).exp() + spread - spread.log() - 1) / 2
    torch.testing.assert_close(normal_kl(q, p), expected)
    assert (normal_kl(relative_to(p, DiagonalNormal(*torch.zeros(2, 3, 4))), p) == 0).all()


def test_precision_weighted_is_the_normalized_product() -> None:
    (a, their_a), (b, their_b) = normals(5, 1), normals(5, 1)
    z = torch.linspace(-40, 40, 40_001, dtype=torch.float64)
    log_product = their_a.log_prob(z) + their_b.log_prob(z)
    log_product -= log_product.logsumexp(-1, keepdim=True) + math.log(float(z[1] - z[0]))
    product = precision_weighted(a, b)
    ours = product.log_prob(z.view(-1, 1, 1).expand(-1, 5, 1)).T
    inside = ours > -30
    torch.testing.assert_close(ours[inside], log_product[inside], rtol=1e-6, atol=1e-6)


def test_precision_weighted_at_the_extremes() -> None:
    for a, b in itertools.product((-10.0, 0.0, 10.0), repeat=2):
        product = precision_weighted(*(DiagonalNormal(torch.ones(1, 1), torch.full((1, 1), s)) for s in (a, b)))
        assert float(product.mean) == pytest.approx(1)
        assert product.std.isfinite().all()
        assert float(product.log_std) <= min(a, b) + 1e-6


# -- what does not fit ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden": ()}, r"^model\.hidden must have one number less than model\.latent_dims"),
        ({"latent_dims": (), "hidden": ()}, r"^model\.hidden must have one number less"),
        ({"latent_dims": (2, 0)}, r"^model\.latent_dims must be positive"),
        ({"activation": "rleu"}, r"^model\.activation must be one of"),
        (
            {"prior": VAMP, "encoder": NORMALIZED},
            r"^model/prior: VampPrior makes posteriors .*MLPEncoder \(model\.encoder\)",
        ),
    ],
)
def test_ladders_that_cannot_be_built(changes, message) -> None:
    with pytest.raises(ConfigError, match=message):
        ladder(**changes)


def test_a_ladder_says_that_its_kl_is_at_most_where_its_prior_is_estimated() -> None:
    units = [
        [
            measure.unit
            for measure in ladder(prior={"_target_": f"attelbo.latent.{prior}"}).measures
            if measure.key == "kl"
        ]
        for prior in ("TwoStage", "StandardNormal")
    ]
    assert units == [["nats, at most: log p(z) is estimated from below"], ["nats"]]


@pytest.mark.parametrize("blocks", [(), (0, 0), (1, -1)])
def test_hierarchies_without_layers(blocks) -> None:
    with pytest.raises(ConfigError, match=r"^model\.blocks must name the layers of each level"):
        top_down(blocks=blocks)


def test_a_hierarchy_is_for_images() -> None:
    with pytest.raises(ConfigError, match=r"^model: a top-down hierarchy is a model of images, and "):
        top_down(shape=(3,))
