"""Objectives that treat the inference and the generative side of a model differently, in the model."""

import math
import os
import signal

import pytest
import torch
from torch import nn

from attelbo.data.batch import Batch, DataSpec
from attelbo.errors import ConfigError
from attelbo.latent import DiagonalNormal, DiagonalNormalPosterior, DReG
from attelbo.models import build_vae
from attelbo.models.parts import check_objective
from attelbo.training import BlockStepper

N_SAMPLES, N_GROUPS = 6, 3


PARTS = {
    "encoder": {"_target_": "attelbo.networks.MLPEncoder", "hidden": [5], "activation": "tanh"},
    "decoder": {"_target_": "attelbo.networks.MLPDecoder", "hidden": [5], "activation": "tanh"},
    "posterior": {"_target_": "attelbo.latent.DiagonalNormalPosterior"},
    "prior": {"_target_": "attelbo.latent.MixtureOfGaussians", "n_components": 2},
    "likelihood": {"_target_": "attelbo.latent.Bernoulli"},
    "latent_dim": 2,
    "optimizer": {"_target_": "torch.optim.Adam", "lr": 0.01},
    "scheduler": {"_target_": "attelbo.models.schedulers.Constant"},
}


def make(objective, parts=None, **arguments):
    torch.manual_seed(0)
    objective = {"_target_": f"attelbo.latent.{objective}", **arguments}
    return build_vae(DataSpec("bits", (1, 4, 4), "binary"), objective=objective, **PARTS | (parts or {})).double()


def batch(rows=7):
    x = torch.arange(rows * 16).remainder(3).gt(0).double().view(rows, 1, 4, 4)
    return Batch(x, None, torch.arange(rows))


def gradients(loss, parameters):
    return torch.autograd.grad(loss, parameters, retain_graph=True)


def test_piwae_gives_each_side_the_gradient_of_its_own_bound():
    model = make("PIWAE", n_samples=N_SAMPLES, n_groups=N_GROUPS)
    generation, inference = model.players()
    assert [player.prefix for player in (generation, inference)] == ["", "inference_"]
    assert not set(generation.parameters) & set(inference.parameters)
    assert set(generation.parameters) | set(inference.parameters) == set(model.parameters())
    assert set(inference.parameters) == {*model.encoder.parameters(), *model.posterior.parameters()}

    # By hand, from the weights of the same samples.
    torch.manual_seed(1)
    log_weights = model.evidence(batch().x, n_samples=N_SAMPLES, log_weights=True).log_weights
    assert log_weights is not None
    tight = -log_weights.exp().mean(0).log().mean()
    grouped = -torch.stack([log_weights[g::N_GROUPS].exp().mean(0).log() for g in range(N_GROUPS)]).mean()
    for player, bound in ((generation, tight), (inference, grouped)):
        torch.manual_seed(1)
        loss = player.losses(batch())["loss"]
        torch.testing.assert_close(loss, bound)
        torch.testing.assert_close(gradients(loss, player.parameters), gradients(bound, player.parameters))


CODES = {
    "posterior": {"_target_": "attelbo.latent.VectorQuantizedPosterior", "n_codes": 4, "decay": None},
    "prior": {"_target_": "attelbo.latent.UniformCodes"},
}


def test_the_inference_side_of_piwae_gets_the_penalty():
    model = make("PIWAE", CODES, n_samples=2, n_groups=2)
    _, inference = model.players()
    evidence = model.evidence(batch().x, n_samples=2, log_weights=True)  # no noise: all samples are equal
    penalty = torch.as_tensor(evidence.posterior.penalty).mean()
    loss = inference.losses(batch())["loss"]
    torch.testing.assert_close(loss, penalty - torch.as_tensor(evidence.log_weights).mean())
    codebook = model.posterior.codebook.embedding
    torch.testing.assert_close(gradients(loss, codebook), gradients(penalty, codebook))
    assert (gradients(penalty, codebook)[0] != 0).any()


EXTRA = {"extra": {"_target_": "attelbo.latent.MSSSIM"}}


@pytest.mark.parametrize(
    ("objective", "arguments", "told"),
    [
        ("PIWAE", {"n_samples": 4, "n_groups": 2}, [True, True]),
        ("VAEGAN", {"channels": [3]}, [True, True, False]),
        ("Adversarial", {"hidden": [3]}, [True, False, False]),
    ],
)
def test_an_extra_term_is_added_once_for_each_side(objective, arguments, told):
    model, found = make(objective, EXTRA, **arguments), []
    for player in model.players():
        gradients_at = []
        for weight in (0.0, 10.0):
            model.extra.weight = weight
            torch.manual_seed(1)
            loss = player.losses(batch())["loss"]
            gradients_at.append(torch.autograd.grad(loss, player.parameters, materialize_grads=True))
        added = [after - before for before, after in zip(*gradients_at, strict=True)]
        found.append(any(bool((part != 0).any()) for part in added))
        if found[-1]:
            torch.manual_seed(1)
            extra = model._extra_of(model.evidence_of(batch())).mean()
            torch.testing.assert_close(added, [*torch.autograd.grad(extra, player.parameters, materialize_grads=True)])
    assert found == told


