"""Steps of replicas: one kernel for all optimizers, and where stacking pays."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.optim import SGD, Adam, AdamW

from attelbo.training import fused_adam
from attelbo.training.fused_adam import joint_adam_step
from attelbo.training.replicas.adam import StackedAdam, can_be_stacked
from attelbo.training.replicas.stack import stack_tensors
from attelbo.training.replicas.steps import stacking_pays

N, STEPS = 3, 4
ROUNDING = {"rtol": 1e-6, "atol": 1e-7}
"""Of a CPU's vectors, which end elsewhere in a longer tensor."""


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


@pytest.mark.parametrize(
    "unusual", [{"amsgrad": True}, {"differentiable": True}, {"lr": torch.tensor(0.1)}, {"fused": False}], ids=str
)
def test_the_kernel_alone_steps_only_where_it_is_all_of_the_step(unusual):
    """Also in one of two replicas."""
    usual, other = optimizers(Adam, [0.1, 0.1])
    assert fused_adam.fused_adam_step(other) is not None
    other.param_groups[0].update(unusual)
    assert fused_adam.fused_adam_step(other) is None
    assert joint_adam_step([usual, other]) is None
    assert joint_adam_step([other, usual]) is None
    assert not can_be_stacked([usual, other])


def test_the_kernel_alone_does_not_step_where_a_hook_waits():
    (optimizer,) = optimizers(Adam, [0.1])
    optimizer.register_step_post_hook(lambda *_: None)
    assert fused_adam.fused_adam_step(optimizer) is None


def test_on_a_cpu_only_small_networks_without_convolutions_are_stacked():
    small, large = nn.Linear(100, 100), nn.Linear(1000, 1000)
    rows = torch.arange(100)
    assert stacking_pays(small, 4, rows)
    assert not stacking_pays(small, 2, rows)
    assert not stacking_pays(large, 4, rows)
    assert not stacking_pays(small, 4, torch.arange(10_000))
    assert not stacking_pays(nn.Sequential(small, nn.Conv2d(1, 1, 3)), 4, rows)
    assert stacking_pays(large, 2, torch.empty(100, device="meta"))  # which stands for any accelerator


def in_two_groups(rates=(0.1, 0.1), **settings):
    """Two Adams that have taken a step; the rates are those of their second groups, the settings of the last."""
    made = []
    for rate, changed in zip(rates, ({}, settings), strict=True):
        first, second = torch.ones(2, requires_grad=True), torch.ones(3, requires_grad=True)
        made.append(Adam([{"params": [first]}, {"params": [second], "lr": rate} | changed], lr=0.1, fused=True))
        first.grad, second.grad = torch.ones(2), torch.ones(3)
        made[-1].step()
    return made


def test_adams_that_differ_in_one_of_their_groups_are_not_stacked():
    assert can_be_stacked(in_two_groups())
    assert can_be_stacked(in_two_groups((0.2, 0.2)))
    assert not can_be_stacked(in_two_groups((0.1, 0.2)))
    assert not can_be_stacked(in_two_groups(weight_decay=0.1))
    assert not can_be_stacked(in_two_groups(betas=(0.8, 0.9)))


@pytest.mark.parametrize("rate_on_device", [False, True])
@pytest.mark.parametrize("kind", [Adam, AdamW])
def test_the_adams_of_a_stack_are_one(kind, rate_on_device):
    """On common tensors, of which parameters, averages and counts of each are slices."""
    stacked, alone = (optimizers(kind, [0.1] * N, weight_decay=0.01) for _ in range(2))
    own = [optimizer.param_groups[0]["params"] for optimizer in stacked]
    common = [stack_tensors(tensors) for tensors in zip(*own, strict=True)]
    assert can_be_stacked(stacked)
    together = StackedAdam(stacked, common, own)
    if rate_on_device:
        for optimizer in alone:
            optimizer.param_groups[0]["lr"] = 0.3
    step = together.step([torch.tensor(0.3)] if rate_on_device else None)
    for number in range(1, STEPS):
        for place in range(N):
            give_gradients(alone[place], place, number)
            alone[place].step()
            give_gradients(stacked[place], place, number)
        for tensor, each in zip(common, zip(*own, strict=True), strict=True):
            tensor.grad = torch.stack([parameter.grad for parameter in each])
        step()
    for optimizer, expected in zip(stacked, alone, strict=True):
        for parameter, other in zip(
            optimizer.param_groups[0]["params"], expected.param_groups[0]["params"], strict=True
        ):
            torch.testing.assert_close(parameter, other, **ROUNDING)
            for key, value in expected.state[other].items():
                torch.testing.assert_close(optimizer.state[parameter][key], value, **ROUNDING, msg=key)
    assert together.is_whole()
    stacked[1].load_state_dict(alone[1].state_dict())
    assert not together.is_whole()
    stacked[0].param_groups[0]["lr"] = 0.2
    assert not can_be_stacked(stacked)


def test_a_gpu_gets_a_small_network_in_about_as_many_pieces_as_a_launch_takes():
    def pieces(*sizes):
        on_gpu = [SimpleNamespace(device=torch.device("cuda"), numel=lambda n=n: n) for n in sizes]
        size = fused_adam._piece_size(on_gpu)
        return [-(-n // size) if size else 1 for n in sizes]

    assert pieces(1_000_000) == [32]
    assert pieces(900_000, 100_000) == [29, 4]
    assert pieces(10, 1000) == [1, 1]
    assert pieces(10_000_000, 1000) == [1, 1]  # whose tensors keep the device busy as they are


DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"))]


@pytest.mark.parametrize("device", DEVICES)
def test_parameters_in_pieces_are_what_they_are_as_a_whole(device, monkeypatch):
    """Also those that are laid out channels last, or with gaps."""
    if device == "cpu":  # where they are whole by themselves
        monkeypatch.setattr(fused_adam, "_piece_size", lambda parameters: 7)

    def parameters():
        generator = torch.Generator().manual_seed(0)
        made = [torch.randn(shape, generator=generator) for shape in ((40, 50), (3,), (8, 4, 3, 3))]
        made[2] = made[2].to(memory_format=torch.channels_last)
        made.append(torch.randn(6, 9, generator=generator)[:, :5])
        return [parameter.to(device).requires_grad_() for parameter in made]

    def give(own, step):
        generator = torch.Generator().manual_seed(step)
        for parameter in own:
            gradient = torch.randn(parameter.shape, generator=generator).to(device)
            parameter.grad = torch.empty_like(parameter, requires_grad=False).copy_(gradient)

    cut, whole = ((own, Adam(own, lr=0.1, fused=True)) for own in (parameters(), parameters()))
    for own, optimizer in (cut, whole):
        give(own, 0)
        optimizer.step()
    kernel = torch._fused_adam_
    monkeypatch.setattr(torch, "_fused_adam_", lambda *args, **named: (given.extend(args[0]), kernel(*args, **named)))
    given: list[torch.Tensor] = []
    step = fused_adam.fused_adam_step(cut[1])
    assert step is not None
    for number in range(1, STEPS):
        give(cut[0], number)
        give(whole[0], number)
        given.clear()
        step()
        assert len(given) > len(cut[0])
        assert all(piece.grad_fn is None for piece in given)  # no history
        whole[1].step()
    for own, expected in zip(cut[0], whole[0], strict=True):
        torch.testing.assert_close(own, expected, **ROUNDING)
        assert own.stride() == expected.stride()
