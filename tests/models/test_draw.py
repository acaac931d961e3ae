"""DRAW against quadrature over its latents, a plain recurrent VAE written out, and what its parts say of each other."""

import math

import pytest
import torch
from torch import Tensor, nn
from torch import distributions as D
from torch.nn import functional as F

from attelbo.data.batch import Batch, DataSpec
from attelbo.errors import ConfigError
from attelbo.latent import estimate_log_likelihood
from attelbo.models import DRAW, build_draw
from attelbo.networks.glimpses import LSTMStep

ADAM = {"_target_": "torch.optim.Adam", "lr": 1e-3}
CONSTANT = {"_target_": "attelbo.models.schedulers.Constant"}
BERNOULLI = {"_target_": "attelbo.latent.likelihoods.Bernoulli"}
NORMAL = {"_target_": "attelbo.latent.likelihoods.Normal"}
ELBO = {"_target_": "attelbo.latent.objectives.ELBO"}
SHARED = {"likelihood": BERNOULLI, "objective": ELBO, "optimizer": ADAM, "scheduler": CONSTANT}

WINDOWS = {"windows": (2, 3), "whole images": (None, None), "a window to read": (2, None), "one to write": (None, 1)}


def make(windows: str = "windows", shape=(1, 3, 4), latent_dim=1, hidden=5, strokes=2, **changes) -> DRAW:
    """In float64, away from the initialization."""
    torch.manual_seed(3)
    read, write = WINDOWS[windows]
    data = DataSpec("bits", shape, "real" if "likelihood" in changes else "binary")
    sizes = {"latent_dim": latent_dim, "hidden": hidden, "strokes": strokes}
    model = build_draw(data, read=read, write=write, **{**SHARED, **sizes, **changes}).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return model


def images(n: int, shape=(1, 3, 4)) -> Tensor:
    return torch.rand(n, *shape, generator=torch.Generator().manual_seed(5), dtype=torch.float64).round()


@torch.enable_grad()
def fitted(model: DRAW, x: Tensor) -> DRAW:
    """With a posterior that is near enough for importance sampling to come to an end."""
    optimizer = torch.optim.Adam(model.inference_parameters(), lr=0.02)
    for _ in range(100):
        optimizer.zero_grad()
        log_weights = torch.as_tensor(model.evidence(x, n_samples=16, log_weights=True).log_weights)
        (-log_weights.logsumexp(0).mean()).backward()
        optimizer.step()
    return model


@pytest.mark.parametrize("windows", ["windows", "whole images"])
@torch.no_grad()
def test_importance_sampling_finds_the_evidence_by_quadrature(windows) -> None:
    model, x = fitted(make(windows), images(3)), images(3)
    axis = torch.linspace(-8, 8, 121, dtype=torch.float64)
    nodes, log_cell = torch.cartesian_prod(axis, axis), 2 * math.log(axis[1] - axis[0])
    z = iter(nodes.split(1, 1))
    eta = model.descend(len(nodes), lambda q, p: next(z), None).unsqueeze(1)  # (nodes, 1, ...)
    log_joint = torch.stack([model.likelihood.log_prob(eta, row)[:, 0] for row in x.split(1)], 1)
    log_joint += D.Normal(0.0, 1.0).log_prob(nodes).sum(1, keepdim=True)
    evidence = log_joint.logsumexp(0) + log_cell
    estimate = estimate_log_likelihood(model.weight_sampler(x), 20_000, chunk=10_000)
    assert (estimate.standard_error < 0.05).all()
    assert ((estimate.log_likelihood - evidence).abs() < 5 * estimate.standard_error + 1e-3).all()
    terms = model.evidence(x.repeat_interleave(100, 0), n_samples=50).elbo.unflatten(0, (3, 100))
    assert (terms.mean(1) < evidence + 5 * terms.std(1) / 100**0.5).all()


@torch.no_grad()
def test_without_windows_it_is_the_recurrent_vae_of_the_paper() -> None:
    """Eq. 3-17 with torch's own cells and distributions, and the same noise."""
    shape, latent_dim, hidden, strokes = (1, 3, 4), 3, 6, 4
    model, x = make("whole images", shape, latent_dim, hidden, strokes), images(5, shape)
    encoder, decoder = (nn.LSTMCell(n, hidden).double() for n in (2 * 12 + hidden, latent_dim))
    for cell, step in ((encoder, model.encoder), (decoder, model.decoder)):
        weight = step.gates.weight
        cell.weight_ih.copy_(weight[:, :-hidden])
        cell.weight_hh.copy_(weight[:, -hidden:])
        cell.bias_ih.copy_(step.gates.bias)
        cell.bias_hh.zero_()
    torch.manual_seed(7)
    evidence = model.evidence(x)
    torch.manual_seed(7)
    enc, dec = ([part.expand(5, -1) for part in start] for start in (model.encoder_start, model.decoder_start))
    canvas, kl = model.blank.flatten().expand(5, -1), []
    for _ in range(strokes):
        error = x.flatten(1) - torch.sigmoid(canvas)
        enc = encoder(torch.cat([x.flatten(1), error, dec[0]], 1), enc)
        mean, log_std = F.linear(enc[0], model.posterior.weight, model.posterior.bias).chunk(2, 1)
        noise = torch.randn(1, 5, latent_dim, dtype=torch.float64)[0]
        dec = decoder(mean + log_std.exp() * noise, dec)
        canvas = canvas + model.writer.paint(dec[0])
        kl.append(D.kl_divergence(D.Normal(mean, log_std.exp()), D.Normal(0.0, 1.0)).sum(1))
    torch.testing.assert_close(evidence.kl, torch.stack(kl, 1))
    expected = D.Bernoulli(logits=canvas).log_prob(x.flatten(1)).sum(1)
    torch.testing.assert_close(evidence.log_likelihood[0], expected)
    torch.testing.assert_close(evidence.elbo, expected - torch.stack(kl).sum(0))


