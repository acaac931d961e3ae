"""The Adams of N replicas as one, on the common tensors of their stacked models.

The kernel takes a list of tensors and a fixed number of them per launch: the N times P parameters of N replicas are
many launches with little work each, the P common tensors one or two with much. So the averages and counts of the
replicas, too, become slices of common tensors, which the optimizers keep as their state.

Shapes: N replicas, P parameters.
"""

from collections.abc import Callable, Sequence

from torch import Tensor
from torch.optim import Optimizer

from attelbo.training.fused_adam import fused_group_step, in_turn, is_all_kernel, rates_agree, settings_of
from attelbo.training.replicas.stack import stack_tensors


class StackedAdam:
    """The fused Adams of one player of N replicas, when each has taken a step.

    Args:
        optimizers: N with equal settings.
        parameters: P common tensors (N, ...).
        own: for each optimizer, the P parameters that are slices of them.
    """

    def __init__(
        self, optimizers: Sequence[Optimizer], parameters: Sequence[Tensor], own: Sequence[Sequence[Tensor]]
    ) -> None:
        place = {parameter: index for index, parameter in enumerate(own[0])}
        self._own = list(zip(optimizers, own, strict=True))
        self._seen = [optimizer.state[parameter] for optimizer, each in self._own for parameter in each]
        states: list[dict[str, Tensor]] = []
        for of_one in zip(*own, strict=True):
            each = [optimizer.state[parameter] for optimizer, parameter in zip(optimizers, of_one, strict=True)]
            columns = {key: [state[key] for state in each] for key in ("step", "exp_avg", "exp_avg_sq")}
            states.append({key: stack_tensors(tensors) for key, tensors in columns.items()})
        self._groups = [
            ([parameters[place[p]] for p in group["params"]], [states[place[p]] for p in group["params"]], group)
            for group in optimizers[0].param_groups
        ]

    def is_whole(self) -> bool:
        """Whether the optimizers' states still are slices of the common ones: loading others ends it."""
        now = (optimizer.state[parameter] for optimizer, each in self._own for parameter in each)
        return all(state is seen for state, seen in zip(now, self._seen, strict=True))

    def step(self, rates: Sequence[Tensor] | None) -> Callable[[], None]:
        """A step of all with the learning rates of the first: its own, or those on the device."""
        each = rates or [None] * len(self._groups)
        return in_turn([fused_group_step(*group, rate) for group, rate in zip(self._groups, each, strict=True)])


def can_be_stacked(optimizers: Sequence[Optimizer]) -> bool:
    """Whether they are fused Adams, or AdamWs, that have taken a step and have the same settings now."""
    groups = list(zip(*(optimizer.param_groups for optimizer in optimizers), strict=True))
    return (
        all(map(is_all_kernel, optimizers))
        and all(settings_of(group) == settings_of(same[0]) for same in groups for group in same)
        and all(rates_agree(optimizers))
    )
