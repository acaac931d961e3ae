"""AdamW that spares vectors, against torch's own with groups made by hand and against its formula."""

import pytest
import torch
from torch import nn

from attelbo.experiments import untrained
from attelbo.models.optimizers import adamw

SMALL = ("model.dim=8", "model.attention.heads=2", "model.network.layers=1")
WORDS = ("model=gpt", "data=sort", "optimizer=adamw", *SMALL)


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.GroupNorm(1, 2), nn.Flatten(), nn.Linear(8, 3), nn.LayerNorm(3))


def trained(optimizer, model: nn.Module) -> list[torch.Tensor]:
    for step in range(5):
        torch.manual_seed(step)
        optimizer.zero_grad()
        model(torch.randn(7, 1, 4, 4)).square().sum().backward()
        optimizer.step()
    return [parameter.detach() for parameter in model.parameters()]


@pytest.mark.parametrize("decay", ["all", "matrices"])
def test_equals_torchs_own_bit_for_bit(decay):
    ours, theirs = network(), network()
    found = trained(adamw(list(ours.parameters()), lr=0.01, weight_decay=0.3, decay=decay), ours)
    spared = [p for p in theirs.parameters() if p.ndim < 2 and decay == "matrices"]
    decayed = [p for p in theirs.parameters() if all(p is not other for other in spared)]
    groups = [{"params": decayed, "weight_decay": 0.3}, *([{"params": spared, "weight_decay": 0.0}] if spared else [])]
    expected = trained(torch.optim.AdamW(groups, lr=0.01), theirs)
    assert len(spared) in (0, 6)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def test_without_a_gradient_only_what_decays_moves():
    model = network()
    before = [parameter.detach().clone() for parameter in model.parameters()]
    optimizer = adamw(list(model.parameters()), lr=0.1, weight_decay=0.5, decay="matrices")
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    for old, new in zip(before, model.parameters(), strict=True):
        torch.testing.assert_close(new.detach(), old * (0.95 if old.ndim > 1 else 1.0))


@pytest.mark.parametrize(("words", "expected"), [(("optimizer.decay=all",), 1), ((), 2)])
def test_of_a_model(words, expected):
    model, _ = untrained(*WORDS, "optimizer.weight_decay=0.1", *words)
    (optimizer,) = model.built_optimizers()
    assert len(optimizer.param_groups) == expected
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(list(model.parameters()))
    if expected == 2:
        decayed, spared = optimizer.param_groups
        assert (decayed["weight_decay"], spared["weight_decay"]) == (0.1, 0.0)
        assert all(parameter.ndim > 1 for parameter in decayed["params"])
        assert all(parameter.ndim == 1 for parameter in spared["params"])
    (single,) = untrained(*WORDS, "optimizer.weight_decay=0", *words)[0].built_optimizers()
    assert len(single.param_groups) == 1  # one kernel for all


def test_groups_stay_groups():
    a, b = nn.Parameter(torch.zeros(2, 2)), nn.Parameter(torch.zeros(2))
    optimizer = adamw([{"params": [a], "name": "slow"}, {"params": [b]}], weight_decay=0.1, decay="matrices")
    assert [group.get("name") for group in optimizer.param_groups] == ["slow", None]
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.1, 0.0]
