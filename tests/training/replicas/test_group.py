"""Threads of which one runs at a time: order, failures, global state, signals."""

import os
import signal
import threading
import time
from typing import Any

import pytest
import torch

from attelbo.training.interruption import Interrupted, Interruption, relayed, stoppable
from attelbo.training.replicas import Group, Seat


def test_one_runs_at_a_time_in_the_same_order_every_time():
    def history() -> list[tuple[int, int]]:
        seen: list[tuple[int, int]] = []

        def job(seat: Seat) -> None:
            for turn in range(3):
                seen.append((seat.place, turn))
                time.sleep(0.001)  # whoever does not wait for the baton would come in between
                seen.append((seat.place, turn))
                seat.switch()

        Group(4).run([job] * 4)
        return seen

    first = history()
    assert first == [(place, turn) for turn in range(3) for place in range(4) for _ in range(2)]
    assert history() == first


def test_one_that_ends_early_or_fails_leaves_the_others_their_turns():
    done: list[int] = []

    def job(seat: Seat) -> int:
        for turn in range(3):
            if seat.place == turn == 1:
                raise ZeroDivisionError("a defect")
            if seat.place == 2:
                return -1
            seat.switch()
        done.append(seat.place)
        return seat.place

    ends = Group(4).run([job] * 4)
    assert (ends[0], ends[2], ends[3]) == (0, -1, 3)
    assert isinstance(ends[1], ZeroDivisionError)
    assert done == [0, 3]


def test_all_gather_before_anyone_goes_on():
    seen: list[str] = []

    def job(seat: Seat) -> None:
        if seat.place == 2:
            return  # who has ended is not waited for
        seen.append("before")
        seat.gather()
        seen.append("after")

    Group(4).run([job] * 4)
    assert seen == ["before"] * 3 + ["after"] * 3


def test_each_has_the_default_dtype_that_it_has_set():
    seen: list[torch.dtype] = []

    def job(seat: Seat) -> None:
        if seat.place == 0:
            torch.set_default_dtype(torch.float64)
        seat.switch()
        seen.append(torch.get_default_dtype())
        torch.set_default_dtype(torch.float32)

    Group(3).run([job] * 3)
    assert seen == [torch.float64, torch.float32, torch.float32]
    assert torch.get_default_dtype() == torch.float32


# -- signals --------------------------------------------------------------------------------------------


def wait(condition) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline


def test_a_signal_acts_in_every_thread_as_in_the_main_one():
    inside: list[int] = []
    raised: list[int] = []

    def work() -> None:
        try:
            with stoppable():
                inside.append(1)
                wait(lambda: False)
        except Interrupted as interrupted:
            raised.append(interrupted.exit_code)

    before = signal.getsignal(signal.SIGTERM)
    threads = [threading.Thread(target=work) for _ in range(2)]
    with relayed() as stopped:
        assert stopped() is None
        for thread in threads:
            thread.start()
        wait(lambda: len(inside) == 2)
        os.kill(os.getpid(), signal.SIGTERM)
        for thread in threads:
            thread.join()
        assert stopped() == signal.SIGTERM
        late = threading.Thread(target=work)  # what has not begun, does not
        late.start()
        late.join()
    assert raised == [143, 143, 143]
    assert len(inside) == 2
    assert signal.getsignal(signal.SIGTERM) is before


def test_after_its_training_a_thread_is_stopped_at_once_again():
    """A training only remembers the signal; what follows has nothing to save."""
    inside: list[int] = []
    raised: list[int] = []
    nothing: Any = None

    def work() -> None:
        try:
            with stoppable():
                training = Interruption()
                training.on_train_start(nothing, nothing)
                training.on_exception(nothing, nothing, ValueError())
                inside.append(1)
                wait(lambda: False)
        except Interrupted as interrupted:
            raised.append(interrupted.exit_code)

    with relayed():
        thread = threading.Thread(target=work)
        thread.start()
        wait(lambda: inside)
        os.kill(os.getpid(), signal.SIGTERM)
        thread.join()
    assert raised == [143]


def test_the_first_of_two_signals_is_told_and_later_threads_know_of_none():
    with relayed() as stopped:
        os.kill(os.getpid(), signal.SIGUSR2)
        wait(lambda: stopped() is not None)
        os.kill(os.getpid(), signal.SIGTERM)
        for _ in range(1000):
            pass
        assert stopped() == signal.SIGUSR2
    ended: list[bool] = []

    def work() -> None:
        with stoppable():
            ended.append(True)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert ended == [True]


def test_a_signal_after_the_work_strikes_nobody():
    ended: list[bool] = []

    def work() -> None:
        with stoppable():
            pass
        os.kill(os.getpid(), signal.SIGTERM)
        wait(lambda: stopped() is not None)
        for _ in range(1000):
            pass
        ended.append(True)

    with relayed() as stopped:
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    assert ended == [True]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_replicas_are_the_runs_by_themselves(runs):
    from attelbo.building import build
    from attelbo.experiments import run

    def fit(seed: int, seat: Seat | None = None) -> torch.Tensor:
        config = runs.configure(
            "callbacks=none", f"seed={seed}", "trainer.accelerator=gpu", "trainer.cuda_graphs=false"
        )
        model, data = run.assemble(config)
        given = {"run_dir": runs.folder, "seed": seed, "callbacks": {}, "seat": seat}
        build(config["trainer"], **given).fit(model, datamodule=data)
        return torch.nn.utils.parameters_to_vector(model.parameters()).detach().cpu()

    together = Group(3).run([lambda seat, seed=seed: fit(seed, seat) for seed in range(3)])
    for seed, parameters in enumerate(together):
        torch.testing.assert_close(parameters, fit(seed), rtol=1e-3, atol=1e-4)


def test_what_follows_a_training_waits_for_the_other_trainings():
    events = []

    def job(seat):
        for _ in range(seat.place + 1):
            events.append("training")
            seat.switch()
        seat.rest()
        events.append("afterwards")

    Group(3).run([job] * 3)
    assert events == ["training"] * 6 + ["afterwards"] * 3


@pytest.mark.parametrize(("stack", "expected"), [(True, [5, 4, 6]), (False, [2, 2, 2])])
def test_the_clock_stands_still_while_others_train_to_their_end(monkeypatch, stack, expected):
    now = 0
    monkeypatch.setattr(time, "perf_counter", lambda: now)

    def job(seat):
        nonlocal now
        seat.gather()
        start = seat.clock()
        for _ in range(2):
            seat.await_turn()
            now += 1
            seat.switch()
        seat.rest()
        return seat.clock() - start

    assert Group(3, stack).run([job] * 3) == expected
