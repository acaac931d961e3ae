"""The ablation of attention: what is held equal is equal; what is told below its table."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from attelbo.data.batch import Batch
from attelbo.experiments.configuration import compose
from attelbo.experiments.papers.asides import Cost, asides, cost_of, cost_of_run
from attelbo.experiments.papers.specification import read_paper

PAPER = read_paper("attention_ablation")


@pytest.fixture(scope="module")
def costs() -> dict[str, Cost]:
    return {cell: cost_of_run(compose("train", PAPER.jobs(cell, "full", 1)[0]).config) for cell in PAPER.cells}


@pytest.mark.parametrize("data", ["fashion", "cifar"])
def test_what_is_held_equal_is_equal_within_two_percent(costs: dict[str, Cost], data: str) -> None:
    attention, parameters, compute = (costs[f"{data}_{cell}"] for cell in ("attention", "parameters", "compute"))
    assert parameters.parameters == pytest.approx(attention.parameters, rel=0.02)
    assert compute.flops == pytest.approx(attention.flops, rel=0.02)
    assert parameters.flops < attention.flops < 1.2 * parameters.flops


def test_operations_are_those_of_the_products() -> None:
    """A linear layer and a convolution: 2 operations for each weight and place, three times for the two gradients, but
    none for the gradient of the data."""
    network = nn.Sequential(nn.Conv2d(3, 5, 3, padding=1), nn.Flatten(), nn.Linear(5 * 4 * 6, 7))
    model: Any = SimpleNamespace(parameters=network.parameters)
    loss = lambda batch: {"loss": network(batch.x).square().mean()}  # noqa: E731
    model.players = lambda: [SimpleNamespace(losses=loss, parameters=list(network.parameters()))]
    cost = cost_of(model, Batch(torch.rand(4, 3, 4, 6), None, torch.arange(4)))
    convolution, linear = 3 * 5 * 9 * 24, 5 * 24 * 7
    assert cost.flops == 2 * (2 * convolution + 3 * linear)
    assert cost.parameters == 3 * 5 * 9 + 5 + linear + 7


def test_pairs_and_further_metrics_are_told() -> None:
    def run(seed: int, value: float) -> Any:
        metrics = {"test/bits_per_dim": value, "test/reconstruction": 100 * value}
        made = origin(gpus=["A100", "A100"] if seed else [])
        return SimpleNamespace(seed=seed, metrics=metrics, result={}, provenance=made)

    def origin(gpus: list[str]) -> dict[str, Any]:
        return {
            "git": {"sha": "0123456789", "diff": ""} if gpus else None,
            "versions": {"attelbo": "0.1.0", "torch": "2.15.0"},
            "hardware": {"cpu": "EPYC", "gpus": gpus},
        }

    done = {cell: [] for cell in PAPER.cells}
    done["fashion_attention"] = [run(seed, 3.0 + 0.1 * seed) for seed in range(3)]
    done["fashion_parameters"] = [run(seed, 2.9 + 0.1 * seed + 0.01 * seed) for seed in range(3)]
    lines = list(asides(PAPER, done, {"fashion_attention": Cost(1234, 5_600_000)}))
    assert lines[0].startswith("test/reconstruction: Fashion-MNIST, with attention 310.00 ± ")
    assert lines[1].startswith("test/bits_per_dim: Fashion-MNIST, with attention minus Fashion-MNIST, without, equal")
    assert "0.090 ± 0.025" in lines[1]
    assert "3 pairs cannot show a difference" in lines[1]
    assert len([line for line in lines if " minus " in line]) == 2
    assert lines[-2] == "Fashion-MNIST, with attention: 1,234 parameters, 5.6 MFLOP for a row in training"
    assert lines[-1] == "made with attelbo 0.1.0, torch 2.15.0, EPYC; attelbo 0123456, torch 2.15.0, A100"
