"""AIR against enumeration of its presences and quadrature over what is there; its gradient against the exact one."""

import itertools
import math

import pytest
import torch
from torch import Tensor
from torch import distributions as D

from attelbo.data.batch import Batch, DataSpec
from attelbo.errors import ConfigError
from attelbo.latent import estimate_log_likelihood
from attelbo.models import AttendInferRepeat, build_air
from attelbo.models.object_finder import SAMPLES, Choice, flat

SHARED = {
    "encoder": {"_target_": "attelbo.networks.MLPEncoder", "hidden": [5]},
    "decoder": {"_target_": "attelbo.networks.MLPDecoder", "hidden": [5]},
    "likelihood": {"_target_": "attelbo.latent.likelihoods.Bernoulli"},
    "objective": {"_target_": "attelbo.latent.objectives.ELBO"},
    "optimizer": {"_target_": "torch.optim.Adam", "lr": 1e-3},
    "scheduler": {"_target_": "attelbo.models.schedulers.Constant"},
}
SIZES = {"latent_dim": 1, "hidden": 4, "steps": 1, "glimpse": 3, "presence": 0.4, "cost": 0.0}
PLACES = {"object_size": 0.6, "size_std": 0.2, "spread": 0.5, "waiting": 0.0}
FIXED = {"object_size": 0.6, "size_std": 1e-4, "spread": 1e-4, "waiting": 0.0}
"""Where every object is in the middle: places need no quadrature."""


def make(**changes) -> AttendInferRepeat:
    """In float64, away from the initialization."""
    torch.manual_seed(3)
    data = changes.pop("data", DataSpec("bits", (1, 4, 5), "binary", 3, n_objects=2))
    model = build_air(data, **{**SHARED, **SIZES, **PLACES, **changes}).double().eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if not name.startswith("finder.head"):
                parameter.add_(0.4 * torch.randn_like(parameter))
    return model


def images(n: int) -> Tensor:
    return torch.rand(n, 1, 4, 5, generator=torch.Generator().manual_seed(5), dtype=torch.float64).round()


def joint(model: AttendInferRepeat, x: Tensor, present: tuple[int, ...], what: Tensor) -> Tensor:
    """log p(x, present, what) of one x and what (M, T), objects in the middle: (M,)."""
    p, m = 0.4, len(what)
    center = model.finder.where_mean.expand(m, 3)
    z = torch.cat(
        [present[t] * torch.cat([torch.ones(m, 1), center, what[:, t : t + 1]], 1) for t in range(len(present))], 1
    )
    log_p = model.likelihood.log_prob(model.decode(z.double()).unsqueeze(1), x)[:, 0]
    reached = True
    for t, there in enumerate(present):
        if reached:
            log_p = log_p + math.log(p if there else 1 - p)
        if there:
            log_p = log_p + D.Normal(0.0, 1.0).log_prob(what[:, t])
        reached = bool(there)
    return log_p


def evidence_of(model: AttendInferRepeat, x: Tensor) -> Tensor:
    """log p(x) by enumeration of the numbers of objects, and quadrature over what each of them is."""
    axis = torch.linspace(-7, 7, 141, dtype=torch.float64)
    log_cell = math.log(axis[1] - axis[0])
    terms = []
    for n in range(model.finder.steps + 1):
        present = (1,) * n + (0,) * (model.finder.steps - n)
        nodes = torch.cartesian_prod(*[axis] * n).reshape(-1, n) if n else torch.zeros(1, 0, dtype=torch.float64)
        what = torch.cat([nodes, torch.zeros(len(nodes), model.finder.steps - n, dtype=torch.float64)], 1)
        terms.append(joint(model, x, present, what).logsumexp(0) + n * log_cell)
    return torch.stack(terms).logsumexp(0)


@pytest.mark.parametrize("steps", [1, 2])
@torch.no_grad()
def test_importance_sampling_finds_the_evidence_by_enumeration(steps) -> None:
    model, x = make(steps=steps, **FIXED), images(3)
    # q(where) is the prior, q(what) wider than it: what importance sampling needs.
    model.finder.head.weight[1:] = 0
    model.finder.what.weight[1] = 0
    model.finder.what.bias[1] = 0.3
    evidence = torch.stack([evidence_of(model, row) for row in x.split(1)])
    estimate = estimate_log_likelihood(model.weight_sampler(x), 40_000, chunk=10_000)
    assert (estimate.standard_error < 0.05).all()
    assert ((estimate.log_likelihood - evidence).abs() < 5 * estimate.standard_error + 1e-3).all()
    terms = model.evidence(x.repeat_interleave(100, 0), n_samples=50, log_weights=True)
    assert terms.log_weights is not None
    elbo, sampled = (t.unflatten(0, (3, 100)) for t in (terms.elbo, terms.log_weights.mean(0)))
    error = (elbo.std(1) + sampled.std(1)) / 100**0.5
    assert ((elbo.mean(1) - sampled.mean(1)).abs() < 5 * error).all()  # the exact KLs, and the sampled ratio
    assert (elbo.mean(1) < evidence + 5 * error).all()


