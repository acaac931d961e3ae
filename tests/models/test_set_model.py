"""Models of sets: no order, no padding, losses against torch's distributions, exact means."""

import copy
import math
from typing import Any

import pytest
import torch
from torch import distributions as D

from attelbo.attention import Padding
from attelbo.data.batch import Batch, DataSpec
from attelbo.data.tasks import MaxOfSet, Mixtures
from attelbo.errors import ConfigError
from attelbo.models import SetModel, build_set_model
from attelbo.models.set_model import Clustering
from attelbo.networks import DeepSets

SETS = DataSpec("sets", (6, 2), "set", target=DataSpec("y", (), "real"))
NETWORKS: dict[str, dict[str, Any]] = {
    "deep_sets_mean": {"_target_": "attelbo.networks.DeepSets", "encoder": [8, 8], "decoder": [8], "pool": "mean"},
    "deep_sets_sum": {"_target_": "attelbo.networks.DeepSets", "encoder": [8, 8], "decoder": [], "pool": "sum"},
    "deep_sets_max": {"_target_": "attelbo.networks.DeepSets", "encoder": [8], "decoder": [8], "pool": "max"},
    "sab": {"_target_": "attelbo.networks.SetTransformer", "dim": 8, "heads": 2, "norm": True},
    "isab": {"_target_": "attelbo.networks.SetTransformer", "dim": 8, "heads": 2, "n_points": 3},
}
HEADS: dict[str, dict[str, Any]] = {
    "regression": {"_target_": "attelbo.models.Regression"},
    "clustering": {"_target_": "attelbo.models.Clustering", "n_components": 3},
}
TRAINED: dict[str, Any] = {
    "optimizer": {"_target_": "torch.optim.Adam", "lr": 1e-2},
    "scheduler": {"_target_": "attelbo.models.schedulers.Constant"},
}


def model(network: str = "isab", head: str = "clustering", data: DataSpec = SETS, **changes: Any) -> SetModel:
    torch.manual_seed(0)
    return build_set_model(data, NETWORKS[network] | changes, HEADS[head], **TRAINED).double()


def sets(n: int = 7) -> Batch:
    generator = torch.Generator().manual_seed(1)
    x, y = (torch.randn(n, *shape, generator=generator, dtype=torch.float64) for shape in ((6, 2), ()))
    size = torch.randint(1, 7, (n, 1), generator=generator)
    return Batch(x, y, torch.arange(n), torch.where(torch.arange(6) < size, 0, -1))


@pytest.mark.parametrize("n_points", [16, 32])
@pytest.mark.parametrize("seed", range(3))
def test_no_mixture_begins_with_a_standard_deviation_near_zero(n_points: int, seed: int):
    """Adam remembers the gradient of a loss of thousands of nats for as many steps."""
    torch.manual_seed(seed)
    network = {"_target_": "attelbo.networks.SetTransformer", "n_points": n_points}
    head = {"_target_": "attelbo.models.Clustering"}
    ours = build_set_model(SETS, network, head, **TRAINED)
    x, _, y = Mixtures(smallest_set=40, largest_set=40).draw(10, torch.device("cpu"))
    assert ours.losses(Batch(x, y, torch.arange(10)))["loss"] < 30


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("poison", [math.nan, 1e9])
def test_padding_changes_nothing(network, head, poison):
    ours, batch = model(network, head), sets()
    ours.losses(batch)["loss"].backward()
    gradients = [parameter.grad for parameter in ours.parameters()]
    ours.zero_grad()
    poisoned = batch._replace(x=batch.x.masked_fill((batch.segments < 0).unsqueeze(-1), poison))
    ours.losses(poisoned)["loss"].backward()
    for parameter, expected in zip(ours.parameters(), gradients, strict=True):
        torch.testing.assert_close(parameter.grad, expected)
    with torch.no_grad():
        for row in range(len(batch.x)):
            there = batch.segments[row] >= 0
            torch.testing.assert_close(
                ours(poisoned.x, batch.segments >= 0)[row], ours(batch.x[row : row + 1, there])[0]
            )


@pytest.mark.parametrize("network", NETWORKS)
def test_sets_have_no_order(network):
    ours, x = model(network), sets().x
    torch.testing.assert_close(ours(x[:, torch.randperm(6)]), ours(x))