def test_dreg_in_the_model_leaves_the_generative_gradients_and_changes_the_others():
    plain, doubly = make("IWAE", n_samples=N_SAMPLES), make("DReG", n_samples=N_SAMPLES)
    terms = []
    for model in (plain, doubly):
        torch.manual_seed(1)
        terms.append(model.losses(batch()))
        terms[-1]["loss"].backward()
    torch.testing.assert_close(terms[0], terms[1])
    inference = {id(parameter) for parameter in doubly.inference_parameters()}
    for own, other in zip(doubly.parameters(), plain.parameters(), strict=True):
        equal = torch.allclose(torch.as_tensor(own.grad), torch.as_tensor(other.grad))
        assert equal == (id(own) not in inference)


def test_dreg_becomes_one_graph():
    # As trainer.compile makes it, but for the kernels.
    model = make("DReG", n_samples=N_SAMPLES)
    compiled = torch.compile(model.losses, fullgraph=True, dynamic=False, backend="aot_eager")
    found = []
    for losses in (compiled, model.losses):
        torch.manual_seed(1)
        loss = losses(batch())["loss"]
        found.append([loss, *torch.autograd.grad(loss, list(model.parameters()))])
    torch.testing.assert_close(*found)
    torch._dynamo.reset()


def test_dreg_takes_no_posterior_without_a_density_of_a_given_z():
    class OneWay(DiagonalNormal):
        stop_gradient = DiagonalNormal.__mro__[1].stop_gradient

    class OneWayPosterior(DiagonalNormalPosterior):
        distribution = OneWay

    check_objective(DReG(), DiagonalNormalPosterior((3,), 2))
    with pytest.raises(
        ConfigError, match=r"^model/objective: DReG takes the density of a given z, which the OneWay of"
    ):
        check_objective(DReG(), OneWayPosterior((3,), 2))


@pytest.mark.parametrize(
    ("posterior", "prior"),
    [
        ("GumbelSoftmaxPosterior", "UniformCategorical"),
        ("JointPosterior", "JointPrior"),
        ("VectorQuantizedPosterior", "UniformCodes"),
        ("FiniteScalarPosterior", "UniformCodes"),
    ],
)
def test_dreg_takes_no_samples_without_noise_and_none_of_another_density(posterior, prior):
    latents = {
        "latent_dim": 4,
        "posterior": {"_target_": f"attelbo.latent.{posterior}"},
        "prior": {"_target_": f"attelbo.latent.{prior}"},
    }
    make("IWAE", latents)
    with pytest.raises(ConfigError, match=rf"^model/objective: the gradient of DReG .* {posterior} .*=iwae"):
        make("DReG", latents)


def sides(model):
    """The weights of the inference and the generative side, as they are now."""
    inference = model.inference_parameters()
    own = set(inference)
    generation = [parameter for parameter in model.parameters() if parameter not in own]
    return [nn.utils.parameters_to_vector(side).detach().clone() for side in (inference, generation)]


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd"])
def test_a_lagging_decoder_moves_at_every_third_step_and_then_always(runs, monkeypatch, optimizer):
    history = []
    call = BlockStepper.__call__

    def watched(self, block):
        history.append(sides(self.model))
        call(self, block)

    monkeypatch.setattr(BlockStepper, "__call__", watched)
    trainer = runs.fit(
        "model/objective=lagging",
        "model.objective.inner_steps=3",
        "model.objective.fraction=0.5",  # of 20 steps
        "data.minibatches_per_block=1",
        f"optimizer={optimizer}",
        without=("data.minibatches_per_block=4",),
    )
    history.append(sides(trainer.lightning_module))
    moved = [
        [not torch.equal(after, before) for after, before in zip(now, then, strict=True)]
        for now, then in zip(history[1:], history, strict=False)
    ]
    assert len(moved) == 20
    assert all(inference for inference, _ in moved)
    assert [step for step, (_, generation) in enumerate(moved) if generation] == [2, 5, 8, *range(10, 20)]


def test_lagging_without_a_first_part_is_the_elbo(runs):
    words = ("model.objective.fraction=0.0", "scheduler=cosine")
    lagging = sides(runs.fit("model/objective=lagging", *words).lightning_module)
    plain = sides(runs.fit("model/objective=elbo", "scheduler=cosine").lightning_module)
    assert all(torch.equal(own, other) for own, other in zip(lagging, plain, strict=True))


@pytest.mark.parametrize("objective", ["lagging", "piwae"])
def test_stopped_and_resumed(runs, monkeypatch, objective):
    words = ("scheduler=cosine", f"model/objective={objective}")
    whole = runs.checkpoint(runs.train(*words), "last")
    call, blocks = BlockStepper.__call__, []

    def stop_at_the_second(self, block):
        call(self, block)
        blocks.append(block)
        if len(blocks) == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(BlockStepper, "__call__", stop_at_the_second)
        assert runs.train(*words, "paths.output_dir=" + str(runs.folder / "again")).state == "interrupted"
    resumed = runs.train(*words, "paths.output_dir=" + str(runs.folder / "again"), "ckpt=auto")
    checkpoint = runs.checkpoint(resumed, "last")
    assert checkpoint["state_dict"].keys() == whole["state_dict"].keys()
    for name, value in whole["state_dict"].items():
        assert torch.equal(value, checkpoint["state_dict"][name]), name


def test_the_rows_of_the_training_are_told(runs):
    trained = runs.fit("model/objective=beta_tc").lightning_module
    assert float(trained.objective.log_n) == pytest.approx(math.log(100))
    given = runs.fit("model/objective=beta_tc", "model.objective.n_rows=7").lightning_module
    assert float(given.objective.log_n) == pytest.approx(math.log(7))
