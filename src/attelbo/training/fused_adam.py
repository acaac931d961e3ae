"""The kernel of torch's fused Adam and AdamW, called directly on the optimizer's state: same numbers, less overhead.

Kingma & Ba 2015, "Adam: a method for stochastic optimization", arXiv:1412.6980; Loshchilov & Hutter 2019, "Decoupled
weight decay regularization", arXiv:1711.05101.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import Adam, AdamW, Optimizer


class DeviceRates:
    """Learning rates as tensors on the device: a recorded step would keep using the numbers it was recorded with."""

    def __init__(self, optimizers: Sequence[Optimizer]) -> None:
        self._groups = [group for optimizer in optimizers for group in optimizer.param_groups]
        self._values = torch.zeros(len(self._groups), device=self._groups[0]["params"][0].device)
        self._written: list[float] = []
        places = iter(self._values.unbind())
        self.of: list[list[Tensor]] = [[next(places) for _ in optimizer.param_groups] for optimizer in optimizers]
        """A scalar for each group of each optimizer."""

    def write(self) -> None:
        """Copy the groups' present learning rates to the device."""
        rates = [group["lr"] for group in self._groups]
        if rates == self._written:
            return
        if len(set(rates)) == 1:
            self._values.fill_(rates[0])  # no copy from the host
        else:
            self._values.copy_(torch.tensor(rates), non_blocking=True)
        self._written = rates


def parameters_of(optimizer: Optimizer) -> list[Tensor]:
    """All parameters of all groups."""
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def fused_adam_step(optimizer: Optimizer, rates: Sequence[Tensor] | None = None) -> Callable[[], None] | None:
    """A step of a fused Adam or AdamW that calls torch's kernel on the optimizer's own state.

    None where the kernel is not all of the step: another optimizer, a flag that is not covered here, hooks, a parameter
    without state, because it took no part in the loss or because no step was taken yet. Valid until the state is
    replaced.

    Args:
        optimizer: the optimizer.
        rates: the learning rate of each group, on the device; None: the group's own at each step.
    """
    if not is_all_kernel(optimizer):
        return None
    each = zip(optimizer.param_groups, rates or [None] * len(optimizer.param_groups), strict=True)
    return in_turn([_group_step(optimizer, group, rate) for group, rate in each])


def joint_adam_step(
    optimizers: Sequence[Optimizer], rates: Sequence[Sequence[Tensor]] | None = None
) -> Callable[[], None] | None:
    """A step of several fused Adams, those of replicas: one kernel for all if they have the same learning rate now.

    None where they differ in anything but parameters and learning rate, or where ``fused_adam_step`` is None.

    Args:
        optimizers: those of the replicas.
        rates: the learning rate of each group of each, on the device; None: the groups' own at each step.
    """
    if not all(is_all_kernel(optimizer) for optimizer in optimizers):
        return None
    steps: list[Callable[[], None]] = []
    for place, groups in enumerate(zip(*(optimizer.param_groups for optimizer in optimizers), strict=True)):
        if any(settings_of(group) != settings_of(groups[0]) for group in groups):
            return None
        own_rates = [own[place] for own in rates] if rates is not None else [None] * len(groups)
        parameters = [parameter for group in groups for parameter in group["params"]]
        states = [own.state[p] for own, group in zip(optimizers, groups, strict=True) for p in group["params"]]
        together = fused_group_step(parameters, states, groups[0], own_rates[0])
        alone = list(map(_group_step, optimizers, groups, own_rates))
        steps.append(_by_rates(groups, together, in_turn(alone)))
    return in_turn(steps)


def rates_agree(optimizers: Sequence[Optimizer]) -> tuple[bool, ...]:
    """For each group, whether its learning rate is now the same in all optimizers."""
    return tuple(map(_agree, zip(*(optimizer.param_groups for optimizer in optimizers), strict=True)))


def _agree(groups: Sequence[dict[str, Any]]) -> bool:
    return all(group["lr"] == groups[0]["lr"] for group in groups)


def _group_step(optimizer: Optimizer, group: dict[str, Any], rate: Tensor | None) -> Callable[[], None]:
    return fused_group_step(group["params"], [optimizer.state[p] for p in group["params"]], group, rate)


def is_all_kernel(optimizer: Optimizer) -> bool:
    """Whether torch's kernel, called on the optimizer's state, is all of its step."""
    return (
        type(optimizer) in (Adam, AdamW)
        and all(_plain(group) for group in optimizer.param_groups)
        and not (optimizer._optimizer_step_pre_hooks or optimizer._optimizer_step_post_hooks)
        and all(optimizer.state.get(parameter) for parameter in parameters_of(optimizer))
    )


