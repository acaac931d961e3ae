"""N runs in one process, in N threads of which one runs at a time; their blocks of minibatches are computed together.

Each run is an ordinary one, with its own Trainer, callbacks, loggers and directory; it holds the *baton* and runs until
its stepper hands in a block. Then the next run has its turn. When all that still train have handed in a block, the last
of them takes the steps of all, and they go on, one after the other. So global state - the default generator, the
default dtype - is used by one run at a time, and everything happens in the same order every time.

Where stacking does not pay or cannot be done, each run trains to its end before the next begins: nothing is gained by
switching, and each switch would refill the caches.
"""

import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar

import torch
from torch import Tensor

from attelbo.errors import ConfigError
from attelbo.training.engine import Engine, EngineMaker, Position, Step
from attelbo.training.replicas.functions import NotStackableError
from attelbo.training.replicas.steps import StackedSteps, stacking_pays

Result = TypeVar("Result")


@dataclass(slots=True)
class _Work:
    """A block that a run has handed in, and its result."""

    step: Step
    position: Position
    make_engine: EngineMaker
    minibatches: Sequence[Tensor]
    first_step: int
    values: Tensor | None = None
    error: Exception | None = None
    is_own: bool = False
    """The run must do it itself."""

    @property
    def sizes(self) -> list[int]:
        return [len(rows) for rows in self.minibatches]

    @property
    def is_pending(self) -> bool:
        return self.values is None and self.error is None and not self.is_own


class Group:
    """The runs that share a process.

    Args:
        size: how many.
        stack: whether their steps are computed as one stacked model; auto: where it pays and is possible, which is
            decided at the first block: it becomes False if not.
    """

    def __init__(self, size: int, stack: Literal["auto"] | bool = "auto") -> None:
        self.seats = [Seat(self, place) for place in range(size)]
        self.stack: Literal["auto"] | bool = stack
        self.dtype = torch.get_default_dtype()
        self.loaded: dict[str, Any] = {}
        """Data that the runs have in common, by content."""
        self._steps: StackedSteps | None = None

    def run(self, jobs: "Sequence[Callable[[Seat], Result]]") -> "list[Result | BaseException]":
        """Call each job in a thread of its own; what each returned or raised."""
        ends = [_End(job, seat) for job, seat in zip(jobs, self.seats, strict=True)]
        threads = [threading.Thread(target=end.reach, name=f"replica {end.seat.place}") for end in ends]
        for thread in threads:
            thread.start()
        self.seats[0].baton.release()
        for thread in threads:
            thread.join()  # signals are still handled here
        return [end.value for end in ends]

    def others(self, seat: "Seat") -> "list[Seat]":
        """Those that have not ended, in the order in which they follow."""
        return [other for other in self.seats[seat.place + 1 :] + self.seats[: seat.place] if not other.is_gone]

    def compute(self, works: Sequence[_Work]) -> None:
        """Take the steps of all blocks as one stacked model, or leave each to its own run."""
        try:
            steps = self._steps_of(works)
            values = steps and steps.run([work.minibatches for work in works], [work.first_step for work in works])
        except NotStackableError as reason:
            if self.stack is True:
                self._fail(works, refused(reason))
                return
            sys.stderr.write(f"note: the replicas are trained one after the other, not stacked: {reason}\n")
            self.stack, values = False, None
        except Exception as error:
            self._fail(works, error)
            return
        for place, work in enumerate(works):
            work.values, work.is_own = (None, True) if values is None else (values[place], False)

    def _steps_of(self, works: Sequence[_Work]) -> StackedSteps | None:
        """The stacked steps of these runs; None where each had better take its own."""
        if self.stack is False or len(works) < 2 or any(work.sizes != works[0].sizes for work in works):
            return None
        first = works[0]
        # Decided once, even if some end later: each run records which others it is stacked with.
        undecided = self.stack == "auto" and self._steps is None
        if undecided and not stacking_pays(first.position.model, len(works), first.minibatches[0]):
            self.stack = False
            return None
        own = [work.step for work in works]
        if self._steps is None or self._steps.steps != own or not self._steps.stack.is_whole():
            self._steps = StackedSteps(own, [work.position for work in works], first.make_engine)
        return self._steps

    @staticmethod
    def _fail(works: Sequence[_Work], error: Exception) -> None:
        for work in works:
            work.error = error


def refused(reason: NotStackableError) -> ConfigError:
    """The error where replicas must be stacked and cannot be."""
    return ConfigError(f"trainer.stack=true: {reason}; trainer.stack=false trains one after the other")


