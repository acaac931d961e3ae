"""M2 against enumeration and closed forms: both bounds, the evidence, and that evaluation looks at no label."""

import math

import pytest
import torch
from torch import Tensor
from torch import distributions as D

from attelbo.data.batch import Batch, DataSpec
from attelbo.errors import ConfigError
from attelbo.latent import DiagonalNormal, estimate_log_likelihood
from attelbo.models import build_m2
from labelled import CLASSES, DATA, LINEAR, STD, log_evidence, rows, semi_supervised

LABELS = torch.tensor([-1, 2, -1, 0])


JOINT = {
    "posterior": {"_target_": "attelbo.latent.JointPosterior", "categories": [4]},
    "prior": {"_target_": "attelbo.latent.JointPrior"},
}
CAPACITY = {"_target_": "attelbo.latent.Capacity"}


@pytest.fixture
def at_the_mean(monkeypatch: pytest.MonkeyPatch) -> None:
    """z is the mean of q(z|x,y): what is left can be computed by hand."""
    monkeypatch.setattr(DiagonalNormal, "rsample", lambda self, n: self.mean.expand(n, *self.mean.shape))


def bound_of_class(model, x: Tensor, label: int) -> Tensor:
    """L(x, y), (B,), with z at the mean, by torch.distributions and the weights themselves."""
    y = torch.full((len(x),), label)
    q = model.infer(x, y)
    weight, bias = model.decoder.output.weight, model.decoder.output.bias
    eta = q.mean @ weight[:, :2].T + weight[:, 2 + label] + bias
    prior = D.Normal(model.prior.means[label], model.prior.log_stds[label].exp())
    kl = D.kl_divergence(D.Normal(q.mean, q.std), prior).sum(1)
    return D.Normal(eta, STD).log_prob(x.flatten(1)).sum(1) - kl


@torch.no_grad()
def test_both_bounds_are_those_of_enumeration(at_the_mean: None) -> None:
    model, x = semi_supervised(alpha=1.5), rows()
    by_class = torch.stack([bound_of_class(model, x, label) for label in range(CLASSES)], 1)
    q = model.classify(x)
    unlabelled = (q * (by_class - math.log(CLASSES) - q.log())).sum(1)
    labelled = by_class.gather(1, LABELS.clamp(min=0).unsqueeze(1))[:, 0] - math.log(CLASSES)
    torch.testing.assert_close(model.evidence(x, n_samples=2).elbo, unlabelled)
    evidence = model.evidence(x, LABELS)
    torch.testing.assert_close(evidence.elbo, torch.where(LABELS == -1, unlabelled, labelled))
    penalty = torch.where(LABELS == -1, 0.0, -1.5 * q.log().gather(1, LABELS.clamp(min=0).unsqueeze(1))[:, 0])
    torch.testing.assert_close(evidence.posterior.penalty, penalty)
    loss = model.losses(Batch(x, LABELS, torch.arange(4)))["loss"]
    torch.testing.assert_close(loss, (penalty - evidence.elbo).mean())


@torch.no_grad()
def test_importance_samples_find_the_evidence_and_bounds_stay_below() -> None:
    model, x = semi_supervised(), rows()
    by_class = log_evidence(model, x) - math.log(CLASSES)
    exact = by_class.logsumexp(1)
    estimate = estimate_log_likelihood(model.weight_sampler(x, LABELS), 40_000, chunk=10_000)  # labels change nothing
    assert (estimate.standard_error < 0.05).all()
    assert ((estimate.log_likelihood - exact).abs() < 5 * estimate.standard_error).all()
    evidence = model.evidence(x, LABELS, n_samples=5000, log_weights=True)
    assert evidence.log_weights is not None
    joint = by_class.gather(1, LABELS.clamp(min=0).unsqueeze(1))[:, 0]
    expected = torch.where(LABELS == -1, exact, joint)
    error = evidence.log_weights.std(0) / 5000**0.5
    assert (evidence.elbo < expected + 5 * error).all()
    means = evidence.log_weights.logsumexp(0) - math.log(5000)
    assert ((means - expected).abs() < 0.1).all()