@pytest.mark.parametrize("pool", ["mean", "sum", "max"])
def test_deep_sets_by_hand(pool):
    torch.manual_seed(0)
    network, batch = DeepSets(2, 3, 5, encoder=(8, 4), decoder=(6,), pool=pool).double(), sets()
    first, second = network.encoder[0], network.encoder[2]
    third, fourth = network.decoder[0], network.decoder[2]
    outputs = network(batch.x, Padding(batch.segments >= 0))
    assert outputs.shape == (7, 3, 5)
    for row in range(7):
        h = second(first(batch.x[row, batch.segments[row] >= 0]).relu())
        pooled = h.max(0).values if pool == "max" else getattr(h, pool)(0)
        torch.testing.assert_close(outputs[row].flatten(), fourth(third(pooled).relu()))


def test_the_mixture_is_that_of_torch():
    head, batch = Clustering(2, n_components=3), sets()
    outputs = torch.randn(7, 3, 5, dtype=torch.float64)
    terms = head.terms(outputs, batch.x, batch.y, batch.segments >= 0)
    for row in range(7):
        normal = D.Normal(outputs[row, :, 1:3], torch.nn.functional.softplus(outputs[row, :, 3:]) + 1e-3)
        mixture = D.MixtureSameFamily(D.Categorical(logits=outputs[row, :, 0]), D.Independent(normal, 1))
        expected = mixture.log_prob(batch.x[row, batch.segments[row] >= 0]).mean()
        torch.testing.assert_close(terms["log_density"][row], expected)
        torch.testing.assert_close(terms["gap"][row], batch.y[row] - expected)
        torch.testing.assert_close(terms["loss"][row], -expected)


@pytest.mark.parametrize("loss", ["absolute", "squared"])
def test_the_error_is_that_of_the_number(loss):
    torch.manual_seed(0)
    head = HEADS["regression"] | {"loss": loss}
    ours, batch = build_set_model(SETS, NETWORKS["sab"], head, **TRAINED).double(), sets()
    error = ours(batch.x, batch.segments >= 0)[:, 0, 0] - batch.y
    expected = error.abs() if loss == "absolute" else error.square()
    terms = ours.losses(batch)
    torch.testing.assert_close(terms["loss"], expected.mean())
    torch.testing.assert_close(terms["mae"], error.abs().mean())


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("sizes", [(7,), (3, 3, 1)])
def test_evaluation_is_exact_whatever_the_batches(head, sizes):
    ours, batch = model(head=head).requires_grad_(False), sets()
    expected = {name: float(value) for name, value in ours.losses(batch).items()}
    for rows in torch.arange(7).split(list(sizes)):
        ours.evaluation_step(Batch(*(part[rows] for part in batch[:4])))
    results = {name: float(value) for name, value in ours.evaluation_results().items()}
    assert results == pytest.approx(expected, rel=1e-6)
    assert {measure.key for measure in ours.measures} <= results.keys()


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("network", NETWORKS)
def test_every_parameter_is_trained(network, head):
    ours = model(network, head)
    ours.losses(sets())["loss"].backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in ours.parameters())


@pytest.mark.parametrize("network", ["deep_sets_max", "isab"])
@pytest.mark.parametrize(("task", "head"), [(MaxOfSet(4, 9), "regression"), (Mixtures(3, 2, 8, 16), "clustering")])
def test_a_few_steps_bring_it_forward(network, task, head):
    ours = copy.deepcopy(model(network, head, task.spec("task"))).float()
    sets_of = task.draw(64, torch.device("cpu"), torch.Generator().manual_seed(0))
    batch, optimizer = sets_of.batch(torch.arange(64)), torch.optim.Adam(ours.parameters(), lr=1e-2)
    before = float(ours.losses(batch)["loss"].detach())
    for _ in range(60):
        optimizer.zero_grad()
        ours.losses(batch)["loss"].backward()
        optimizer.step()
    assert float(ours.losses(batch)["loss"].detach()) < 0.8 * before


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: model(data=DataSpec("digits", (1, 8, 8), "levels", 10)), "model of sets .*, and digits has levels"),
        (
            lambda: model("deep_sets_max", pool="median"),
            r"^model\.network: pool must be mean or sum or max, got 'median'",
        ),
        (lambda: model("deep_sets_max", encoder=[]), r"^model\.network: encoder must name at least one layer"),
        (lambda: model("sab", layers=-1), r"^model\.network: layers must be at least 0, got -1"),
        (lambda: model("sab", heads=3), r"^model\.network: heads must divide the 8 features"),
        (lambda: Clustering(2, n_components=0), "n_components must be at least 1, got 0"),
        (lambda: Clustering(2, smallest_std=float("inf")), "smallest_std must be positive and finite, got inf"),
        (lambda: Clustering(2, smallest_std=0.0), "smallest_std must be positive and finite, got 0.0"),
    ],
)
def test_what_does_not_fit_is_one_line(build, message):
    with pytest.raises((ConfigError, ValueError), match=message):
        build()
