"""CUDA graphs: a whole optimizer step is recorded once and replayed for every minibatch.

A small VAE takes some fifty kernels a step, each shorter than its launch, and the GPU waits for the host. One
replay launches all of them: gather, binarization, forward, backward, fused Adam ("whole-network capture" in the
documentation of ``torch.cuda.graph``).

What changes from step to step lives at fixed addresses. The rows of a block are written there before its first step,
and a recorded step counts its place in the block itself. Learning rates and the weights of the objective are written
when they change. The noise follows the seeds of the generators that the step draws from, which a replay reads anew, so
a replayed step draws what the same step would draw without a graph.

Shapes: B rows of a minibatch, S minibatches in a block, T terms of the loss; (N, ...) for the steps of N replicas.
"""

import math
import sys
import threading
from collections.abc import Callable, Hashable, Sequence
from contextlib import AbstractContextManager, contextmanager
from itertools import groupby
from typing import Protocol

import torch
from torch import Tensor

from attelbo.errors import ConfigError, first_line
from attelbo.training.engine import AnyPosition, AnyStep
from attelbo.training.fused_adam import DeviceRates

_WARM_UP = 3
"""Ordinary steps of the training before the first recording, in which libraries and optimizer set themselves up."""

_TOLERANCE = 1e-3
"""Relative, between the loss of a replay and that of the same step without a graph: the kernels are the same, but
libraries may choose another algorithm while a graph is recorded."""


class Recorder(Protocol):
    """Records what a function does on the device."""

    def aside(self) -> AbstractContextManager[None]:
        """The context, such as a stream, for steps that are not recorded."""
        ...

    def record(self, function: Callable[[], None], generators: Sequence[torch.Generator]) -> Callable[[], None]:
        """A function that repeats it.

        Args:
            function: what is recorded.
            generators: those that it draws from, beside the device's default one.

        Raises:
            RuntimeError: it cannot be recorded: it waits for the device, or a shape depends on a value.
        """
        ...


class CudaRecorder:
    """CUDA graphs that share one pool of memory: they never run at the same time."""

    def __init__(self) -> None:
        self._pool = torch.cuda.graph_pool_handle()
        self._stream = torch.cuda.Stream()

    @contextmanager
    def aside(self):
        current = torch.cuda.current_stream()
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            yield
        current.wait_stream(self._stream)

    def record(self, function: Callable[[], None], generators: Sequence[torch.Generator]) -> Callable[[], None]:
        graph, current = torch.cuda.CUDAGraph(), torch.cuda.current_stream()
        for generator in generators:
            graph.register_generator_state(generator)
        try:
            with torch.cuda.graph(graph, pool=self._pool, stream=self._stream):
                function()
        except BaseException:
            # torch leaves its own stream current, and generators in the state of being recorded.
            torch.cuda.set_stream(current)
            for generator in (torch.cuda.default_generators[current.device_index], *generators):
                generator.graphsafe_set_state(torch.Generator(generator.device))
            raise
        return graph.replay


class _Places:
    """Where the steps of a block find their rows and leave their terms.

    Args:
        capacity: the most steps in a block.
        values: the terms of a step, (T,), on the device.
    """

    def __init__(self, capacity: int, values: Tensor) -> None:
        self.capacity = capacity
        self.values = values.new_zeros(capacity, *values.shape)
        """Of each step of the block, (S, T)."""
        self._place = torch.zeros(1, dtype=torch.int64, device=values.device)
        self._rows: dict[torch.Size, Tensor] = {}  # shape of a minibatch -> (S, B)

    def begin(self, minibatches: Sequence[Tensor], place: int) -> None:
        """Write the rows of a block, of which the step at ``place`` comes next."""
        first = 0
        for shape, alike in groupby(minibatches, key=lambda rows: rows.shape):
            rows = list(alike)
            torch.stack(rows, out=self.rows_of(shape)[first : first + len(rows)])
            first += len(rows)
        self._place.fill_(place)

    def rows_of(self, shape: torch.Size) -> Tensor:
        """Where minibatches of this shape are written."""
        if shape not in self._rows:
            self._rows[shape] = self._place.new_zeros(self.capacity, *shape)
        return self._rows[shape]

    def take(self, step: AnyStep, shape: torch.Size) -> None:
        """Take the step that comes next, of which the host decides nothing."""
        rows = self._rows[shape].index_select(0, self._place)[0]
        self.values.index_copy_(0, self._place, torch.stack(step(rows)).unsqueeze(0))
        self._place += 1


