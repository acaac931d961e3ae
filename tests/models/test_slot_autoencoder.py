"""The slot-attention autoencoder: objects in any order, and its index of them against scikit-learn's."""

from typing import Any

import pytest
import torch
from sklearn.metrics import adjusted_rand_score

from attelbo.data.batch import Batch, DataSpec
from attelbo.errors import ConfigError
from attelbo.models import SlotAutoencoder, build_slot_autoencoder
from attelbo.networks import SlotEncoder

SCENES = DataSpec("scenes", (1, 8, 8), "binary", n_objects=3)
PARTS: dict[str, Any] = {
    "encoder": {"_target_": "attelbo.networks.SlotEncoder", "channels": [4], "dim": 6, "n_slots": 3},
    "decoder": {"_target_": "attelbo.networks.SlotDecoder", "channels": [4, 4]},
    "posterior": {"_target_": "attelbo.latent.posteriors.SpatialNormalPosterior"},
    "prior": {"_target_": "attelbo.latent.priors.StandardNormal"},
    "likelihood": {"_target_": "attelbo.latent.likelihoods.Bernoulli"},
    "objective": {"_target_": "attelbo.latent.objectives.ELBO"},
    "latent_dim": 5,
    "optimizer": {"_target_": "torch.optim.Adam", "lr": 1e-3},
    "scheduler": {"_target_": "attelbo.models.schedulers.Constant"},
}


def make(data: DataSpec = SCENES, **changes) -> SlotAutoencoder:
    torch.manual_seed(0)
    model = build_slot_autoencoder(data, **{**PARTS, **changes}).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return model


def images(n: int = 6) -> torch.Tensor:
    return (torch.rand(n, 1, 8, 8) < 0.3).float()


def test_the_order_of_objects_does_not_matter() -> None:
    model, x, order = make(), images(), torch.tensor([1, 2, 0])
    z = torch.randn(2, 6, 5, 3, 1)
    torch.testing.assert_close(model.explain(z[:, :, :, order], x)[0], model.explain(z, x)[0], rtol=1e-5, atol=1e-5)
    rate = model.evidence(x).kl.sum(1)
    assert isinstance(model.encoder, SlotEncoder)
    with torch.no_grad():
        model.encoder.slots.beginnings.copy_(model.encoder.slots.beginnings[order])
    torch.testing.assert_close(model.evidence(x).kl.sum(1), rate)


def test_the_index_of_a_split_is_the_mean_of_those_of_its_images_with_objects() -> None:
    model, x = make(), images()
    segments = torch.randint(-1, 3, (6, 8, 8))
    segments[2] = -1
    for rows in (slice(0, 2), slice(2, 6)):
        index = torch.arange(6)[rows]
        model.evaluation_step(Batch(x[rows], None, index, segments[rows]))
    found = model.segment(x)
    scores = [adjusted_rand_score(t[t >= 0], f[t >= 0]) for t, f in zip(segments, found, strict=True) if (t >= 0).any()]
    results = model.evaluation_results()
    assert len(scores) == 5
    assert results["adjusted_rand_index"].item() == pytest.approx(sum(scores) / 5, abs=1e-6)
    assert {measure.key for measure in model.measures} >= {"elbo", "adjusted_rand_index"}


def test_images_without_known_objects_have_no_index() -> None:
    model = make(DataSpec("bits", (1, 8, 8), "binary"))
    model.evaluation_step(Batch(images(), None, torch.arange(6)))
    assert "adjusted_rand_index" not in model.evaluation_results()


def test_layers_add_up_to_the_reconstruction_where_the_mean_is_the_parameter() -> None:
    model = make(
        DataSpec("scenes", (1, 8, 8), "levels", n_objects=3),
        likelihood={"_target_": "attelbo.latent.likelihoods.Normal", "calibration": "fixed", "scale": 0.3},
    )
    x = images()
    painted, shares = model.layers(x)
    expected = (painted * shares.unsqueeze(2)).sum(1)
    torch.testing.assert_close(model.reconstruct(x), expected)
    assert torch.equal(model.segment(x), shares.argmax(1))


def test_another_decoder_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"^model/decoder: .* by model/decoder=slots, not by MLPDecoder; "):
        make(decoder={"_target_": "attelbo.networks.MLPDecoder"})