@pytest.mark.parametrize("windows", WINDOWS)
def test_what_is_encoded_is_what_is_reconstructed(windows) -> None:
    model, x = make(windows, strokes=3), images(5)
    z = model.encode(x)
    assert z.shape == (5, 3)
    torch.testing.assert_close(model.generate(z), model.reconstruct(x))
    torch.testing.assert_close(model.likelihood.mean(model.copy(x)[-1].canvas), model.reconstruct(x))


def test_no_unit_is_active_where_all_images_are_the_same() -> None:
    """Samples of the layers above move the means below, and are no activity."""
    model = make()
    x = images(1).expand(200, -1, -1, -1)
    model.evaluation_step(Batch(x, None, torch.arange(200)))
    assert float(model.evaluation_results()["active_units"]) == 0


def test_samples_are_the_last_of_their_strokes() -> None:
    model = make(strokes=3)
    torch.manual_seed(0)
    strokes = model.paint(4)
    torch.manual_seed(0)
    torch.testing.assert_close(model.likelihood.mean(strokes[-1].canvas), model.sample(4))
    assert len(strokes) == 3
    assert all(stroke.read is None and stroke.write is not None for stroke in strokes)
    assert all(stroke.read is not None for stroke in model.copy(images(2)))


@pytest.mark.parametrize("windows", WINDOWS)
def test_every_parameter_is_trained(windows) -> None:
    model, x = make(windows), images(6)
    model.losses(Batch(x, None, torch.arange(6)))["loss"].backward()
    for key, parameter in model.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.abs().sum() > 0, key


def test_inference_and_generation_share_no_parameter() -> None:
    model = make()
    own = {id(parameter) for parameter in model.inference_parameters()}
    model.descend(2, lambda q, p: p.sample(2), None).sum().backward()
    reached = {id(parameter) for parameter in model.parameters() if parameter.grad is not None}
    assert not own & reached
    assert own | reached == {id(parameter) for parameter in model.parameters()}


@pytest.mark.parametrize("likelihood", [BERNOULLI, {**NORMAL, "calibration": "learned"}])
def test_any_likelihood_and_channels(likelihood) -> None:
    model = make(shape=(3, 4, 5), likelihood=likelihood) if likelihood is not BERNOULLI else make(shape=(3, 4, 5))
    terms = model.evidence(images(2, (3, 4, 5)), n_samples=3)
    assert terms.kl.shape == (2, 2)
    assert terms.z.shape == (3, 2, 2)
    assert model.sample(4).shape == (4, 3, 4, 5)


@pytest.mark.slow
def test_the_losses_are_one_graph() -> None:
    """What a compiler sees has no breaks, whatever the number of strokes."""
    model, batch = make(strokes=3).train(), Batch(images(4), None, torch.arange(4))
    compiled = torch.compile(model.losses, backend="eager", fullgraph=True, dynamic=False)
    torch.manual_seed(2)
    expected = model.losses(batch)
    torch.manual_seed(2)
    torch.testing.assert_close(compiled(batch), expected)


@torch.no_grad()
def test_a_step_of_an_lstm_is_that_of_torch() -> None:
    step, cell = LSTMStep(3, 4), nn.LSTMCell(3, 4)
    step.gates.weight.copy_(torch.cat([cell.weight_ih, cell.weight_hh], 1))
    step.gates.bias.copy_(cell.bias_ih + cell.bias_hh)
    x, h, c = torch.randn(6, 3), torch.randn(6, 4), torch.randn(6, 4)
    torch.testing.assert_close(step(x, (h, c)), cell(x, (h, c)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"strokes": 0}, r"^model\.strokes must be at least 1, got 0"),
        ({"hidden": 0}, r"^model\.hidden must be at least 1, got"),
        ({"latent_dim": 0}, r"^model\.latent_dim must be at least 1"),
        ({"read": 0}, r"^model\.read must be at least 1, got"),
        ({"write": -1}, r"^model\.write must be at least 1, got"),
        ({"data": DataSpec("points", (3,), "binary")}, r"^model: DRAW is a model of images, and points has vectors"),
        (
            {"objective": {"_target_": "attelbo.latent.objectives.Capacity"}},
            r"^model\.objective: attelbo\.latent\.objectives\.Capacity needs space, which neither its file nor",
        ),
    ],
)
def test_what_cannot_be_built(changes, message) -> None:
    given = {"data": DataSpec("bits", (1, 3, 4), "binary"), "latent_dim": 1, "hidden": 2, "strokes": 1}
    with pytest.raises(ConfigError, match=message):
        build_draw(**{**SHARED, **given, "read": 2, "write": 2, **changes})
