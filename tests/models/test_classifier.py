"""Classifiers: losses against torch's, exact accuracy whatever the batches, what learns and what is refused."""

import copy
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from attelbo.data.batch import Batch, DataSpec
from attelbo.errors import ConfigError
from attelbo.models import Classifier, build_image_classifier
from classifiers import IMAGES, TEXTS, TRAINED, images, of_images, of_texts, texts

GRU = {"_target_": "attelbo.networks.BidirectionalGRU"}
POOLINGS = ("ClassToken", "MeanPooling", "AttentionPooling")


def of_convolutions(**changes: Any) -> Classifier:
    torch.manual_seed(0)
    encoder = {"_target_": "attelbo.networks.ConvEncoder", "channels": [4, 8], "attention_at": [2], "heads": 2}
    return build_image_classifier(**{"data": IMAGES, "encoder": encoder, **TRAINED, **changes})


EVERY = [
    *((of_images(pooling={"_target_": f"attelbo.networks.{pooling}"}), images()) for pooling in POOLINGS),
    *((of_texts(pooling={"_target_": f"attelbo.networks.{pooling}"}), texts()) for pooling in POOLINGS),
    (of_texts(network=GRU, pooling={"_target_": "attelbo.networks.AttentionPooling"}), texts()),
    *(
        (
            of_images(
                position={"_target_": "attelbo.attention.AxialRotary"},
                pooling={"_target_": f"attelbo.networks.{pooling}"},
            ),
            images(),
        )
        for pooling in ("ClassToken", "MeanPooling")
    ),
    (of_convolutions(), images()),
]


@pytest.mark.parametrize(("model", "batch"), EVERY)
def test_every_parameter_is_trained(model, batch):
    model = copy.deepcopy(model)
    for name, parameter in model.named_parameters():
        if name.endswith("attention.output.weight"):
            torch.nn.init.normal_(parameter)  # those of feature maps begin at zero
    model.losses(batch)["loss"].backward()
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in model.parameters())


@pytest.mark.parametrize(("model", "batch"), EVERY)
def test_a_few_steps_learn_the_rows_by_heart(model, batch):
    model = copy.deepcopy(model)
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-2)
    for _ in range(80):
        optimizer.zero_grad()
        model.losses(batch)["loss"].backward()
        optimizer.step()
    assert float(model.losses(batch)["accuracy"]) == 1.0


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_loss_is_the_cross_entropy_in_nats(smoothing):
    model, batch = of_images(label_smoothing=smoothing), images()
    log_p = model(batch.x).log_softmax(-1)
    target = (1 - smoothing) * F.one_hot(batch.y, 3) + smoothing / 3
    torch.testing.assert_close(model.losses(batch)["loss"], -(target * log_p).sum(-1).mean())
    torch.testing.assert_close(model.classify(batch.x), log_p.exp())


@pytest.mark.parametrize("sizes", [(10,), (3, 3, 3, 1), (9, 1)])
def test_evaluation_is_exact_whatever_the_batches(sizes):
    model, batch = of_images().eval().requires_grad_(False), images()
    expected = {name: float(value) for name, value in model.losses(batch).items()}
    for rows in torch.arange(10).split(list(sizes)):
        model.evaluation_step(Batch(batch.x[rows], batch.y[rows], rows))
    results = {name: float(value) for name, value in model.evaluation_results().items()}
    assert results == pytest.approx(expected, rel=1e-6)
    right = (model(batch.x).argmax(-1) == batch.y).sum()
    assert results["accuracy"] == pytest.approx(int(right) / 10)
    assert {measure.key for measure in model.measures} == results.keys()


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize(("model", "batch"), [(of_texts, texts(1)), (of_images, images(1))], ids=["texts", "images"])
def test_every_token_is_seen_where_a_mask_lets_tokens_see_themselves_only(pooling, model, batch):
    """By the class token, that is."""
    mask = {"_target_": "attelbo.attention.Block", "size": 1}
    classifier = model(pooling={"_target_": f"attelbo.networks.{pooling}"}, mask=mask).eval()
    x = torch.full_like(batch.x, 3)
    others = [x.index_fill(x.dim() - 1, torch.tensor([at]), 5) for at in range(x.shape[-1])]
    assert all(not torch.equal(classifier(x), classifier(other)) for other in others)


def test_dropout_is_for_training():
    model, batch = of_texts(dropout=0.5), texts()
    assert not torch.equal(model(batch.x), model(batch.x))
    model.eval()
    assert torch.equal(model(batch.x), model(batch.x))


@pytest.mark.parametrize(
    ("build", "changes", "message"),
    [
        (of_images, {"patch": 3}, r"^model\.patch must divide the 4 x 6 pixels of an image: one of \[1, 2\], got 3$"),
        (of_images, {"label_smoothing": 1.0}, r"^model\.label_smoothing must be in \[0, 1\), got 1\.0$"),
        (of_images, {"dropout": -0.1}, r"^model\.dropout must be in \[0, 1\), got -0\.1$"),
        (of_images, {"data": TEXTS}, r"^model: this is a classifier of images, and words has tokens$"),
        (of_convolutions, {"data": TEXTS}, r"^model: this is a classifier of images, and words has tokens$"),
        (of_texts, {"data": IMAGES}, r"^model: this is a classifier of texts, and toys has levels$"),
        (
            of_images,
            {"data": DataSpec("toys", (1, 4, 6), "levels")},
            r"^model: Classifier needs labels, toys has none$",
        ),
        (
            of_images,
            {"data": DataSpec("toys", (1, 4, 6), "levels", 3, 30)},
            r"^model: .* label of every row, .*=30 keeps",
        ),
        (of_images, {"dim": 9}, r"^model\.attention: heads must divide the 9 features of a token"),
    ],
)
def test_what_does_not_fit_is_one_line(build, changes, message):
    with pytest.raises(ConfigError, match=message):
        build(**changes)
