"""Bits of two stages where the true number is known: codes that say all of x, and a prior with their frequencies."""

import math

import pytest
import torch
from torch import Tensor

from attelbo.data.batch import Batch, DataSpec
from attelbo.errors import ConfigError
from attelbo.models import FittedPrior, build_fitted_prior, build_vae

IMAGES = torch.tensor([[0, 0, 0, 0], [1, 0, 1, 0], [0, 1, 1, 1], [1, 1, 0, 1]], dtype=torch.float64)
ROWS = torch.tensor([0, 0, 0, 0, 1, 1, 2, 3])
LABELS = torch.tensor([0, 0, 0, 0, 1, 1, 1, 1])
CERTAIN = 40.0
"""A logit that leaves no doubt."""


def make(class_conditional: bool, n_labels: int | None = None) -> FittedPrior:
    """Four images, each of them a code, by which the decoder tells all of its pixels."""
    linear = {"hidden": [], "activation": "tanh"}
    model = build_fitted_prior(
        data=DataSpec("four", (1, 2, 2), "binary", 2, n_labels=n_labels),
        weights="unused",
        encoder={"_target_": "attelbo.networks.MLPEncoder", **linear},
        decoder={"_target_": "attelbo.networks.MLPDecoder", **linear},
        posterior={"_target_": "attelbo.latent.VectorQuantizedPosterior", "n_codes": 4, "decay": None},
        prior={
            **{"_target_": "attelbo.networks.AutoregressiveTransformer", "dim": 2, "heads": 1, "layers": 1},
            "class_conditional": class_conditional,
        },
        likelihood={"_target_": "attelbo.latent.Bernoulli"},
        objective={"_target_": "attelbo.latent.ELBO"},
        latent_dim=4,
        optimizer={"_target_": "torch.optim.Adam"},
        scheduler={"_target_": "attelbo.models.schedulers.Constant"},
    ).double()
    eye = torch.eye(4, dtype=torch.float64)
    with torch.no_grad():
        model.posterior.head.weight.copy_(eye)
        model.posterior.head.bias.zero_()
        model.posterior.codebook.embedding.copy_(IMAGES)
        model.decoder.output.weight.copy_(2 * CERTAIN * eye)
        model.decoder.output.bias.fill_(-CERTAIN)
    return model.eval()


@torch.no_grad()
def say(model: FittedPrior, log_p: Tensor) -> None:
    """Let the prior say log p (Y, 4) behind the first token of each class, its attention silent."""
    prior = model.prior
    for layer in prior.network.residual_outputs():
        layer.weight.zero_()
        layer.bias.zero_()
    prior.position.zero_()
    prior.start.copy_(torch.tensor([[1.0, -1.0], [-1.0, 1.0]])[: len(log_p)])  # what the norm leaves as it is
    half = (log_p[0] - log_p[-1]) / 4
    prior.output.weight.copy_(torch.stack([half, -half], 1))
    prior.output.bias.copy_((log_p[0] + log_p[-1]) / 2)


def frequencies(rows: Tensor) -> Tensor:
    return (torch.bincount(rows, minlength=4).double() / len(rows)).log().clamp_min(-CERTAIN)


def measured(model: FittedPrior) -> dict[str, float]:
    model.evaluation_step(Batch(IMAGES[ROWS].view(-1, 1, 2, 2), LABELS, torch.arange(8)))
    return {name: float(value) for name, value in model.evaluation_results().items()}


@pytest.mark.parametrize(
    ("class_conditional", "bits"),
    [(False, 1.75), (True, 0.75)],  # the entropy of (1/2, 1/4, 1/8, 1/8); half of that of (1/2, 1/4, 1/4)
)
@torch.no_grad()
def test_the_bits_of_both_stages_are_the_entropy_of_the_data(class_conditional: bool, bits: float) -> None:
    model = make(class_conditional)
    say(
        model,
        torch.stack([frequencies(ROWS[y == LABELS]) for y in (0, 1)]) if class_conditional else frequencies(ROWS)[None],
    )
    results = measured(model)
    assert results["prior_bits"] == pytest.approx(bits / 4, rel=1e-4)
    assert results["first_stage_bits"] == pytest.approx(0, abs=1e-12)
    assert results["bits_per_dim"] == pytest.approx(bits / 4, rel=1e-4)
    assert results["loss"] == pytest.approx(bits * math.log(2), rel=1e-4)
    assert model.known_classes == (2 if class_conditional else None)
    labelled = [measure.unit for measure in model.measures if "given the label" in measure.unit]
    assert bool(labelled) == class_conditional


