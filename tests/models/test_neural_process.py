"""Neural processes: what has no order, what may not be seen, likelihoods and bounds by other means."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor, nn

from attelbo.data.batch import CONTEXT, IGNORE, TARGET, Batch, DataSpec
from attelbo.errors import ConfigError
from attelbo.latent import estimate_log_likelihood
from attelbo.models import NeuralProcess, build_neural_process
from attelbo.models.neural_process import Points, normal_of
from attelbo.networks.layers import NEAR_ZERO

CURVES = DataSpec("curves", (9, 1), "function", target=DataSpec("values", (9, 1), "real"))
FOUR = {"cnp": (None, None), "np": (None, 3), "canp": (2, None), "anp": (2, 3)}
"""Model -> heads, numbers of z."""
PARTS: dict[str, Any] = {
    "optimizer": {"_target_": "torch.optim.Adam", "lr": 1e-2},
    "scheduler": {"_target_": "attelbo.models.schedulers.Constant"},
}
ELBO = {"_target_": "attelbo.latent.objectives.ELBO"}
IWAE = {"_target_": "attelbo.latent.objectives.IWAE", "n_samples": 4}


def model(name: str, objective: dict[str, Any] = ELBO, **changes: Any) -> NeuralProcess:
    torch.manual_seed(0)
    heads, latent_dim = FOUR[name]
    sizes = {"dim": 8, "decoder_layers": 3, "smallest_std": 0.1, "n_predictions": 7}
    options = {"heads": heads, "latent_dim": latent_dim, **sizes, **changes}
    made = build_neural_process(CURVES, objective, **options, **PARTS).double()
    for parameter in made.parameters():  # biases that are zero would hide what depends on them
        if parameter.ndim == 1:
            nn.init.normal_(parameter, std=0.3)
    with torch.no_grad():  # outputs near zero would hide what they depend on
        made.decoder.rest[-1].weight.div_(NEAR_ZERO)
    return made.eval()


def functions(n: int = 5) -> Batch:
    """Of different sizes, with padding."""
    generator = torch.Generator().manual_seed(1)
    x, y = (torch.randn(n, 9, 1, generator=generator, dtype=torch.float64) for _ in range(2))
    place, size = torch.arange(9), 2 + torch.arange(n).unsqueeze(1) % 4
    segments = torch.where(place < size, CONTEXT, torch.where(place < size + 3, TARGET, IGNORE))
    return Batch(x, y, torch.arange(n), segments)


def reordered(batch: Batch, order: Tensor) -> Batch:
    assert batch.y is not None
    assert batch.segments is not None
    return batch._replace(x=batch.x[:, order], y=batch.y[:, order], segments=batch.segments[:, order])


def seeded(call, *arguments):
    torch.manual_seed(3)
    return call(*arguments)


@pytest.mark.parametrize("name", FOUR)
def test_neither_context_nor_targets_have_an_order(name):
    ours, batch, order = model(name), functions(), torch.randperm(9, generator=torch.Generator().manual_seed(2))
    log_p = seeded(ours.predictive, Points.of(batch))
    torch.testing.assert_close(seeded(ours.predictive, Points.of(reordered(batch, order))), log_p[:, order])
    first, second = (seeded(ours.evidence_of, each) for each in (batch, reordered(batch, order)))
    torch.testing.assert_close(second.log_likelihood, first.log_likelihood)
    torch.testing.assert_close(second.kl, first.kl)


@pytest.mark.parametrize("name", FOUR)
def test_a_target_does_not_see_the_others(name):
    """Predictions are consistent: some targets fewer are those targets summed out."""
    ours, batch = model(name), functions()
    log_p = seeded(ours.predictive, Points.of(batch))
    fewer = batch.segments.clone()
    fewer[:, 3:] = torch.where(fewer[:, 3:] == TARGET, IGNORE, fewer[:, 3:])
    changed = batch._replace(segments=fewer, y=torch.where((fewer == IGNORE).unsqueeze(-1), 7.0, batch.y))
    there = fewer != IGNORE
    torch.testing.assert_close(seeded(ours.predictive, Points.of(changed))[there], log_p[there])


@pytest.mark.parametrize("name", FOUR)
def test_predictions_do_not_know_the_values_of_targets(name):
    ours, batch = model(name), functions()
    other = torch.where((batch.segments == TARGET).unsqueeze(-1), 5.0, batch.y)
    places = torch.linspace(-2, 2, 6, dtype=torch.float64).expand(5, 6).unsqueeze(-1)
    mean, std = seeded(ours.predict, batch, places, 4)
    for first, second in zip((mean, std), seeded(ours.predict, batch._replace(y=other), places, 4), strict=True):
        torch.testing.assert_close(second, first)
    assert mean.shape == std.shape == (4, 5, 6, 1)
    # Values of the context, on the other hand, matter, in their own row.
    moved = batch.y.clone()
    moved[0, 0] += 1
    changed, _ = seeded(ours.predict, batch._replace(y=moved), places, 4)
    assert ((changed - mean).abs().amax((0, 2, 3)) > 1e-6).tolist() == [True, False, False, False, False]


@pytest.mark.parametrize("poison", [math.nan, 1e9])
@pytest.mark.parametrize("name", FOUR)
def test_padding_changes_nothing(name, poison):
    ours, batch = model(name), functions()
    seeded(ours.losses, batch)["loss"].backward()
    expected = [parameter.grad for parameter in ours.parameters()]
    ours.zero_grad()
    nothing = (batch.segments == IGNORE).unsqueeze(-1)
    poisoned = batch._replace(x=batch.x.masked_fill(nothing, poison), y=batch.y.masked_fill(nothing, poison))
    seeded(ours.losses, poisoned)["loss"].backward()
    for parameter, gradient in zip(ours.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient)
    # A function by itself, without the padding that others make necessary.
    whole = ours.predictive if FOUR[name][1] is None else None
    if whole is not None:
        for row in range(5):
            there = batch.segments[row] != IGNORE
            alone = Batch(*(part[row : row + 1, there] for part in (batch.x, batch.y)), torch.arange(1))
            alone = alone._replace(segments=batch.segments[row : row + 1, there])
            torch.testing.assert_close(whole(Points.of(alone))[0], whole(Points.of(poisoned))[row, there])


@pytest.mark.parametrize("name", FOUR)
def test_the_likelihood_is_that_of_scipy(name):
    ours, batch = model(name), functions()
    functions_ = Points.of(batch)
    (prior,) = ours.latents(functions_.both, functions_.context)
    z = prior.rsample(1)
    features = ours.features(functions_.both, functions_.context, functions_.x)
    eta = ours.decoder(functions_.x, features, z)[0].detach().numpy()
    std = 0.1 + 0.9 * np.log1p(np.exp(eta[..., 1]))
    expected = stats.norm(eta[..., 0], std).logpdf(functions_.y[..., 0].numpy())
    got = ours.log_prob(functions_, features, z)[0].detach()
    there = functions_.there.numpy()
    np.testing.assert_allclose(got.numpy()[there], expected[there], rtol=1e-10)
    assert (got.numpy()[~there] == 0).all()


def test_the_terms_are_those_of_torch_distributions():
    ours, batch = model("anp", IWAE), functions()
    evidence = seeded(ours.evidence_of, batch)
    functions_ = Points.of(batch)
    prior, posterior = (
        torch.distributions.Normal(q.mean, q.std)
        for q in ours.latents(functions_.both, functions_.context, functions_.there)
    )
    torch.testing.assert_close(evidence.kl.sum(-1), torch.distributions.kl_divergence(posterior, prior).sum(-1))
    log_ratio = (prior.log_prob(evidence.z) - posterior.log_prob(evidence.z)).sum(-1)
    torch.testing.assert_close(evidence.log_weights, evidence.log_likelihood + log_ratio)
    loss = seeded(ours.losses, batch)["loss"]
    torch.testing.assert_close(loss, -(evidence.log_weights.logsumexp(0) - math.log(4)).mean())
    assert ((posterior.scale > 0.1) & (posterior.scale < 1)).all()


def test_standard_deviations_of_z_are_between_those_of_the_authors():
    parameters = torch.tensor([[3.0, 3.0, 3.0, -99.0, 0.0, 99.0]])
    q = normal_of(parameters)
    torch.testing.assert_close(q.mean, parameters[:, :3])
    torch.testing.assert_close(q.std, torch.tensor([[0.1, 0.55, 1.0]]))


@pytest.mark.parametrize("name", ["cnp", "canp"])
@pytest.mark.parametrize("objective", [ELBO, IWAE], ids=["elbo", "iwae"])
def test_without_a_latent_variable_every_bound_is_the_likelihood(name, objective):
    ours, batch = model(name, objective), functions()
    assert ours.n_predictions == 1  # all would be the same
    log_p = ours.predictive(Points.of(batch)).sum(1)
    evidence = ours.evidence_of(batch)
    torch.testing.assert_close(evidence.elbo, log_p)
    torch.testing.assert_close(ours.losses(batch)["loss"], -log_p.mean())
    torch.testing.assert_close(ours.weight_sampler_of(batch)(3), log_p.detach().expand(3, -1))


@pytest.mark.parametrize("name", ["np", "anp"])
def test_importance_sampling_agrees_with_quadrature(name):
    """Of a z of one number, over which one can integrate."""
    ours, batch = model(name, latent_dim=1), functions()
    functions_ = Points.of(batch)
    points = functions_.both
    with torch.no_grad():
        (prior,) = ours.latents(points, functions_.context)
        features = ours.features(points, functions_.context, functions_.x)
        grid = torch.linspace(-6, 6, 4001, dtype=torch.float64)
        z = prior.mean + prior.std * grid.view(-1, 1, 1)  # (4001, B, 1)
        log_p = ours.log_prob(functions_, features, z)
        log_prior = torch.distributions.Normal(0.0, 1.0).log_prob(grid)
        cell = math.log(12 / 4000)
        exact = (log_p.sum(-1) + log_prior.unsqueeze(1) + cell).logsumexp(0)
        of_points = (log_p + log_prior.view(-1, 1, 1) + cell).logsumexp(0)
    torch.manual_seed(0)
    estimate = estimate_log_likelihood(ours.weight_sampler_of(batch), 20_000, chunk=5_000)
    assert ((estimate.log_likelihood - exact).abs() < 5 * estimate.standard_error + 1e-6).all()
    ours.n_predictions = 20_000
    with torch.no_grad():
        torch.testing.assert_close(ours.predictive(functions_), of_points * functions_.there, atol=0.03, rtol=0.01)
        elbos = torch.stack([ours.evidence_of(batch).elbo for _ in range(200)])
    assert (elbos.mean(0) < exact + 3 * elbos.std(0) / len(elbos) ** 0.5).all()
    assert elbos.mean() < exact.mean()


def test_attention_that_is_uniform_is_a_mean():
    """With queries and keys of zeros, and nothing added to what is seen, a target gets the mean of the values, as those
    of a conditional neural process get that of the context."""
    ours, batch = model("canp"), functions()
    functions_ = Points.of(batch)
    path: Any = ours.paths[0]
    for parameter in path.queries_keys[-1].parameters():
        nn.init.zeros_(parameter)
    points, context = functions_.both, functions_.context
    attention = path.cross.attention
    features = path(points, context, functions_.x)
    torch.testing.assert_close(features, features[:, :1].expand_as(features))
    values = path.values(points, context)[0]
    for row in range(5):
        mean = values[row, context[row]].mean(0)
        weight, bias = attention.qkv.weight[16:], attention.qkv.bias[16:]
        seen = attention.output(mean @ weight.T + bias)
        h = path.cross.attention_norm(seen)
        expected = path.cross.feed_forward_norm(h + path.cross.feed_forward(h).relu())
        torch.testing.assert_close(features[row, 0], expected)


def test_keys_are_places_and_values_are_points():
    """Where a target looks does not depend on the values of the context."""
    ours, batch = model("anp"), functions()
    functions_ = Points.of(batch)
    path: Any = ours.paths[0]
    with torch.no_grad():
        features = path(functions_.both, functions_.context, functions_.x)
        path.values.each[-1].weight.zero_()  # all values equal
        path.values.each[-1].bias.fill_(1.0)
        same = path(functions_.both, functions_.context, functions_.x)
        moved = path(torch.cat([functions_.x, functions_.y + 1], -1), functions_.context, functions_.x)
    torch.testing.assert_close(moved, same)
    assert not torch.allclose(features, same)


def test_the_decoder_is_a_network_on_everything_together():
    ours, batch = model("anp"), functions()
    functions_ = Points.of(batch)
    z = torch.randn(2, 5, 3, dtype=torch.float64)
    features = ours.features(functions_.both, functions_.context, functions_.x)
    eta = ours.decoder(functions_.x, features, z)
    together = torch.cat([part.expand(2, 5, 9, -1) for part in (functions_.x, *features, z.unsqueeze(2))], -1)
    torch.testing.assert_close(eta, ours.decoder.rest(ours.decoder.first(together).relu()))


@pytest.mark.parametrize("name", FOUR)
def test_every_parameter_learns(name):
    ours = model(name, IWAE if name == "anp" else ELBO).train()
    ours.losses(functions())["loss"].backward()
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in ours.parameters())


@pytest.mark.parametrize("name", ["cnp", "canp"])
@pytest.mark.parametrize("sizes", [(5,), (2, 2, 1)])
def test_evaluation_is_exact_whatever_the_batches(name, sizes):
    ours, batch = model(name).requires_grad_(False), functions()
    log_p, functions_ = ours.predictive(Points.of(batch)), Points.of(batch)
    rows = [torch.arange(5)[functions_.target[row, :5]] for row in range(5)]
    expected = np.mean([float(log_p[row, functions_.target[row]].mean()) for row in range(len(rows))])
    for index in torch.arange(5).split(list(sizes)):
        ours.evaluation_step(Batch(*(part[index] for part in batch[:4])))
    results = ours.evaluation_results()
    assert float(results["target_ll"]) == pytest.approx(expected, rel=1e-6)
    assert float(results["elbo"]) == pytest.approx(float(log_p.sum(1).mean()), rel=1e-6)
    assert float(results["context_ll"]) == pytest.approx(
        np.mean([float(log_p[row, functions_.context[row]].mean()) for row in range(5)]), rel=1e-6
    )
    shown = {measure.key for measure in ours.measures}
    assert {"target_ll", "context_ll", "elbo"} <= shown
    assert not shown & {"kl", "active_units"}


@pytest.mark.parametrize("name", FOUR)
def test_the_best_possible_density_is_that_of_the_floor(name):
    """A floor of 0.1 lets no point have more than 1.384 nats."""
    ours, batch = model(name), functions()
    with torch.no_grad():
        for parameter in ours.decoder.rest[-1].parameters():
            nn.init.zeros_(parameter)
        ours.decoder.rest[-1].bias[1] = -50.0
        perfect = batch._replace(y=torch.zeros_like(batch.y))
        log_p = ours.predictive(Points.of(perfect))[Points.of(perfect).there]
    torch.testing.assert_close(log_p, torch.full_like(log_p, -math.log(0.1 * math.sqrt(2 * math.pi))))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"heads": 3}, "heads must divide the 8 features"),
        ({"latent_dim": 0}, "latent_dim must be at least 1, got 0"),
        ({"dim": 0}, "dim must be at least 1, got 0"),
        ({"decoder_layers": 1}, "decoder_layers must be at least 2, got 1"),
        ({"smallest_std": 0.0}, r"smallest_std must be in \(0, 1\), got 0.0"),
        ({"n_predictions": 0}, "n_predictions must be at least 1, got 0"),
    ],
)
def test_bad_numbers_are_refused_in_one_line(changes, message):
    with pytest.raises(ConfigError, match=rf"^model\..*{message}") as raised:
        model("anp", **changes)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("name", ["BetaTC", "DReG", "InfoVAE", "RAE"])
def test_objectives_that_look_elsewhere_are_refused(name):
    objective = {"_target_": f"attelbo.latent.objectives.{name}"}
    with pytest.raises(ConfigError, match="such as elbo or iwae"):
        model("np", objective)


@pytest.mark.parametrize(
    ("name", "message"), [("Factor", "Factor needs latent_shape"), ("PIWAE", "without model.latent_dim there is no z")]
)
def test_without_z_nothing_can_be_trained_that_looks_at_it_by_itself(name, message):
    with pytest.raises(ConfigError, match=message):
        model("cnp", {"_target_": f"attelbo.latent.objectives.{name}"})


def test_other_data_are_refused():
    images = DataSpec("digits", (1, 8, 8), "binary")
    with pytest.raises(ConfigError, match="a neural process is one of functions, and digits has binary"):
        build_neural_process(
            images,
            ELBO,
            heads=None,
            latent_dim=None,
            dim=8,
            decoder_layers=2,
            smallest_std=0.1,
            n_predictions=1,
            **PARTS,
        )
