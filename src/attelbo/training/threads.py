"""The number of CPU threads, by measurement.

More threads are not always faster: the matrix products of a small model are over before a second thread has begun,
and where cores are shared with other processes two threads that wait for each other take ten times as long as one. So
a second is spent, before the training, on passes like its own with 1, 2, 4, ... threads, and the smallest number that
is nearly as fast as the fastest is taken. The order of sums depends on the number of threads, and so do the last digits
of a run: the run directory records it.
"""

import copy
import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import torch
from lightning.pytorch import Trainer

from attelbo.data import ResidentDataModule
from attelbo.models import Model

Threads = int | Literal["auto"] | None
"""A number, one that is measured, or torch's own choice."""

TOLERANCE = 0.1
"""More threads must save more than this share of the time: other processes could use them."""
HOPELESS = 2.0
"""A number of threads that takes this many times as long as another is measured no further, nor is any beyond it."""
SECONDS = 0.6
"""Wall time that is spent on repetitions."""
ROUNDS = 9
PASS_SECONDS = 0.05
"""Wall time of a pass: of a model that takes longer, with fewer rows."""

_TORCHS_OWN = torch.get_num_threads()  # asked when nothing has set it yet
_chosen: dict[str, int] = {}
"""What was measured in this process, so that the jobs of a sweep measure once for equal models."""


def available() -> int:
    """The most threads that may be used: OMP_NUM_THREADS where it is set, else torch's own choice, one per core."""
    asked = os.environ.get("OMP_NUM_THREADS", "")
    return int(asked) if asked.isdigit() and int(asked) > 0 else _TORCHS_OWN


def measured_threads(model: Model, data: ResidentDataModule, trainer: Trainer) -> int | None:
    """The number of threads to train this model with; None, torch's own choice, on other devices than a CPU.

    Weights, buffers and generators stay as they are. Processes that share the machine get one thread each.
    """
    if trainer.strategy.root_device.type != "cpu":
        return None
    numbers = candidates(available())
    if trainer.world_size > 1 or len(numbers) == 1:
        return 1
    name = f"{data.batch_size} {numbers} {model}"
    if name not in _chosen:
        run = training_pass(model, data)
        rows = affordable_rows(run, min(data.batch_size, data.n_rows("train")), numbers[-1])
        _chosen[name] = choose(time_passes(lambda: run(rows), numbers))
    return _chosen[name]


def use_threads(number: int | None) -> None:
    """Compute with this number of threads, or torch's own choice, whatever an earlier run in this process used."""
    torch.set_num_threads(available() if number is None else number)


def candidates(most: int) -> list[int]:
    """1, 2, 4, ... and ``most``."""
    return sorted({*(2**power for power in range(most.bit_length())), most})


def choose(times: Mapping[int, Sequence[float]]) -> int:
    """The smallest number of threads whose median time is within the tolerance of the best."""
    medians = {number: statistics.median(measured) for number, measured in times.items()}
    best = min(medians.values())
    return min(number for number, median in medians.items() if median <= best * (1 + TOLERANCE))


def seconds(run: Callable[[], None], number: int) -> float:
    """The wall time of a run on so many threads; their number is restored."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        start = time.perf_counter()
        run()
        return time.perf_counter() - start
    finally:
        torch.set_num_threads(before)


Stopwatch = Callable[[Callable[[], None], int], float]


def affordable_rows(run: Callable[[int], None], batch_size: int, most: int, timed: Stopwatch = seconds) -> int:
    """The rows of a minibatch with which a pass on ``most`` threads takes no longer than it may, at least an eighth."""
    few = -(-batch_size // 8)
    taken = min(timed(lambda: run(few), most), timed(lambda: run(few), most)) * batch_size / few
    return max(few, min(batch_size, int(batch_size * PASS_SECONDS / taken)))


def time_passes(run: Callable[[], None], numbers: Sequence[int], timed: Stopwatch = seconds) -> dict[int, list[float]]:
    """Seconds of each run, by number of threads, in turns.

    From many threads down to one, so that a model which needs them never runs on one for long; of the first two runs,
    one of which warms up and each of which may be disturbed, the faster counts.
    """

    first: dict[int, float] = {}
    for number in sorted(numbers, reverse=True):
        first[number] = min(timed(run, number), timed(run, number))
        if first[number] > HOPELESS * min(first.values()):
            break
    times = {number: [one] for number, one in first.items() if one <= HOPELESS * min(first.values())}
    for _ in range(ROUNDS if len(times) > 1 else 0):
        for number, measured in times.items():
            measured.append(timed(run, number))
        if sum(map(sum, times.values())) > SECONDS:
            break
    return times


def training_pass(model: Model, data: ResidentDataModule) -> Callable[[int], None]:
    """A function that computes about as much as an optimizer step on so many rows: forward and backward for each player
    of a copy of the model."""
    players = copy.deepcopy(model).train().players()

    def run(rows: int) -> None:
        with torch.random.fork_rng(devices=[]):
            batch = data.materialize(torch.arange(rows), "train")
            for player in players:
                torch.autograd.grad(player.losses(batch)["loss"], player.parameters, allow_unused=True)

    return run
