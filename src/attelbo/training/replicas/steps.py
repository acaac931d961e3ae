"""The optimizer steps of N replicas, taken together.

As :class:`~attelbo.training.engine.Step` and :class:`~attelbo.training.engine.Position` do it for one run, in the same
order: seed, schedules, minibatch, losses, gradients, optimizer. Seeds, schedules, minibatches and optimizers are each
replica's own; losses and gradients are computed for all at once. An engine repeats the stacked step as it would that of
one run: launched by the host, or as a CUDA graph.

Shapes: N replicas, S minibatches in a block, T terms, B rows.
"""

from collections.abc import Callable, Hashable, Sequence

import torch
from torch import Tensor, nn

from attelbo.data.batch import Batch
from attelbo.errors import ConfigError
from attelbo.models import Model
from attelbo.models.base import Terms
from attelbo.training.engine import EngineMaker, Position, Share, Step, add_terms, buffers_kept, weighted
from attelbo.training.fused_adam import joint_adam_step, rates_agree
from attelbo.training.optimization import DirectOptimization
from attelbo.training.replicas.adam import StackedAdam, can_be_stacked
from attelbo.training.replicas.functions import NotStackableError, Streams, streams_of
from attelbo.training.replicas.stack import ModelStack

_TOLERANCE, _TOLERANCE_16_BIT = 1e-4, 1e-2
"""Relative, between a stacked loss and the model's own: rounding alone. Other noise changes the loss by more."""

_OTHER_KERNELS = (nn.modules.conv._ConvNd, nn.RNNBase, nn.EmbeddingBag)
"""Layers that, stacked, take slower kernels on a CPU: a convolution becomes one in groups."""

_FEWEST_ON_CPU, _LARGEST_ON_CPU = 4, 5_000_000
"""On a CPU stacking pays from this many replicas on, and up to this many parameters times rows in a step; measured in
benchmarks/NOTES.md, "Replicas"."""


def stacking_pays(model: nn.Module, n: int, rows: Tensor) -> bool:
    """Whether N of these models, each on a minibatch of as many rows, are faster stacked than one after the other.

    On an accelerator always: one small network leaves most of it idle (benchmarks/NOTES.md, "On a GPU"). On a CPU small
    networks without convolutions are, since launching is the limit; larger ones lose more to its caches than they gain.
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
        make_engine: makes what repeats the stacked step.

    Raises:
        NotStackableError: the models cannot be stacked, or the shapes of their minibatches differ.
    """

    def __init__(self, steps: Sequence[Step], positions: Sequence[Position], make_engine: EngineMaker) -> None:
        self.steps = list(steps)
        if any(step.data.crops(positions[0].model.device) for step in steps):
            raise NotStackableError("data: the minibatches of each replica are cropped to their own longest rows")
        self.stack = ModelStack([step.model for step in steps])
        streams = streams_of(len(steps), next(steps[0].model.parameters()).device)
        self._position = _StackedPosition(positions, streams)
        self._step = _StackedStep(self.steps, self.stack, streams)
        self._engine = make_engine(self._step, self._position)

    def run(self, blocks: Sequence[Sequence[Tensor]], first_steps: Sequence[int]) -> list[Tensor]:
        """Take one optimizer step of each replica for each of its minibatches; the terms of each, N of (S, T).

        Raises:
            NotStackableError: a model computes something that cannot be stacked; no step was taken.
            ConfigError: the stacked losses are not those of the models.
        """
        self._position.first_steps = first_steps
        self._step.in_step = len(set(first_steps)) == 1
        values = self._engine.run([torch.stack(rows) for rows in zip(*blocks, strict=True)], 0)  # (S, T, N)
        return [own.contiguous() for own in values.unbind(-1)]


class _StackedPosition:
    """The positions of N replicas, each of which begins its block at a step of its own; and their noise."""

    def __init__(self, positions: Sequence[Position], streams: Streams) -> None:
        self.positions = positions
        self.streams = streams
        self.first_steps: Sequence[int] = [0] * len(positions)

    def move_to(self, step: int, device: torch.device) -> None:
        for replica, (position, first) in enumerate(zip(self.positions, self.first_steps, strict=True)):
            position.move_to(first + step, device)
            self.streams.keep(replica)