@torch.no_grad()
def test_importance_weights_are_those_of_the_evidence_and_an_image_is_embedded_once_for_all() -> None:
    model, x = make(steps=3, latent_dim=2), images(4)
    embedded: list[int] = []
    model.finder.embedding.register_forward_pre_hook(lambda module, given: embedded.append(len(given[0])))
    draw = model.weight_sampler(x)
    found = [(torch.manual_seed(n), draw(n))[1] for n in (2, 5)]
    assert embedded == [4]
    for n, weights in zip((2, 5), found, strict=True):
        torch.manual_seed(n)
        torch.testing.assert_close(weights, model.evidence(x, n_samples=n, log_weights=True).log_weights)


@torch.no_grad()
def test_the_kl_is_torchs_of_presence_place_and_looks() -> None:
    model, x = make(steps=3, latent_dim=2), images(20)
    torch.manual_seed(1)
    steps = model.finder(x, SAMPLES)
    torch.manual_seed(1)
    found = model.evidence(x).kl
    expected = torch.zeros_like(found)  # (B, 3)
    for step in steps:
        p_where = model.finder.where_prior(step.where)
        q_where, p_where = (D.Independent(D.Normal(d.mean, d.std), 1) for d in (step.q_where, p_where))
        q_what = D.Independent(D.Normal(step.q_what.mean, step.q_what.std), 1)
        p_what = D.Independent(D.Normal(torch.zeros(20, 2).double(), torch.ones(20, 2).double()), 1)
        q, p = D.Bernoulli(logits=step.log_odds), D.Bernoulli(torch.full_like(step.log_odds, 0.4))
        expected[:, 0] += step.reached * D.kl_divergence(q, p)
        expected[:, 1] += step.present * D.kl_divergence(q_where, p_where)
        expected[:, 2] += step.present * D.kl_divergence(q_what, p_what)
    assert (expected.mean(0) > 0.01).all()
    torch.testing.assert_close(found, expected)


