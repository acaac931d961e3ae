"""The number of CPU threads, by measurement.

More threads are not always faster: the matrix products of a small model are over before a second thread has begun,
and where cores are shared with other processes two threads that wait for each other take ten times as long as one. So
a second is spent, before the training, on passes like its own with 1, 2, 4, ... threads, and the smallest number that
is nearly as fast as the fastest is taken. Sums are taken in another order with another number of threads: the last
digits of a run depend on it, and the run directory keeps it.
"""

import copy
import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import torch
from lightning.pytorch import Trainer

from attelbo.data import ImageDataModule
from attelbo.models import Model

Threads = int | Literal["auto"] | None
"""A number, one that is measured, or torch's own choice."""

TOLERANCE = 0.1
"""More threads must save more than this share of the time: they are somebody else's, or the next job's."""
HOPELESS = 2.0
"""A number that takes so many times as long as another is not measured again, nor are those further away."""
SECONDS = 0.8
"""Wall time that is spent on repetitions."""
ROUNDS = 9

_TORCHS_OWN = torch.get_num_threads()  # asked when nothing has set it yet
_chosen: dict[str, int] = {}
"""What was measured in this process, so that the jobs of a sweep measure once for equal models."""


def available() -> int:
    """The most threads that may be taken: OMP_NUM_THREADS where it is set, else torch's own choice, one a core."""
    asked = os.environ.get("OMP_NUM_THREADS", "")
    return int(asked) if asked.isdigit() and int(asked) > 0 else _TORCHS_OWN


def measured_threads(model: Model, data: ImageDataModule, trainer: Trainer) -> int | None:
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
        _chosen[name] = choose(time_passes(training_pass(model, data), numbers))
    return _chosen[name]


def use_threads(number: int | None) -> None:
    """Compute with so many threads, or with torch's own choice, whatever a run before in this process took."""
    torch.set_num_threads(available() if number is None else number)


def candidates(most: int) -> list[int]:
    """1, 2, 4, ... and ``most``."""
    return sorted({*(2**power for power in range(most.bit_length())), most})


def choose(times: Mapping[int, Sequence[float]]) -> int:
    """The smallest number of threads whose median time is within the tolerance of the best."""
    medians = {number: statistics.median(measured) for number, measured in times.items()}
    best = min(medians.values())
    return min(number for number, median in medians.items() if median <= best * (1 + TOLERANCE))


def time_passes(
    run: Callable[[], None],
    numbers: Sequence[int],
    set_threads: Callable[[int], None] = torch.set_num_threads,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[int, list[float]]:
    """Seconds of each run, by number of threads, in turns; the threads are as many as before in the end.

    From many threads down to one, so that a model which needs them never runs on one for long; each number runs once
    to warm up before it is timed.
    """

    def timed(number: int) -> float:
        set_threads(number)
        start = clock()
        run()
        return clock() - start

    before = torch.get_num_threads()
    try:
        times: dict[int, list[float]] = {}
        for number in sorted(numbers, reverse=True):
            timed(number)
            times[number] = [timed(number)]
            if times[number][0] > HOPELESS * min(one for (one,) in times.values()):
                break
        best = min(one for (one,) in times.values())
        times = {number: measured for number, measured in times.items() if measured[0] <= HOPELESS * best}
        end = clock() + SECONDS
        while len(times) > 1 and clock() < end and len(next(iter(times.values()))) < ROUNDS:
            for number, measured in times.items():
                measured.append(timed(number))
        return times
    finally:
        set_threads(before)


def training_pass(model: Model, data: ImageDataModule) -> Callable[[], None]:
    """What computes as much as an optimizer step: a minibatch, forward and backward for each player of a copy."""
    players = copy.deepcopy(model).train().players()
    rows = torch.arange(min(data.batch_size, data.n_rows("train")))

    def run() -> None:
        with torch.random.fork_rng(devices=[]):
            batch = data.materialize(rows, "train")
            for player in players:
                torch.autograd.grad(player.losses(batch)["loss"], player.parameters, allow_unused=True)

    return run
