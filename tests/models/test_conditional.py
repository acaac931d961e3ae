"""The conditional VAE: its conditional evidence in closed form, what follows the label, what it refuses."""

from typing import Any

import pytest
import torch

from attelbo.data.batch import Batch, DataSpec
from attelbo.errors import ConfigError
from attelbo.latent import RAE, VAEGAN, ClassConditionalNormal, estimate_log_likelihood
from attelbo.models import ConditionalVAE, build_conditional_vae, build_vae
from labelled import CLASSES, DATA, LINEAR, conditional, log_evidence, rows, semi_supervised


def test_importance_samples_find_the_conditional_evidence() -> None:
    model, x = conditional(), rows()
    exact = log_evidence(model, x)
    for label in range(CLASSES):
        y = torch.full((len(x),), label)
        estimate = estimate_log_likelihood(model.weight_sampler(x, y), 40_000, chunk=10_000)
        assert (estimate.standard_error < 0.05).all()
        assert ((estimate.log_likelihood - exact[:, label]).abs() < 5 * estimate.standard_error).all()
        with torch.no_grad():
            evidence = model.evidence(x, y, n_samples=5000)
        error = evidence.log_likelihood.std(0) / 5000**0.5
        assert (evidence.elbo < exact[:, label] + 5 * error).all()
    assert float(exact.std(1).min()) > 0.01  # the label says something


def test_every_distribution_follows_the_label() -> None:
    model, x = conditional(), rows(1).expand(3, -1, -1, -1)
    y = torch.tensor([0, 1, 1])
    with torch.no_grad():
        q, eta = model.infer(x, y), model.decode(torch.ones(2, 3, 2, dtype=torch.float64), y)
        p = model.prior_of(y).log_prob(torch.ones(1, 3, 2, dtype=torch.float64))[0]
    for t in (q.mean, eta[0], eta[1], p):
        assert not torch.equal(t[0], t[1])
        torch.testing.assert_close(t[1], t[2])
    for parameter in (model.planes, model.prior.means, model.prior.log_stds):  # pyright: ignore[reportAttributeAccessIssue]
        assert isinstance(parameter, torch.nn.Parameter)


def test_its_bounds_are_said_to_be_given_the_label_and_those_of_m2_are_not() -> None:
    notes = [{own.key: own.note for own in model.measures} for model in (conditional(), semi_supervised())]
    assert [note["elbo"] for note in notes] == ["given the label", ""]
    assert {note["kl"] for note in notes} == {""}


def test_samples_without_labels_are_of_the_classes_in_turn() -> None:
    model = conditional()
    torch.manual_seed(1)
    given = model.sample(7, torch.tensor([0, 1, 2, 0, 1, 2, 0]))
    torch.manual_seed(1)
    assert torch.equal(model.sample(7), given)
    torch.manual_seed(1)
    assert not torch.equal(model.sample(7, torch.zeros(7, dtype=torch.int64)), given)


def test_every_parameter_is_trained() -> None:
    model = conditional()
    model.losses(Batch(rows(), torch.tensor([0, 1, 2, 0]), torch.arange(4)))["loss"].backward()
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in model.parameters())


NETWORKS = {
    "encoder": {"_target_": "attelbo.networks.ConvEncoder", "channels": [4, 4]},
    "decoder": {"_target_": "attelbo.networks.ConvDecoder", "channels": [4, 4]},
}


@pytest.mark.parametrize("size", [(1, 1, 1), (3, 5, 7)], ids=str)
@pytest.mark.parametrize("build", [build_conditional_vae, build_vae])
def test_any_size_of_image(build: Any, size: tuple[int, int, int]) -> None:
    vamp = {"prior": {"_target_": "attelbo.latent.VampPrior", "n_components": 3}} if build is build_vae else {}
    model = build(DataSpec("odd", size, "levels", CLASSES), **(LINEAR | NETWORKS | vamp))
    x, y = torch.rand(3, *size), torch.tensor([0, 2, 1])
    assert model.losses(Batch(x, y, torch.arange(3)))["loss"].isfinite()
    assert model.reconstruct(x, y).shape == x.shape
    assert model.sample(4).shape == (4, *size)