def test_the_bound_is_tightest_for_the_true_posterior_of_the_label(at_the_mean: None) -> None:
    # By q(y|x), the unlabelled bound is at its maximum where q(y|x) is proportional to p(y) exp L(x, y).
    model, x = semi_supervised(), rows()
    by_class = torch.stack([bound_of_class(model, x, label) for label in range(CLASSES)], 1).detach()
    logits = by_class.clone().requires_grad_()
    model.classifier = torch.nn.Identity()
    model.log_classes = lambda x: logits.log_softmax(-1)
    elbo = model.evidence(x).elbo
    torch.testing.assert_close(elbo.detach(), by_class.logsumexp(1) - math.log(CLASSES))
    (gradient,) = torch.autograd.grad(elbo.sum(), logits)
    assert gradient.abs().max() < 1e-7  # log STD was rounded to float32


@torch.no_grad()
def test_evaluation_looks_at_labels_only_to_count_right_answers() -> None:
    model, x = semi_supervised(), rows(8)
    answers = model.classify(x).argmax(1)
    results = []
    for y in (answers, (answers + 1) % CLASSES, torch.cat([answers[:6], (answers[6:] + 1) % CLASSES])):
        torch.manual_seed(0)
        for part in (slice(0, 5), slice(5, 8)):
            model.evaluation_step(Batch(x[part], y[part], torch.arange(len(x[part]))))
        results.append(model.evaluation_results())
    assert [float(result.pop("accuracy")) for result in results] == [1.0, 0.0, 0.75]
    assert results[0] == results[1] == results[2]
    for use in (model.encode, model.reconstruct):
        assert torch.equal(use(x, answers), use(x, (answers + 1) % CLASSES))


def test_every_parameter_is_trained() -> None:
    model = semi_supervised()
    model.losses(Batch(rows(), LABELS, torch.arange(4)))["loss"].backward()
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in model.parameters())


def test_commitments_are_averaged_over_the_classes() -> None:
    codes = {
        "posterior": {"_target_": "attelbo.latent.VectorQuantizedPosterior", "n_codes": 4, "decay": None},
        "prior": {"_target_": "attelbo.latent.UniformCodes"},
    }
    model, x = build_m2(DATA, **(LINEAR | codes), alpha=1.5).double(), rows()
    evidence = model.evidence(x, LABELS)
    q = model.classify(x)
    expected = []
    for row, label in enumerate(LABELS.tolist()):
        by_class = [model.infer(x[row : row + 1], torch.tensor([y])).penalty for y in range(CLASSES)]
        if label == -1:
            expected.append(sum(q[row, y] * by_class[y] for y in range(CLASSES)))
        else:
            expected.append(by_class[label] - 1.5 * q[row, label].log())
    torch.testing.assert_close(evidence.posterior.penalty, torch.cat(expected))
    model.losses(Batch(x, LABELS, torch.arange(4)))["loss"].backward()
    assert (model.posterior.codebook.embedding.grad != 0).any()


def test_codes_are_not_counted_where_a_row_has_some_for_each_class() -> None:
    codes = {
        "posterior": {"_target_": "attelbo.latent.VectorQuantizedPosterior", "n_codes": 4},
        "prior": {"_target_": "attelbo.latent.UniformCodes"},
    }
    model = build_m2(DATA, **(LINEAR | codes)).double().eval()
    with torch.no_grad():
        model.evaluation_step(Batch(rows(), LABELS, torch.arange(4)))
    results = model.evaluation_results()  # there were a perplexity of NaN and a usage of 0
    assert all(value.isfinite() for value in results.values())
    assert not results.keys() & {"perplexity", "code_usage"}


def test_a_label_that_is_not_known_says_nothing() -> None:
    model, x = semi_supervised(), rows()
    losses = []
    for y in (None, torch.full((4,), -1)):
        torch.manual_seed(0)
        losses.append(model.losses(Batch(x, y, torch.arange(4)))["loss"])
    torch.testing.assert_close(losses[0], losses[1])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"alpha": -1.0}, r"^model\.alpha must be finite and not negative, got -1\.0"),
        ({"data": DataSpec("sprites", (1, 2, 2), "levels", None)}, r"^model: M2 needs labels, sprites has none$"),
        ({"latent_dim": 0}, r"^model\.latent_dim must be at least 1, got 0"),
        (
            JOINT | {"objective": CAPACITY | {"discrete_capacity": 1.0}},
            r"^model\.objective\.discrete_capacity must be null",
        ),
    ],
)
def test_what_does_not_fit(changes, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        semi_supervised(**changes)