@torch.no_grad()
def test_a_first_stage_that_loses_something_costs_what_it_loses() -> None:
    """With a decoder that knows nothing, each pixel costs a bit more."""
    model = make(class_conditional=False)
    say(model, frequencies(ROWS)[None])
    model.decoder.output.weight.zero_()
    model.decoder.output.bias.zero_()
    results = measured(model)
    assert results["first_stage_bits"] == pytest.approx(1)
    assert results["bits_per_dim"] == pytest.approx(results["first_stage_bits"] + results["prior_bits"])


@torch.no_grad()
def test_samples_are_those_of_their_class() -> None:
    model = make(class_conditional=True)
    say(model, torch.stack([frequencies(ROWS[y == LABELS]) for y in (0, 1)]))
    first = model.sample(20, torch.zeros(20, dtype=torch.long)).round()
    assert (first == 0).all()
    second = model.sample(50, torch.ones(50, dtype=torch.long)).round().view(50, 4).double()
    assert set(map(tuple, second.tolist())) == set(map(tuple, IMAGES[1:].tolist()))
    in_turn = model.sample(40).round()
    assert (in_turn[::2] == 0).all()
    assert (in_turn[1::2].flatten(1).sum(1) > 0).all()


def test_a_prior_of_classes_is_fitted_with_labels() -> None:
    model = make(class_conditional=True)
    say(model, torch.stack([frequencies(ROWS[y == LABELS]) for y in (0, 1)]))
    batch = Batch(IMAGES[ROWS].view(-1, 1, 2, 2), LABELS, torch.arange(8))
    assert float(model.losses(batch)["loss"].detach()) == pytest.approx(0.75 * math.log(2), rel=1e-4)
    # Of unknown classes it is their mixture, which has the frequencies of all rows here.
    mixture = model.prior.log_prob(torch.arange(4).view(1, 4, 1))[0].detach()
    torch.testing.assert_close(mixture, frequencies(ROWS), rtol=1e-4, atol=1e-4)


def test_every_row_must_have_its_label() -> None:
    with pytest.raises(ConfigError, match=r"AutoregressiveTransformer needs the label of every row, data.n_labels"):
        make(class_conditional=True, n_labels=4)


def test_a_bound_on_the_prior_is_called_one() -> None:
    linear = {"hidden": [], "activation": "tanh"}
    model = build_fitted_prior(
        data=DataSpec("four", (1, 2, 2), "binary", 2),
        weights="unused",
        encoder={"_target_": "attelbo.networks.MLPEncoder", **linear},
        decoder={"_target_": "attelbo.networks.MLPDecoder", **linear},
        posterior={"_target_": "attelbo.latent.DiagonalNormalPosterior"},
        prior={"_target_": "attelbo.latent.TwoStage"},
        likelihood={"_target_": "attelbo.latent.Bernoulli"},
        objective={"_target_": "attelbo.latent.ELBO"},
        latent_dim=2,
        optimizer={"_target_": "torch.optim.Adam"},
        scheduler={"_target_": "attelbo.models.schedulers.Constant"},
    )
    assert {own.key for own in model.measures if "at most" in own.unit} == {"kl", "prior_bits"}
    assert not any("at most" in own.unit for own in make(class_conditional=False).measures)


@pytest.mark.parametrize(("objective", "passes"), [("ELBO", 1), ("IWAE", 6)])
def test_a_diffusion_takes_one_step_in_training_and_all_where_weights_or_likelihoods_are_asked_for(objective, passes):
    linear = {"hidden": [], "activation": "tanh"}
    given = {
        "data": DataSpec("four", (1, 2, 2), "binary", 2),
        "encoder": {"_target_": "attelbo.networks.MLPEncoder", **linear},
        "decoder": {"_target_": "attelbo.networks.MLPDecoder", **linear},
        "posterior": {"_target_": "attelbo.latent.DiagonalNormalPosterior"},
        "prior": {"_target_": "attelbo.latent.Diffusion", "steps": 6, "dim": 4},
        "likelihood": {"_target_": "attelbo.latent.Bernoulli"},
        "objective": {"_target_": f"attelbo.latent.{objective}"},
        "latent_dim": 2,
        "optimizer": {"_target_": "torch.optim.Adam"},
        "scheduler": {"_target_": "attelbo.models.schedulers.Constant"},
    }
    batch = Batch(IMAGES.float().view(-1, 1, 2, 2), LABELS[:4], torch.arange(4))
    for model, in_training in (build_vae(**given), passes), (build_fitted_prior(weights="unused", **given), 1):
        seen: list[int] = []
        model.prior.network.register_forward_hook(lambda *_, seen=seen: seen.append(1))
        model.train().losses(batch)["loss"].backward()
        assert len(seen) == in_training
        seen.clear()
        model.eval().weight_sampler_of(batch)(3)
        assert len(seen) == 6
