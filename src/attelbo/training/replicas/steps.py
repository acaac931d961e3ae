"""The optimizer steps of N replicas, taken together.

As :class:`~attelbo.training.engine.Step` and :class:`~attelbo.training.engine.Position` do it for one run, in the same
order: seed, schedules, minibatch, losses, gradients, optimizer. Seeds, schedules, minibatches and optimizers are each
replica's own; losses and gradients are computed for all at once.

Shapes: N replicas, S minibatches in a block, T terms, B rows.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from attelbo.data.batch import Batch
from attelbo.errors import ConfigError
from attelbo.models.base import Terms
from attelbo.training.engine import Position, Step, add_terms, buffers_kept, weighted
from attelbo.training.optimization import DirectOptimization, Optimization, joint_adam_step
from attelbo.training.replicas.functions import NotStackableError, Streams
from attelbo.training.replicas.stack import ModelStack

_TOLERANCE, _TOLERANCE_16_BIT = 1e-4, 1e-2
"""Relative, between a stacked loss and the model's own: rounding alone. Other noise changes the loss by more."""

_OTHER_KERNELS = (nn.modules.conv._ConvNd, nn.RNNBase, nn.EmbeddingBag)
"""Layers that, stacked, take slower kernels on a CPU: a convolution becomes one in groups."""

_FEWEST_ON_CPU, _LARGEST_ON_CPU = 4, 5_000_000
"""From so many replicas on, and up to so many products of a parameter with a row in a step, stacking pays on a CPU. As
measured: benchmarks/NOTES.md, "Replicas"."""


def stacking_pays(model: nn.Module, n: int, rows: Tensor) -> bool:
    """Whether N of these models, each on a minibatch of as many rows, are faster stacked than one after the other.

    On an accelerator, where the launching of operations is the limit: always. On a CPU small networks without
    convolutions are, for the same reason; larger ones lose more to its caches than they gain.
    """
    if rows.device.type != "cpu":
        return True
    small = len(rows) * sum(parameter.numel() for parameter in model.parameters()) <= _LARGEST_ON_CPU
    return n >= _FEWEST_ON_CPU and small and not any(isinstance(module, _OTHER_KERNELS) for module in model.modules())


class StackedSteps:
    """Takes the steps of N replicas that stand at blocks with minibatches of equal sizes.

    Args:
        steps: of each replica.
        positions: of each replica.

    Raises:
        NotStackableError: the models cannot be stacked.
    """

    def __init__(self, steps: Sequence[Step], positions: Sequence[Position]) -> None:
        self.steps = list(steps)
        self.positions = list(positions)
        self.stack = ModelStack([position.model for position in positions])
        self.streams = Streams(len(steps), next(positions[0].model.parameters()).device)
        self._joint: list[Callable[[], None] | None] = []
        self._unchecked = {place for place, _ in enumerate(steps[0].turns)}

    def run(self, blocks: Sequence[Sequence[Tensor]], first_steps: Sequence[int]) -> list[Tensor]:
        """Take one optimizer step of each replica for each of its minibatches; the terms of each, N of (S, T).

        Raises:
            NotStackableError: a model computes something that cannot be stacked; no step was taken.
            ConfigError: the stacked losses are not those of the models.
        """
        for step in self.steps:
            step.begin_block()
        turns = [[step.turns[place][1] for step in self.steps] for place, _ in enumerate(self.steps[0].turns)]
        self._joint = [_joint_step(optimizations) for optimizations in turns]
        values: list[Tensor] = []
        for offset, rows in enumerate(zip(*blocks, strict=True)):
            try:
                values.append(self._take(rows, [first + offset for first in first_steps]))
            except NotStackableError as reason:
                if offset == 0:
                    raise
                raise ConfigError(
                    f"trainer.stack: {reason}; trainer.stack=false trains one after the other"
                ) from reason
        for step in self.steps:
            step.end_block(len(values))
        return [own.contiguous() for own in torch.stack(values).unbind(-1)]

    def _take(self, rows: Sequence[Tensor], numbers: Sequence[int]) -> Tensor:
        """One step of each replica, number ``numbers[i]``, on its rows (B,); the terms, (T, N)."""
        batches, shares = self._batches(rows, numbers)
        values: Terms = {}
        for place, (player, _) in enumerate(self.steps[0].turns):
            for part, share in zip(batches, shares, strict=True):
                terms = self._losses(place, part)
                self.stack.backward(place, weighted(terms["loss"], share))
                add_terms(values, terms, share, player.prefix)
            self.stack.hand_out_gradients(place)
            self._optimize(place)
        for step in self.steps:
            step.terms = tuple(values)
        return torch.stack(list(values.values()))

    def _optimize(self, place: int) -> None:
        """The optimizer step of each replica's player."""
        joint = self._joint[place]
        if joint is None:
            for step in self.steps:
                step.turns[place][1].step()
        else:
            joint()

    def _batches(self, rows: Sequence[Tensor], numbers: Sequence[int]) -> tuple[list[list[Batch]], list[float]]:
        """For each part of a minibatch the batches of all replicas, and its share of the rows; streams begin here."""
        of_replicas: list[list[Batch]] = []
        shares: list[float] = []
        for replica, (step, position) in enumerate(zip(self.steps, self.positions, strict=True)):
            position.move_to(numbers[replica], rows[replica].device)
            batches, shares = step.parts(rows[replica])
            of_replicas.append(batches)
            self.streams.keep(replica)
        return [list(part) for part in zip(*of_replicas, strict=True)], shares

    def _losses(self, place: int, batches: Sequence[Batch]) -> Terms:
        if place not in self._unchecked:
            return self.stack.losses(place, batches, self.streams)
        expected = self._own_losses(place, batches)
        terms = self.stack.losses(place, batches, self.streams)
        self._check(terms, expected)
        self._unchecked.discard(place)
        return terms

    def _own_losses(self, place: int, batches: Sequence[Batch]) -> list[Terms]:
        """What each model computes by itself, with the same noise; it leaves no trace."""
        streams = self.streams.copy()
        expected: list[Terms] = []
        for replica, model in enumerate(position.model for position in self.positions):
            with buffers_kept(model), streams.of(replica):
                terms = model.players()[place].losses(batches[replica])
            expected.append({name: value.detach() for name, value in terms.items()})
        return expected

    @staticmethod
    def _check(terms: Terms, expected: Sequence[Terms]) -> None:
        rounded = torch.is_autocast_enabled(terms["loss"].device.type) or terms["loss"].dtype.itemsize < 4
        tolerance = _TOLERANCE_16_BIT if rounded else _TOLERANCE
        for replica, own in enumerate(expected):
            for name, value in own.items():
                stacked = terms[name][replica].detach()
                if not torch.allclose(stacked, value, rtol=tolerance, atol=tolerance, equal_nan=True):
                    raise ConfigError(
                        f"trainer.stack: the stacked model gives replica {replica} the {name} {float(stacked):.6g}, by "
                        f"itself it has {float(value):.6g}: it does what cannot be stacked; trainer.stack=false trains "
                        "one after the other"
                    )


def _joint_step(optimizations: Sequence[Optimization]) -> Callable[[], None] | None:
    """The steps of all in few kernels; None where each must step by itself."""
    direct = [optimization for optimization in optimizations if isinstance(optimization, DirectOptimization)]
    if len(direct) < len(optimizations):
        return None
    joint = joint_adam_step([optimization.optimizer for optimization in direct])
    if joint is None:
        return None

    def step() -> None:
        for optimization in direct:
            optimization.clip()
        joint()
        for optimization in direct:
            optimization.clear()

    return step