class GraphEngine:
    """Replays the recorded step; for a new size of minibatch, such as that of an epoch's last, it is recorded first.

    Args:
        step: what is recorded.
        position: moves the noise and the schedules.
        required: whether a step that cannot be recorded is an error; else a note says so and training goes on without.
        recorder: of CUDA graphs, unless a test says otherwise.
    """

    def __init__(
        self,
        step: AnyStep,
        position: AnyPosition,
        required: bool,
        recorder: Recorder | None = None,
    ) -> None:
        self.step = step
        self.position = position
        self.optimizations = step.direct
        self.required = required
        self._recorder = recorder or CudaRecorder()
        # In steps without a graph too: a resumed run begins with some where an uninterrupted one replays.
        self._rates = DeviceRates([optimization.optimizer for optimization in self.optimizations])
        self._recorded: dict[Hashable, Callable[[], None]] = {}
        self._places: _Places | None = None
        self._like = torch.empty(0)
        """The terms of a step, (T,)."""
        self._checked: set[Hashable] = set()
        self._addresses: list[int] = []
        self._unrecorded: float = _WARM_UP
        """Steps that are still to be taken without a graph."""
        self._warm: set[int] = set()
        """Threads that have taken one: libraries set themselves up in each thread, which fails while recording."""

    @property
    def terms(self) -> tuple[str, ...]:
        return self.step.terms

    def run(self, minibatches: Sequence[Tensor], first_step: int) -> Tensor:
        """Take the steps of a block.

        Raises:
            ConfigError: the step cannot be recorded and must be, or a replay computes something else.
        """
        values: list[Tensor] = []
        self._begin_block()
        places: _Places | None = None
        for place, rows in enumerate(minibatches):
            self._move_to(first_step + place, rows.device)
            replay = self._recorded_for(first_step + place, rows, len(minibatches)) if self._unrecorded <= 0 else None
            if replay is None:
                values.append(self._take(rows))
                places = None
            else:
                if places is None:
                    places = self._places_for(len(minibatches))
                    places.begin(minibatches, place)
                self._replay(first_step + place, rows, replay, places.values[place])
                values.append(places.values[place])
        self.step.end_block(len(minibatches))
        return torch.stack(values)

    def _begin_block(self) -> None:
        addresses = [parameter.data_ptr() for each in self.optimizations for parameter in each.parameters]
        if addresses != self._addresses:  # stacking the models of replicas, for one, moves them
            self._recorded.clear()
            self._addresses = addresses
        # Another engine, of this run alone or of several together, may have taken steps in the meantime.
        for optimization, rates in zip(self.optimizations, self._rates.of, strict=True):
            optimization.rates = rates
        self.step.begin_block()

    def _take(self, rows: Tensor) -> Tensor:
        """A step without a graph."""
        self._unrecorded -= 1
        self._warm.add(threading.get_ident())
        with self._recorder.aside():
            self._like = torch.stack(self.step(rows))
            return self._like

    def _replay(self, step: int, rows: Tensor, replay: Callable[[], None], values: Tensor) -> None:
        """Replay the step, whose terms are then found in ``values`` (T,)."""
        key = self._key(rows)
        expected = self.step.trial(rows) if key not in self._checked else None
        if expected is not None:
            self._move_to(step, rows.device)
        replay()
        if expected is not None:
            self._check(values[0], expected)
            self._checked.add(key)

    def _move_to(self, step: int, device: torch.device) -> None:
        self.position.move_to(step, device)
        self._rates.write()

    def _key(self, rows: Tensor) -> Hashable:
        return rows.shape, self.step.variant

    def _places_for(self, steps: int) -> _Places:
        """Places for a block of so many steps; where there are too few, other ones, and nothing that was recorded."""
        if self._places is None or self._places.capacity < steps:
            self._recorded.clear()
            self._places = _Places(steps, self._like)
        return self._places

    def _recorded_for(self, step: int, rows: Tensor, steps: int) -> Callable[[], None] | None:
        """The recorded step for as many rows, in a block of so many steps, recorded now if need be; None if it cannot
        be."""
        places, key = self._places_for(steps), self._key(rows)
        recorded = self._recorded.get(key)
        if recorded is None and threading.get_ident() in self._warm:
            try:
                recorded = self._recorded[key] = self._record(rows.shape, places)
            except RuntimeError as error:
                reason = first_line(_first_cause(error))
                if self.required:
                    raise ConfigError(
                        f"trainer.cuda_graphs=true: a step of this model cannot be captured ({reason}); "
                        "trainer.cuda_graphs=false trains without"
                    ) from error
                sys.stderr.write(f"note: training goes on without CUDA graphs ({reason}); trainer.cuda_graphs=false\n")
                self._unrecorded = math.inf
                for optimization in self.optimizations:
                    optimization.clear()  # gradients of the attempt
                self._move_to(step, rows.device)
        return recorded

    def _record(self, shape: torch.Size, places: _Places) -> Callable[[], None]:
        places.rows_of(shape)  # their addresses are recorded
        self.step.begin_block()  # in the first block the optimizers had no state when it began
        self.step.prepare()
        if not all(optimization.is_fused for optimization in self.optimizations):
            raise RuntimeError("the optimizer is not a fused Adam or AdamW of which every parameter takes part")
        return self._recorder.record(lambda: places.take(self.step, shape), self.step.generators)

    @staticmethod
    def _check(replayed: Tensor, trial: Tensor) -> None:
        """Compare the losses, of one step or of several replicas'."""
        for loss, expected in zip(replayed.view(-1).tolist(), trial.view(-1).tolist(), strict=True):
            if not math.isclose(loss, expected, rel_tol=_TOLERANCE, abs_tol=_TOLERANCE) and math.isfinite(expected):
                raise ConfigError(
                    f"trainer.cuda_graphs: a replayed step has the loss {loss:.6g}, without a graph it is "
                    f"{expected:.6g}: this model does on the host what cannot be replayed; train it with "
                    "trainer.cuda_graphs=false"
                )


def _first_cause(error: BaseException) -> BaseException:
    """The first error: the last one, at the end of a recording, only says that there was one."""
    while error.__context__ is not None:
        error = error.__context__
    return error