def settings_of(group: dict[str, Any]) -> dict[str, Any]:
    """All of a group but its parameters and its learning rate."""
    return {key: value for key, value in group.items() if key not in ("params", "lr", "initial_lr")}


def _by_rates(
    groups: Sequence[dict[str, Any]], equal: Callable[[], None], different: Callable[[], None]
) -> Callable[[], None]:
    def step() -> None:
        if _agree(groups):
            equal()
        else:
            different()

    return step


def in_turn(steps: Sequence[Callable[[], None]]) -> Callable[[], None]:
    """All of these steps, one after the other, as one."""

    def step() -> None:
        for each in steps:
            each()

    return step


def _plain(group: dict[str, Any]) -> bool:
    unusual = group["amsgrad"] or group["capturable"] or group["differentiable"] or isinstance(group["lr"], Tensor)
    one_kind = len({(parameter.device, parameter.dtype) for parameter in group["params"]}) == 1
    return bool(group["fused"]) and not unusual and one_kind


def fused_group_step(
    parameters: Sequence[Tensor], states: Sequence[dict[str, Tensor]], group: dict[str, Any], rate: Tensor | None
) -> Callable[[], None]:
    """A step of torch's kernel on parameters, with the states and the settings of an Adam.

    Args:
        parameters: of one device and type; their gradients are read when the step is taken.
        states: the optimizer's state of each.
        group: settings; the learning rate is read at every step, since schedules change it.
        rate: the learning rate on the device, in place of the group's.
    """
    size = _piece_size(parameters)
    sizes = [size if _is_dense(parameter) else 0 for parameter in parameters]
    counts = [state["step"] for state in states]
    averages, averages_of_squares = ([state[key] for state in states] for key in ("exp_avg", "exp_avg_sq"))
    # A count that is one for each of several replicas has equal values.
    count_of = [count.view(-1)[0] for count, p, n in zip(counts, parameters, sizes, strict=True) for _ in _pieces(p, n)]
    # The kernels that torch.optim.Adam itself calls; torch has no public name for them.
    private: Any = torch
    kernel = private._fused_adamw_ if group["decoupled_weight_decay"] else private._fused_adam_
    beta1, beta2 = group["betas"]

    def cut(tensors: Sequence[Any]) -> list[Any]:
        if not size:
            return list(tensors)
        return [piece for tensor, n in zip(tensors, sizes, strict=True) for piece in _pieces(tensor, n)]

    fixed = cut(parameters), cut(averages), cut(averages_of_squares)

    def step() -> None:
        with torch.no_grad():
            private._foreach_add_(counts, 1)
            kernel(
                fixed[0],
                cut([parameter.grad for parameter in parameters]),  # laid out as the parameters are
                fixed[1],
                fixed[2],
                [],
                count_of,
                lr=group["lr"] if rate is None else rate,
                beta1=beta1,
                beta2=beta2,
                weight_decay=group["weight_decay"],
                eps=group["eps"],
                amsgrad=False,
                maximize=group["maximize"],
                grad_scale=None,
                found_inf=None,
            )

    return step


# One block of the GPU takes up to 65,536 numbers of one tensor, so a small network keeps a few of its 132
# multiprocessors busy and the others wait. In pieces, of which a launch takes 36, the step takes a fifth of the time.
_LARGEST_PIECE, _PIECES = 65_536, 32


def _piece_size(parameters: Sequence[Tensor]) -> int:
    """The numbers in a piece; 0: the tensors are better left whole."""
    if parameters[0].device.type != "cuda":
        return 0
    size = -(-sum(parameter.numel() for parameter in parameters) // _PIECES // 1024) * 1024
    return size if 0 < size < _LARGEST_PIECE else 0


def _is_dense(tensor: Tensor) -> bool:
    return tensor.is_contiguous() or (tensor.dim() == 4 and tensor.is_contiguous(memory_format=torch.channels_last))


def _pieces(tensor: Tensor, size: int) -> Sequence[Tensor]:
    """A dense tensor's numbers in the order in which they lie, cut; whole if the size is 0."""
    # Detached: pieces with a history would keep the parameters' nodes of the backward pass alive, on the stream of this
    # moment; a step that is recorded on another stream would wait for it, and fail.
    return tensor.detach().as_strided((tensor.numel(),), (1,)).split(size) if size else (tensor,)
