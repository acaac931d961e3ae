"""Adaptive VAEs: the loss of pairs is the mean of two ELBOs written out, that of single images a VAE's."""

import pytest
import torch
from torch.distributions import Bernoulli, Normal, kl_divergence

from attelbo.data.batch import Batch, DataSpec
from attelbo.errors import ConfigError
from attelbo.latent import DiagonalNormal, Evidence, objectives, share_posteriors
from attelbo.models import AdaptiveVAE, build_adaptive_vae

DATA = DataSpec("pairs", (1, 4, 4), "binary", None, pairs=True)
PARTS = {
    "encoder": {"_target_": "attelbo.networks.MLPEncoder", "hidden": [16], "activation": "tanh"},
    "decoder": {"_target_": "attelbo.networks.MLPDecoder", "hidden": [16], "activation": "tanh"},
    "posterior": {"_target_": "attelbo.latent.posteriors.DiagonalNormalPosterior"},
    "prior": {"_target_": "attelbo.latent.priors.StandardNormal"},
    "likelihood": {"_target_": "attelbo.latent.likelihoods.Bernoulli"},
    "objective": {"_target_": "attelbo.latent.objectives.ELBO", "weight": 4.0},
    "optimizer": {"_target_": "torch.optim.Adam", "lr": 1e-3},
    "scheduler": {"_target_": "attelbo.models.schedulers.Constant"},
}


def make(data: DataSpec = DATA, **changes) -> AdaptiveVAE:
    torch.manual_seed(0)
    return build_adaptive_vae(data, latent_dim=5, **(PARTS | changes)).double()


def batch(n: int = 6) -> Batch:
    generator = torch.Generator().manual_seed(1)
    x, partner = torch.rand(2, n, 1, 4, 4, dtype=torch.float64, generator=generator).round()
    return Batch(x, None, torch.arange(n), partner=partner)


@pytest.mark.parametrize("average", ["gvae", "ml_vae"])
def test_the_loss_is_the_mean_of_both(average):
    model, pair = make(average=average), batch()
    assert pair.partner is not None
    torch.manual_seed(7)
    terms = model.losses(pair)
    q = model.infer(torch.cat([pair.x, pair.partner]))
    assert isinstance(q, DiagonalNormal)
    shared = share_posteriors(q, average)
    torch.manual_seed(7)
    noise = torch.randn(1, 12, 5, dtype=torch.float64)[0]
    losses, bounds = [], []
    for image, rows in ((pair.x, slice(6)), (pair.partner, slice(6, 12))):
        mean, std = shared.mean[rows], shared.std[rows]
        logits = model.decoder(mean + std * noise[rows])
        distortion = -Bernoulli(logits=logits).log_prob(image).flatten(1).sum(1).mean()
        rate = kl_divergence(Normal(mean, std), Normal(0.0, 1.0)).sum(1).mean()
        losses.append(distortion + 4 * rate)
        bounds.append(-distortion - rate)
    torch.testing.assert_close(terms["loss"], sum(losses) / 2)
    torch.testing.assert_close(terms["elbo"], sum(bounds) / 2)
    # Something is shared: it is not the loss of single images.
    torch.manual_seed(7)
    alone = model.losses(Batch(torch.cat([pair.x, pair.partner]), None, torch.arange(12)))
    assert abs(float((alone["loss"] - terms["loss"]).detach())) > 1e-3


def test_single_images_are_those_of_a_vae():
    model, single = make(), batch()._replace(partner=None)
    torch.manual_seed(3)
    found = model.evidence_of(single)
    torch.manual_seed(3)
    expected = model.evidence(single.x)
    assert torch.equal(found.elbo, expected.elbo)
    assert torch.equal(found.posterior.mean, model.infer(single.x).mean)


def test_an_objective_that_plays_sees_the_latents_of_both():
    factor = {"_target_": "attelbo.latent.objectives.Factor", "hidden": [4]}
    model = make(objective=factor)
    assert [len(model.latents_of(each).posterior.mean) for each in (batch(), batch()._replace(partner=None))] == [12, 6]
    for player in model.players():
        assert all(value.isfinite() for value in player.losses(batch()).values())


@pytest.mark.parametrize("name", ["WAEMMD", "InfoVAE"])
def test_a_discrepancy_takes_no_pair_for_independent_draws(name):
    """Where the aggregate posterior is the prior, MMD^2 is zero on average over minibatches, here of 3 pairs of equal
    images, whose posteriors are next to points."""
    torch.manual_seed(0)
    objective = getattr(objectives, name)(weight=1.0, **({"alpha": 1.0} if name == "InfoVAE" else {}))
    model = make(objective=PARTS["objective"])
    found = []
    for _ in range(800):
        mean = torch.randn(3, 5, dtype=torch.float64).repeat(2, 1)
        q = share_posteriors(DiagonalNormal(mean, torch.full_like(mean, -10.0)), "gvae")
        unknown = torch.zeros(1, 6, dtype=torch.float64)
        e = Evidence(unknown, unknown.mT, q.rsample(1), q, generative=model, n_sets=2)
        found.append(objective(e))
    values = torch.stack(found)
    assert abs(float(values.mean())) < 4 * float(values.std()) / 800**0.5


def test_images_of_pairs_are_two_sets():
    model = make()
    assert [model.evidence_of(each).n_sets for each in (batch(), batch()._replace(partner=None))] == [2, 1]
    assert model.latents_of(batch()).n_sets == 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"data": DataSpec("bits", (1, 4, 4), "binary", None)},
            r"^model: .* bits come one by one; data\.pairs=random ",
        ),
        ({"average": "mean"}, r"^model\.average must be gvae or ml_vae, got 'mean'$"),
        (
            {"posterior": {"_target_": "attelbo.latent.posteriors.FullNormalPosterior"}},
            r"^model/posterior: AdaptiveVAE averages diagonal normals, and FullNormalPosterior has none; ",
        ),
        # Of independent draws of N(0, I) in 4 dimensions it finds a nat less where they come in pairs.
        (
            {"objective": {"_target_": "attelbo.latent.objectives.BetaTC"}},
            r"^model/objective: BetaTC takes the rows of a minibatch for independent .*=factor ",
        ),
    ],
)
def test_what_does_not_go_together(changes, message):
    with pytest.raises(ConfigError, match=message):
        make(**changes)