def test_a_decoder_that_plays_invents_images_of_the_same_labels() -> None:
    model = conditional(objective={"_target_": "attelbo.latent.VAEGAN", "channels": [3]})
    y = torch.tensor([0, 2, 1, 1])
    for player in model.players():
        player.losses(Batch(rows(), y, torch.arange(4)))["loss"].backward(inputs=player.parameters)
        assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in player.parameters)
    prior, output, objective = model.prior, model.decoder.output, model.objective
    assert isinstance(prior, ClassConditionalNormal)
    assert isinstance(output, torch.nn.Linear)
    assert isinstance(objective, VAEGAN)
    with torch.no_grad():
        prior.log_stds.fill_(-40)  # all samples of a class are its mean
        found = objective._invented(model.evidence(rows(), y))
        expected = prior.means[y] @ output.weight[:, :2].T + output.weight[:, 2:].T[y] + output.bias
    torch.testing.assert_close(found.flatten(1), expected)


@pytest.mark.parametrize(
    ("objective", "place"),
    [({"_target_": "attelbo.latent.WAEMMD", "n_samples": 2}, 0), ({"_target_": "attelbo.latent.Adversarial"}, 1)],
)
def test_the_aggregate_is_matched_to_the_prior_of_the_same_labels(
    objective: dict[str, Any], place: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, labels, prior_of = conditional(objective=objective), [], ConditionalVAE.prior_of

    def noted(self: ConditionalVAE, y: torch.Tensor | None = None) -> Any:
        labels.append(y)
        return prior_of(self, y)

    monkeypatch.setattr(ConditionalVAE, "prior_of", noted)
    y = torch.tensor([2, 2, 2, 1])
    model.players()[place].losses(Batch(rows(), y, torch.arange(4)))
    assert torch.equal(labels[-1], y.repeat(model.objective.n_samples))  # not of the classes in turn


def test_a_jacobian_given_the_label() -> None:
    parts = {
        "posterior": {"_target_": "attelbo.latent.DeterministicPosterior"},
        "prior": {"_target_": "attelbo.latent.StandardNormal"},
        "objective": {"_target_": "attelbo.latent.RAE", "regularization": "gradient_penalty", "weight": 1.0},
    }
    model = build_conditional_vae(DATA, **(LINEAR | parts)).double()
    n = 20_000
    evidence = model.evidence(rows(n), torch.arange(n) % CLASSES)
    penalty = (model.objective(evidence) - RAE("none")(evidence)).item()
    jacobian = model.decoder.output.get_parameter("weight")[:, :2].detach()
    gram = jacobian.T @ jacobian
    # Var |J^T v|^2 = 2 |J^T J|^2, of each row.
    error = float(2 * gram.square().sum() / n) ** 0.5
    assert abs(penalty - float(gram.trace())) < 5 * error
    assert error < 0.02 * penalty


def test_data_without_labels_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"^model: ConditionalVAE needs labels, sprites has none$"):
        conditional(DataSpec("sprites", (1, 2, 2), "levels", None))
    few = DataSpec("toys", (1, 2, 2), "levels", CLASSES, n_labels=10)
    with pytest.raises(
        ConfigError, match=r"^model: ConditionalVAE needs the label of every row, and data\.n_labels=10"
    ):
        conditional(few)


def test_a_prior_of_posteriors_without_labels_is_refused() -> None:
    vamp = {"_target_": "attelbo.latent.VampPrior"}
    with pytest.raises(ConfigError, match=r"^model/prior: VampPrior is made of posteriors q\(z\|x\)"):
        conditional(prior=vamp)


def test_a_prior_for_each_class_needs_classes_in_any_model() -> None:
    with pytest.raises(ConfigError, match=r"^model\.prior: a prior for each class takes data with classes"):
        build_vae(DataSpec("sprites", (1, 2, 2), "levels", None), **LINEAR)
    assert build_vae(DATA, **LINEAR).prior.data_classes == CLASSES