def test_the_gradient_is_that_of_the_exact_expectation() -> None:
    """Of the bound of one x: presences enumerated, all else sampled; against the score function's."""
    model, n = make(steps=2, cost=3.0), 20_000
    x = images(1).expand(n, -1, -1, -1)
    parameters = [
        parameter for key, parameter in model.named_parameters() if key.startswith(("finder.head", "finder.start"))
    ]

    def exact() -> Tensor:
        total = torch.zeros((), dtype=torch.float64)
        for states in itertools.product((0.0, 1.0), repeat=2):
            rest = iter(states)
            choose = Choice(lambda log_odds, rest=rest: torch.full_like(log_odds, next(rest)), SAMPLES.normal)
            steps = model.finder(x, choose)
            log_q = sum(
                step.reached * D.Bernoulli(logits=step.log_odds).log_prob(torch.full_like(step.log_odds, state))
                for step, state in zip(steps, states, strict=True)
            )
            if states == (0.0, 1.0):  # behind an end there is nothing: counted with the other
                continue
            kl = torch.stack([model._kl(step) for step in steps]).sum((0, 1))
            cost = 3.0 * torch.stack([step.reached * step.log_odds.sigmoid() for step in steps]).sum(0)
            bound = model.likelihood.log_prob(model.decode(flat(steps)).unsqueeze(0), x)[0] - kl - cost
            total = total - (torch.as_tensor(log_q).exp() * bound).mean()
        return total

    expected = torch.cat([g.flatten() for g in torch.autograd.grad(exact(), parameters)])
    found = []
    for _ in range(20):
        loss = model.losses(Batch(x[: n // 10], None, torch.arange(n // 10)))["loss"]
        found.append(torch.cat([g.flatten() for g in torch.autograd.grad(loss, parameters)]))
    mean, error = torch.stack(found).mean(0), torch.stack(found).std(0) / len(found) ** 0.5
    assert (expected.abs() > 5 * error).any()  # else this would compare noise
    assert ((mean - expected).abs() < 6 * error + 0.02 * expected.abs() + 1e-3).all()


def test_the_score_moves_no_value_and_the_baseline_nobody_else() -> None:
    model, x = make(steps=3), images(8)
    torch.manual_seed(1)
    loss = model.losses(Batch(x, None, torch.arange(8)))["loss"]
    torch.manual_seed(1)
    evidence = model.evidence(x)
    torch.testing.assert_close(loss, -evidence.elbo.mean())
    torch.testing.assert_close(evidence.posterior.penalty, torch.zeros(8, dtype=torch.float64))
    loss.backward()
    for key, parameter in model.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.abs().sum() > 0, key


@torch.no_grad()
def test_behind_the_last_object_there_is_nothing() -> None:
    model, x = make(steps=3, latent_dim=2), images(50)
    steps = model.finder(x, SAMPLES)
    present = torch.stack([step.present for step in steps])
    assert (present[1:] <= present[:-1]).all()
    assert 0 < present.mean() < 1
    z = flat(steps).unflatten(1, (3, -1))
    assert (z[present.T == 0] == 0).all()
    kl = torch.stack([model._kl(step) for step in steps])  # (T, 3, N)
    assert (kl[1:, 0][present[:-1] == 0] == 0).all()
    assert (kl[:, 1:].transpose(0, 1)[:, present == 0] == 0).all()
    samples = model.sample(2_000)
    assert samples.shape == (2_000, 1, 4, 5)
    blank = (samples.flatten(1) < 2e-3).all(1).double().mean()
    assert float(blank) == pytest.approx(0.6, abs=5 * (0.24 / 2000) ** 0.5)  # none, with the prior's probability


def test_what_is_encoded_is_what_is_reconstructed_and_counted() -> None:
    model, x = make(steps=2), images(6)
    z = model.encode(x)
    assert z.shape == (6, 2 * 5)
    torch.testing.assert_close(model.generate(z), model.reconstruct(x))
    assert torch.equal(model.count(x), z.unflatten(1, (2, 5))[..., 0].sum(1).long())
    for rows in (x[:4], x[4:]):
        model.evaluation_step(Batch(rows, torch.zeros(len(rows), dtype=torch.int64), torch.arange(len(rows))))
    results = model.evaluation_results()
    assert float(results["count_accuracy"]) == pytest.approx(float((model.count(x) == 0).double().mean()))


def test_presences_wait_and_nothing_else_does() -> None:
    model, batch = make(steps=2, waiting=0.25), Batch(images(8), None, torch.arange(8))
    for step, learns in ((24, False), (25, True)):
        model.at_step(step, 100)
        model.zero_grad()
        model.losses(batch)["loss"].backward()
        grads = model.finder.head.weight.grad
        assert grads is not None
        assert bool((grads[0] != 0).any()) == learns
        assert (grads[1:] != 0).any(1).all()


def test_no_unit_is_active_where_all_images_are_the_same() -> None:
    model, x = make(steps=3), images(1).expand(200, -1, -1, -1)
    model.evaluation_step(Batch(x, torch.zeros(200, dtype=torch.int64), torch.arange(200)))
    assert float(model.evaluation_results()["active_units"]) == 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 0}, r"^model\.steps must be at least 1, got"),
        ({"glimpse": 0}, r"^model\.glimpse must be at least 1, got"),
        ({"presence": 1.0}, r"^model\.presence must be between 0 and 1, got 1\.0"),
        ({"cost": -1.0}, r"^model\.cost must be finite and not negative"),
        ({"object_size": 1.0}, r"^model\.object_size must be between 0 and 1, got 1\.0"),
        ({"waiting": 1.0}, r"^model\.waiting must be in \[0, 1\), got 1\.0"),
        ({"spread": 0.0}, r"^model\.spread must be positive and finite"),
        ({"objective": {"_target_": "attelbo.latent.objectives.IWAE"}}, r"^model/objective: AIR takes elbo"),
        (
            {
                "likelihood": {"_target_": "attelbo.latent.ContinuousBernoulli"},
                "data": DataSpec("grey", (1, 4, 5), "levels"),
            },
            r"^model/likelihood: AIR paints means of bernoulli or of a location-scale family, not ContinuousBernoulli",
        ),
        (
            {
                "data": DataSpec("floats", (1, 8, 8), "real", log_volume=3.0),
                "likelihood": {"_target_": "attelbo.latent.likelihoods.Normal"},
            },
            r"^data\.standardize must be none: AIR paints objects on black",
        ),
        ({"data": DataSpec("points", (3,), "binary")}, r"^model: AIR is a model of images, and points has vectors"),
    ],
)
def test_what_cannot_be_built(changes, message) -> None:
    with pytest.raises(ConfigError, match=message):
        make(**changes)
