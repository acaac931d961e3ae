"""A VAE whose prior is made of its own posteriors: copies, checkpoints, gradients, samples."""

import copy
from dataclasses import replace

import pytest
import torch

from attelbo.data.batch import Batch
from attelbo.errors import ConfigError
from attelbo.latent import VampPrior
from attelbo.models import VariationalAutoencoder, build_vae
from labelled import DATA, LINEAR, rows

VAMP = {"_target_": "attelbo.latent.VampPrior", "n_components": 5}


def vamp(**changes) -> VariationalAutoencoder:
    torch.manual_seed(0)
    return build_vae(DATA, **(LINEAR | {"prior": VAMP} | changes)).double()


def losses(model: VariationalAutoencoder) -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    return model.losses(Batch(rows(), None, torch.arange(4)))


def test_the_prior_of_a_copy_is_made_of_the_posteriors_of_the_copy() -> None:
    model = vamp()
    twin = copy.deepcopy(model)
    before, z = losses(model), torch.zeros(1, 1, 2, dtype=torch.float64)
    density = model.prior.log_prob(z)
    with torch.no_grad():
        for parameter in twin.posterior.parameters():
            parameter.add_(1.0)
    assert torch.equal(model.prior.log_prob(z), density)
    assert torch.equal(losses(model)["loss"], before["loss"])
    assert not torch.equal(twin.prior.log_prob(z), density)


def test_pseudo_inputs_are_encoded_once_for_all_importance_samples_of_a_batch() -> None:
    model, encoded = vamp(), []
    model.encoder.register_forward_hook(lambda module, given, out: encoded.append(len(given[0])))
    draw = model.weight_sampler(rows())
    torch.manual_seed(2)
    weights = torch.cat([draw(3), draw(2)])
    assert encoded == [4, 5]  # the rows, the pseudo-inputs
    torch.manual_seed(2)
    q = model.infer(rows())
    for k, some in ((3, weights[:3]), (2, weights[3:])):
        z, log_q = q.rsample_with_log_prob(k)
        expected = model.explain(z, rows())[0] + model.prior.log_prob(z) - log_q
        torch.testing.assert_close(some, expected)


def test_a_checkpoint_holds_the_pseudo_inputs() -> None:
    model, other = vamp(), vamp()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_()
    other.load_state_dict(model.state_dict())
    assert torch.equal(losses(other)["loss"], losses(model)["loss"])


def test_pseudo_inputs_and_everything_else_are_trained() -> None:
    model = vamp()
    losses(model)["loss"].backward()
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in model.parameters())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"posterior": {"_target_": "attelbo.latent.BatchNormalizedPosterior"}}, r"Batch.* \(model\.posterior\)"),
        ({"encoder": LINEAR["encoder"] | {"hidden": [4], "batch_norm": True}}, r"MLPEncoder \(model\.encoder\)"),
    ],
)
def test_running_averages_of_the_data_are_not_moved_by_pseudo_inputs(changes, message) -> None:
    with pytest.raises(ConfigError, match=rf"^model/prior: VampPrior makes .* {message} normalizes over batches"):
        vamp(**changes)
    assert vamp(**changes, prior={"_target_": "attelbo.latent.StandardNormal"})


def test_samples_are_of_the_mixture() -> None:
    # The mean of p(z) is that of the posterior means of the pseudo-inputs.
    model = vamp()
    with torch.no_grad():
        z = model.prior.sample(20_000)
        q = model.infer(model.prior.pseudo_inputs)
    assert ((z.mean(0) - q.mean.mean(0)).abs() < 5 * z.std(0) / 20_000**0.5).all()


def test_pseudo_inputs_of_real_numbers_are_any_and_of_others_in_the_unit_range() -> None:
    inputs = []
    for kind in ("real", "levels"):
        torch.manual_seed(0)
        model = build_vae(replace(DATA, kind=kind), **(LINEAR | {"prior": VAMP}))
        prior = model.prior
        assert isinstance(prior, VampPrior)
        inputs.append(prior.pseudo_inputs)
    assert inputs[0].min() < -0.5  # standardized data are
    torch.testing.assert_close(inputs[1], inputs[0].sigmoid())