class Seat:
    """The place of one run in its group."""

    def __init__(self, group: Group, place: int) -> None:
        self.group = group
        self.place = place
        self.name = ""
        """Of the run's directory."""
        self.baton = threading.Semaphore(0)
        self.work: _Work | None = None
        self.is_here = False
        self.has_trained = False
        self.is_gone = False
        self._waited = 0.0

    @property
    def leads(self) -> bool:
        """Whether all runs before this one have ended. The leader shows the progress; where runs train one after the
        other, it is the one that trains."""
        one_by_one = self.group.stack is False
        return all(seat.is_gone or (one_by_one and seat.has_trained) for seat in self.group.seats[: self.place])

    @property
    def trains_with(self) -> int:
        """Runs that train at the same time, this one counted."""
        return 1 if self.group.stack is False else len(self.group.seats)

    @property
    def names(self) -> list[str]:
        """The names of all runs in the stacked model, by place; none where nothing is stacked."""
        return [] if self.group.stack is False else [seat.name for seat in self.group.seats]

    def clock(self) -> float:
        """Seconds, which stand still while this run waits for others to train to their end."""
        return time.perf_counter() - self._waited

    def engine(self, step: Step, position: Position, make_engine: EngineMaker) -> "SeatEngine":
        """The engine of this run; ``make_engine`` makes what takes the steps, its own or those of all."""
        return SeatEngine(self, step, position, make_engine)

    def gather(self) -> None:
        """Wait until all runs that have not ended are here: before their training, so that their clocks agree."""
        self.is_here = True
        while any(not other.is_here for other in self.group.others(self)):
            self.switch()

    def rest(self) -> None:
        """Wait until no other run trains any more: what follows a training would count as their time."""
        self.has_trained = True
        while any(not other.has_trained for other in self.group.others(self)):
            self.switch()

    def meet(self, work: _Work) -> None:
        """Wait until all runs that still train have handed in a block, and these are computed or left to their runs."""
        self.work = work
        while work.is_pending:
            others = [other for other in self.group.others(self) if not other.has_trained]
            if any(not other.is_waiting for other in others):
                self.switch()
            else:
                together = sorted((self, *others), key=lambda seat: seat.place)
                self.group.compute([seat.work for seat in together if seat.work is not None])
        self.work = None

    def await_turn(self) -> None:
        """Where runs train one after the other, wait until those before this one have."""
        while self.group.stack is False and not self.leads:
            self.switch()

    @property
    def is_waiting(self) -> bool:
        return self.work is not None and self.work.is_pending

    def switch(self) -> None:
        """Let the others go on until it is this run's turn again."""
        dtype, start = torch.get_default_dtype(), time.perf_counter()
        torch.set_default_dtype(self.group.dtype)
        self.pass_on()
        self.baton.acquire()
        torch.set_default_dtype(dtype)
        if self.group.stack is False:
            self._waited += time.perf_counter() - start

    def pass_on(self) -> None:
        """Hand the baton to the next run that can go on, else to the next that waits, which will find that all do."""
        others = self.group.others(self)
        others = [other for other in others if not other.has_trained] or others
        if others:
            next((other for other in others if not other.is_waiting), others[0]).baton.release()


class SeatEngine:
    """Takes the steps of one run's blocks together with those of the other runs."""

    def __init__(self, seat: Seat, step: Step, position: Position, make_engine: EngineMaker) -> None:
        self.seat = seat
        self.step = step
        self.position = position
        self.make_engine = make_engine
        self.alone: Engine = make_engine(step, position)

    @property
    def terms(self) -> tuple[str, ...]:
        return self.step.terms

    def run(self, minibatches: Sequence[Tensor], first_step: int) -> Tensor:
        if self.seat.group.stack is not False:
            work = _Work(self.step, self.position, self.make_engine, minibatches, first_step)
            self.seat.meet(work)
            if work.error is not None:
                raise work.error
            if work.values is not None:
                return work.values
        self.seat.await_turn()
        return self.alone.run(minibatches, first_step)


class _End(Generic[Result]):
    """How a job ended."""

    value: Result | BaseException

    def __init__(self, job: Callable[[Seat], Result], seat: Seat) -> None:
        self.job = job
        self.seat = seat

    def reach(self) -> None:
        """Wait for the baton, do the job, and pass the baton on."""
        self.seat.baton.acquire()
        try:
            self.value = self.job(self.seat)
        except BaseException as error:
            self.value = error
        finally:
            self.seat.is_gone = True
            self.seat.pass_on()