class _StackedStep:
    """One optimizer step of each of N replicas, on rows (N, B); terms are (N,)."""

    def __init__(self, steps: Sequence[Step], stack: ModelStack, streams: Streams) -> None:
        self.steps = steps
        self.stack = stack
        self.streams = streams
        self.generators = streams.generators
        self.in_step = False
        """Whether the replicas have taken equally many steps, as Adam counts them."""
        self._adams: dict[int, StackedAdam] = {}
        self._joint: list[Callable[[], None] | None] | None = None
        # Replicas share one device, where torch does every optimization alone.
        self._direct = list(zip(*(step.direct for step in steps), strict=True))  # of each place, those of all replicas
        self._optimizers = [[optimization.optimizer for optimization in of_place] for of_place in self._direct]
        self._unchecked = {place for place, _ in enumerate(steps[0].turns)}
        self._taken = 0

    @property
    def terms(self) -> tuple[str, ...]:
        return self.steps[0].terms

    @property
    def direct(self) -> list[DirectOptimization]:
        return [each for step in self.steps for each in step.direct]

    @property
    def variant(self) -> Hashable:
        return self.in_step, *map(rates_agree, self._optimizers)

    def begin_block(self) -> None:
        self._taken = 0
        for step in self.steps:
            step.begin_block()
        self._joint = None

    def prepare(self) -> None:
        self._joint_steps()

    def _joint_steps(self) -> list[Callable[[], None] | None]:
        """Of each place, made at the first step of a block that needs them."""
        if self._joint is None:
            self._joint = [self._joint_step(place) for place, _ in enumerate(self.steps[0].turns)]
        return self._joint

    def end_block(self, steps: int) -> None:
        for step in self.steps:
            step.end_block(steps)

    def __call__(self, rows: Tensor) -> list[Tensor]:
        try:
            values = self._take(rows)
        except NotStackableError as reason:
            if not self._taken:
                raise
            raise ConfigError(f"trainer.stack: {reason}; trainer.stack=false trains one after the other") from reason
        self._taken += 1
        return values

    def trial(self, rows: Tensor) -> Tensor:
        losses: list[Tensor] = []
        for replica, step in enumerate(self.steps):
            with self.streams.of(replica):
                losses.append(step.trial(rows[replica]))
        return torch.stack(losses)

    def _take(self, rows: Tensor) -> list[Tensor]:
        batches, shares = self._batches(rows)
        values: Terms = {}
        for place, (player, _) in enumerate(self.steps[0].turns):
            for part, share in zip(batches, shares, strict=True):
                terms = self._losses(place, part)
                self.stack.backward(place, weighted(terms["loss"], share))
                add_terms(values, terms, share, player.prefix)
            self._optimize(place)
        for step in self.steps:
            step.terms = tuple(values)
        return list(values.values())

    def _optimize(self, place: int) -> None:
        """The optimizer step of each replica's player."""
        joint = self._joint_steps()[place]
        if joint is None:
            self.stack.hand_out_gradients(place)
            self.stack.clear_gradients(place)
            for optimization in self._direct[place]:
                optimization.step()
        else:
            joint()

    def _joint_step(self, place: int) -> Callable[[], None] | None:
        """The steps of all in few kernels; None where each must step by itself."""
        direct, optimizers = self._direct[place], self._optimizers[place]
        if self.in_step and can_be_stacked(optimizers):
            if place not in self._adams or not self._adams[place].is_whole():
                self._adams[place] = StackedAdam(optimizers, *self.stack.parameters(place))
            together = self._adams[place].step(direct[0].rates)
        else:
            together = None
        rates = [optimization.rates for optimization in direct if optimization.rates is not None]
        apart = joint_adam_step(optimizers, rates or None)
        if apart is None:
            return None
        clips = any(optimization.clip_norm is not None for optimization in direct)

        def step() -> None:
            stacked = together is not None and all(rates_agree(optimizers))
            if clips or not stacked:
                self.stack.hand_out_gradients(place)
            for optimization in direct:
                optimization.clip()
            if together is not None and stacked:
                together()
            else:
                apart()
            self.stack.clear_gradients(place)
            for optimization in direct:
                optimization.clear()

        return step

    def _batches(self, rows: Tensor) -> tuple[list[list[Batch]], list[Share]]:
        """For each part of a minibatch the batches of all replicas, and its share: a number if it is the same for all,
        else that of each replica, (N,)."""
        of_replicas: list[tuple[list[Batch], list[Share]]] = []
        for replica, step in enumerate(self.steps):
            with self.streams.of(replica):
                of_replicas.append(step.parts(rows[replica]))
        batches = [list(part) for part in zip(*(batches for batches, _ in of_replicas), strict=True)]
        return batches, [_joint(share) for share in zip(*(shares for _, shares in of_replicas), strict=True)]

    def _losses(self, place: int, batches: Sequence[Batch]) -> Terms:
        if place not in self._unchecked:
            return self.stack.losses(place, batches, self.streams)
        terms = _compared_losses(self.stack, [step.model for step in self.steps], place, batches, self.streams)
        self._unchecked.discard(place)
        return terms


def check_stackable(models: Sequence[Model], batch: Batch) -> None:
    """Check on a batch that the losses of these models can be computed as one.

    Raises:
        NotStackableError: the models cannot be stacked, or compute something that cannot be.
        ConfigError: the stacked losses are not those of the models.
    """
    stack, streams = ModelStack(models), streams_of(len(models), batch.x.device)
    for place, _ in enumerate(models[0].players()):
        _compared_losses(stack, models, place, [batch] * len(models), streams)


def _compared_losses(
    stack: ModelStack, models: Sequence[Model], place: int, batches: Sequence[Batch], streams: Streams
) -> Terms:
    """The terms of the stacked models, after a check that each model by itself has the same with the same noise."""
    alone, expected = streams.copy(), []
    for replica, model in enumerate(models):
        with buffers_kept(model), alone.of(replica):
            terms = model.players()[place].losses(batches[replica])
        expected.append({name: value.detach() for name, value in terms.items()})
    terms = stack.losses(place, batches, streams)
    _compare(terms, expected)
    return terms


def _compare(terms: Terms, expected: Sequence[Terms]) -> None:
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


def _joint(shares: Sequence[Share]) -> Share:
    return torch.stack([torch.as_tensor(share) for share in shares]) if isinstance(shares[0], Tensor) else shares[0]
