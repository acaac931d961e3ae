"""Steps of replicas: one kernel for all optimizers, and where stacking pays."""

import pytest
import torch
from torch import nn
from torch.optim import SGD, Adam, AdamW

from attelbo.training.optimization import joint_adam_step
from attelbo.training.replicas.steps import stacking_pays

N, STEPS = 3, 4


def optimizers(kind, rates, **settings):
    """One for each rate, on equal parameters, after a first step of torch's own, which makes its state."""
    made = []
    for place, rate in enumerate(rates):
        generator = torch.Generator().manual_seed(place)
        parameters = [torch.randn(shape, generator=generator).requires_grad_() for shape in ((5, 3), (3,))]
        made.append(kind(parameters, lr=rate, fused=True, **settings))
        give_gradients(made[-1], place, 0)
        made[-1].step()
    return made


def give_gradients(optimizer, place: int, step: int) -> None:
    generator = torch.Generator().manual_seed(100 * place + step)
    for parameter in optimizer.param_groups[0]["params"]:
        parameter.grad = torch.randn(parameter.shape, generator=generator)


@pytest.mark.parametrize("kind", [Adam, AdamW])
@pytest.mark.parametrize("rates", [(0.1, 0.1, 0.1), (0.1, 0.2, 0.3)])
def test_one_kernel_takes_the_steps_of_all(kind, rates):
    together, alone = (optimizers(kind, rates, weight_decay=0.01) for _ in range(2))
    step = joint_adam_step(together)
    assert step is not None
    for number in range(1, STEPS):
        if number == 2:  # a schedule may bring them apart at any time
            for group in (together[0].param_groups[0], alone[0].param_groups[0]):
                group["lr"] = 0.05
        for place in range(N):
            give_gradients(together[place], place, number)
            give_gradients(alone[place], place, number)
            alone[place].step()
        step()
    for own, expected in zip(together, alone, strict=True):
        for parameter, other in zip(own.param_groups[0]["params"], expected.param_groups[0]["params"], strict=True):
            assert torch.equal(parameter, other)


def test_optimizers_that_differ_step_by_themselves():
    assert joint_adam_step([*optimizers(Adam, (0.1,)), *optimizers(Adam, (0.1,), eps=1e-4)]) is None
    assert joint_adam_step(optimizers(SGD, (0.1, 0.1))) is None


def test_on_a_cpu_only_small_networks_without_convolutions_are_stacked():
    small, large = nn.Linear(100, 100), nn.Linear(1000, 1000)
    rows = torch.arange(100)
    assert stacking_pays(small, 4, rows)
    assert not stacking_pays(small, 2, rows)
    assert not stacking_pays(large, 4, rows)
    assert not stacking_pays(small, 4, torch.arange(10_000))
    assert not stacking_pays(nn.Sequential(small, nn.Conv2d(1, 1, 3)), 4, rows)
    assert stacking_pays(large, 2, torch.empty(100, device="meta"))  # which stands for any accelerator
