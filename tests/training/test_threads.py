"""The number of threads: chosen from times, measured without a trace."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from attelbo.experiments.configuration import compose
from attelbo.models import Model, build_data, build_model
from attelbo.training import threads


@pytest.mark.parametrize(
    ("times", "best"),
    [
        ({1: [1.0], 2: [0.95]}, 1),  # not worth a second core
        ({1: [1.0], 2: [0.6], 4: [0.57]}, 2),
        ({1: [1.0], 2: [10.0]}, 1),  # cores that others use
        ({1: [1.0, 1.0, 9.0], 2: [0.7, 0.7, 0.7]}, 2),  # a disturbance does not count
        ({1: [1.0, 1.0, 1.0], 2: [0.1, 1.2, 1.2]}, 1),
        ({4: [1.0]}, 4),
    ],
)
def test_smallest_number_that_is_nearly_as_fast_as_the_fastest(times: dict[int, list[float]], best: int) -> None:
    assert threads.choose(times) == best


def test_candidates() -> None:
    assert threads.candidates(1) == [1]
    assert threads.candidates(2) == [1, 2]
    assert threads.candidates(12) == [1, 2, 4, 8, 12]


class Machine:
    """On which a run takes as long as is said, by number of threads."""

    def __init__(self, seconds: dict[int, float]) -> None:
        self.seconds = seconds
        self.runs: list[int] = []

    def timed(self, run: object, number: int) -> float:
        self.runs.append(number)
        return self.seconds[number]

    def measure(self) -> dict[int, list[float]]:
        return threads.time_passes(lambda: None, list(self.seconds), self.timed)


def test_turns() -> None:
    machine = Machine({1: 0.01, 2: 0.008})
    assert machine.measure() == {1: [0.01] * (threads.ROUNDS + 1), 2: [0.008] * (threads.ROUNDS + 1)}
    assert machine.runs == [2, 2, 1, 1] + [2, 1] * threads.ROUNDS


def test_no_time_is_spent_on_hopeless_numbers() -> None:
    machine = Machine({1: 9.0, 2: 5.0, 4: 2.6, 8: 1.2})
    assert list(machine.measure()) == [8]
    assert machine.runs == [8, 8, 4, 4]
    machine = Machine({1: 0.004, 2: 0.04})  # shared cores
    assert list(machine.measure()) == [1]
    assert machine.runs.count(2) == 2


def test_a_second_is_enough() -> None:
    machine = Machine({1: 0.3, 2: 0.2})
    machine.measure()
    assert machine.runs == [2, 2, 1, 1, 2, 1]


def test_a_slow_model_is_measured_on_fewer_rows() -> None:
    def rows(per_row: float) -> int:
        taken: list[int] = []

        def timed(run: Any, number: int) -> float:
            run()
            return per_row * taken[-1] * number

        return threads.affordable_rows(taken.append, 100, 2, timed)

    assert rows(1e-5) == 100
    assert rows(1e-3) == 25
    assert rows(1e-1) == 13


def test_the_watch() -> None:
    before, seen = torch.get_num_threads(), []
    assert threads.seconds(lambda: seen.append(torch.get_num_threads()), before + 1) > 0
    assert seen == [before + 1]
    assert torch.get_num_threads() == before


def test_what_may_be_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert threads.available() == 3
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert threads.available() >= 1


# -- on a model ------------------------------------------------------------------------------------------------


def digits(*words: str) -> tuple[Model, Any]:
    config = compose("train", words).config
    data = build_data(config)
    data.prepare_data()
    data.setup()
    return build_model(config, data), data


def trainer(device: str = "cpu", world_size: int = 1) -> Any:
    return SimpleNamespace(strategy=SimpleNamespace(root_device=torch.device(device)), world_size=world_size)


def test_nothing_is_left_behind() -> None:
    # The optimal scale remembers every training batch in a buffer.
    model, data = digits("model/likelihood=normal", "data.binarize=none")
    model.eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    generator = torch.get_rng_state()
    run = threads.training_pass(model, data)
    run(8)
    run(8)
    assert torch.equal(torch.get_rng_state(), generator)
    assert before.keys() == model.state_dict().keys()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not model.training


def test_a_pass_trains(monkeypatch: pytest.MonkeyPatch) -> None:
    model, data = digits()
    seen = []
    losses = type(model).losses

    def spy(self: Model, batch: Any) -> Any:
        seen.append((self.training, len(batch.x)))
        return losses(self, batch)

    monkeypatch.setattr(type(model), "losses", spy)
    threads.training_pass(model, data)(9)
    assert seen == [(True, 9)]


def test_equal_models_are_measured_once(monkeypatch: pytest.MonkeyPatch) -> None:
    measured = []
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    monkeypatch.setattr(threads, "_chosen", {})
    monkeypatch.setattr(threads, "affordable_rows", lambda run, batch_size, most: batch_size)
    monkeypatch.setattr(threads, "time_passes", lambda _, numbers: measured.append(numbers) or {1: [1.0], 2: [0.5]})
    assert threads.measured_threads(*digits("seed=1"), trainer()) == 2
    assert threads.measured_threads(*digits("seed=2"), trainer()) == 2
    assert threads.measured_threads(*digits("model.latent_dim=7"), trainer()) == 2
    assert measured == [[1, 2], [1, 2]]


def test_where_nothing_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "time_passes", None)
    monkeypatch.setattr(threads, "_chosen", {})
    model, data = digits()
    monkeypatch.setenv("OMP_NUM_THREADS", "8")
    assert threads.measured_threads(model, data, trainer("meta")) is None
    assert threads.measured_threads(model, data, trainer(world_size=2)) == 1
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert threads.measured_threads(model, data, trainer()) == 1
