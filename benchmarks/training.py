"""Training throughput: attelbo through its own command, the bare loop, plain Lightning, its template's idiom, pythae.

In each heat all train the same VAE on the same rows with the same batch, the same fused Adam and number of threads, in
turns of one epoch; the first epoch of each warms up and does not count.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Self

from benchmarks.data import SIZES
from benchmarks.environments import Environment
from benchmarks.report import compare
from benchmarks.task import Task
from benchmarks.turns import Program, take_turns

Accelerator = Literal["cpu", "gpu"]

OURS, BARE, BF16 = "attelbo", "bare loop", "attelbo, bf16"
ROUNDS: dict[str, int] = {"cpu": 4, "gpu": 8}
QUICK_ROUNDS = 2
VALIDATION_ROWS = 400


@dataclass(frozen=True, slots=True)
class Entry:
    """A contestant."""

    module: str
    """In ``benchmarks.contestants``."""
    changes: Mapping[str, Any] = field(default_factory=dict)
    """How its task differs."""
    share: float = 1.0
    """Of the rows that it trains on in a lap: the slow ones would keep all others waiting."""


ENTRIES = {
    OURS: Entry("command"),
    BARE: Entry("bare_loop"),
    "attelbo, compiled": Entry("command", {"compile": True}),
    BF16: Entry("command", {"bf16": True}),
    "bare loop, channels_last": Entry("bare_loop", {"channels_last": True}),
    "Lightning": Entry("lightning_plain"),
    "Lightning template": Entry("lightning_template", share=0.2),
    "pythae": Entry("pythae_trainer"),
    "pythae, default Adam": Entry("pythae_trainer", {"fused": False}),
}
PEERS = ("Lightning", "Lightning template", "pythae")


@dataclass(frozen=True, slots=True)
class Heat:
    """A task and who takes part."""

    task: Task
    names: tuple[str, ...]
    patience: float
    """Seconds of laps after which no further round is begun."""

    def with_patience(self, times: float) -> Self:
        """The same, with so many times the patience: for a slow or a busy machine."""
        return replace(self, patience=times * self.patience)


def smallest(accelerator: Accelerator, rounds: int, data_dir: Path) -> Task:
    """The task that the others vary: the fully connected network of Burda et al. 2016 on all of MNIST."""
    on_gpu = accelerator == "gpu"
    return Task(
        name="MLP 784-200-200-z50 tanh",
        network="mlp",
        hidden=(200, 200),
        latent_dim=50,
        activation="tanh",
        threads=None if on_gpu else 1,
        laps=1 + rounds,
        train_size=SIZES["mnist"][0] - VALIDATION_ROWS,
        validation_size=VALIDATION_ROWS,
        data_dir=str(data_dir.absolute()),
        batch_size=128 if on_gpu else 100,
        device="cuda" if on_gpu else "cpu",
    )


def replicated(accelerator: Accelerator, quick: bool, data_dir: Path) -> Task:
    """What each of several seeds does."""
    return replace(smallest(accelerator, 1, data_dir), train_size=4_000 if quick else 20_000)


def heats(accelerator: Accelerator, quick: bool, rounds: int, data_dir: Path) -> list[Heat]:
    """What is measured on a CPU, with one thread and with as many as torch chooses, or on a GPU."""
    small = smallest(accelerator, rounds, data_dir)
    large = replace(small, name="MLP 784-512-512-z16 ReLU", hidden=(512, 512), latent_dim=16, activation="relu")
    conv = replace(
        large, name="conv 1x28x28 32-64-128-z16 ReLU", network="conv", hidden=(32, 64, 128), train_size=12_000
    )
    colour = replace(conv, name="conv 3x32x32 32-64-128-z64 ReLU", data="cifar10", latent_dim=64, train_size=8_000)
    if accelerator == "gpu":
        convolutional = (OURS, "attelbo, compiled", BARE, "pythae")
        chosen = [
            Heat(small, (OURS, BARE, *PEERS), 90),
            Heat(large, (OURS, BARE, "pythae"), 60),
            Heat(replace(conv, train_size=small.train_size), convolutional, 60),
            Heat(replace(colour, train_size=SIZES["cifar10"][0] - VALIDATION_ROWS), convolutional, 60),
        ]
        return [_quick(heat, 12_000) for heat in chosen[::3]] if quick else chosen
    if quick:
        return [
            _quick(Heat(small, (OURS, BARE, *PEERS), 20), 12_000),
            _quick(Heat(conv, (OURS, "attelbo, compiled", BARE, "pythae"), 25), 2_000),
        ]
    from attelbo.training.trainer import bf16_is_fast

    bf16 = (BF16,) if bf16_is_fast(accelerator) else ()
    compiled = (OURS, "attelbo, compiled", BARE)
    return [
        Heat(small, (*compiled, *bf16, *PEERS, "pythae, default Adam"), 120),
        Heat(replace(small, batch_size=512), (OURS, *bf16, BARE, "Lightning", "pythae"), 50),
        Heat(large, (*compiled, *bf16, "pythae"), 100),
        Heat(replace(small, threads=None), (OURS, BARE), 30),
        Heat(conv, (*compiled, *bf16, "bare loop, channels_last", *PEERS), 100),
        Heat(replace(conv, threads=None), compiled, 45),
        Heat(colour, (*compiled, *bf16, "pythae"), 60),
    ]


def _quick(heat: Heat, rows: int) -> Heat:
    return replace(heat.with_patience(0.5), task=replace(heat.task, train_size=rows))


def run(chosen: list[Heat], pythae: Environment, tell: Callable[[str], None] = print) -> list[dict[str, Any]]:
    """The heats one after the other; for each its task, and for each contestant rates, ratios, memory and laps.

    Raises:
        RuntimeError: a contestant failed.
    """
    return [_heat(heat, pythae, tell) for heat in chosen]


def _heat(heat: Heat, pythae: Environment, tell: Callable[[str], None]) -> dict[str, Any]:
    absent: dict[str, str] = {}
    programs: dict[str, Program] = {}
    for name in heat.names:
        entry = ENTRIES[name]
        task = replace(heat.task, train_size=int(entry.share * heat.task.train_size), **entry.changes)
        peer = entry.module == "pythae_trainer"
        if peer and pythae.missing:
            absent[name] = pythae.missing
        else:
            python = {"python": pythae.python} if peer else {}
            programs[name] = Program(f"benchmarks.contestants.{entry.module}", task.to_json(), **python)
    race = take_turns(programs, heat.task.laps, heat.patience, tell)
    result = {
        "task": asdict(replace(heat.task, data_dir="")),
        "threads": race.about[BARE]["threads"],
        "absent": absent,
        "contestants": compare(race, OURS, BARE),
    }
    ratios = ", ".join(
        f"{name} {own['train']['ratio']['median']:.2f}" for name, own in result["contestants"].items() if name != BARE
    )
    tell(f"{heat.task.name}, batch {heat.task.batch_size}, threads {heat.task.threads or 'default'}: {ratios}")
    return result
