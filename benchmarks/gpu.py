"""On a GPU: optimizer steps by engine, replicas stacked or one after the other, epochs of the ordinary command, chunks.

Steps are taken by attelbo's own engines without Lightning around them; beside them stands the bare loop of the same
network. The *busy* share is the time in which the GPU computes: what its profiler says of the kernels, of the time that
the same steps take without a profiler.

Shapes: N replicas, S minibatches in a block, B rows.
"""

import gc
import logging
import math
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from attelbo import cli
from attelbo.data import ResidentDataModule
from attelbo.experiments import evaluation
from attelbo.experiments.configuration import compose
from attelbo.experiments.settings import Evaluation
from attelbo.models import Model, build_data, build_model
from attelbo.training.compilation import CompiledLosses
from attelbo.training.engine import AnyPosition, AnyStep, EagerEngine, Engine, EngineMaker, Position, Step
from attelbo.training.graphs import GraphEngine
from attelbo.training.optimization import DirectOptimization
from attelbo.training.replicas.steps import StackedSteps
from benchmarks.contestants.bare_loop import train_epoch
from benchmarks.contestants.command import accept_random_cifar10, words
from benchmarks.contestants.networks import PlainVAE, begin, images_of
from benchmarks.contestants.watch import joined
from benchmarks.task import Task

BLOCK, BLOCKS = 16, 8
"""Minibatches in a block, and blocks that are timed one by one."""
REPLICAS = (1, 2, 4, 16, 64)
CHUNKS = (1, 4, 16, 64, 256, 1024)
EPOCHS = 6

Result = dict[str, Any]


def measure(folder: str, rows: int, device: str = "cuda") -> Result:
    """All of it; what fails is told in the result, and the rest goes on.

    Args:
        folder: with MNIST's and CIFAR-10's extracted files.
        rows: of the training.
        device: cpu only to see that the program runs.
    """
    small = Task(
        name="MLP 784-200-200-z50 tanh",
        network="mlp",
        hidden=(200, 200),
        latent_dim=50,
        activation="tanh",
        threads=None,
        laps=1,
        train_size=rows,
        validation_size=400,
        data_dir=folder,
        batch_size=128,
        device="cuda" if device == "cuda" else "cpu",
    )
    large = replace(small, name="MLP 784-512-512-z16 ReLU", hidden=(512, 512), latent_dim=16, activation="relu")
    conv = replace(large, name="conv 1x28x28 32-64-128-z16 ReLU", network="conv", hidden=(32, 64, 128))
    colour = replace(conv, name="conv 3x32x32 32-64-128-z64 ReLU", data="cifar10", latent_dim=64)
    accept_random_cifar10(colour)
    begin(small)
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)  # a Trainer for each model has much to say
    return {
        "epochs": epochs(small),
        "steps": [{"network": task.name, **steps(task)} for task in (small, large, conv, colour)],
        "replicas": [
            {"network": task.name, **replicas(task, numbers)} for task, numbers in ((small, REPLICAS), (conv, (4, 16)))
        ],
        "chunks": [{"network": task.name, **chunks(task)} for task in (small, colour)],
    }


# -- optimizer steps -----------------------------------------------------------------------------------


def steps(task: Task) -> Result:
    """Microseconds of a step, the share of them in which the GPU is busy, by engine."""
    found: Result = {}
    ways: dict[str, tuple[EngineMaker, bool, bool]] = {
        "launched by the host": (EagerEngine, False, False),
        "graph": (graph, False, False),
        "graph, bf16": (graph, False, True),
        "graph, compiled": (graph, True, False),
    }
    for name, (make, compiled, half) in ways.items():
        with told(found, name), precision(half):
            step, position, data = prepared(task, 0, compiled)
            engine = make(step, position)
            blocks = minibatches(data, task, 1)[0]
            found[name] = timed(lambda engine=engine, blocks=blocks: engine.run(blocks, 0), BLOCK)
    with told(found, "bare loop"):
        plain = PlainVAE(task).to(task.device)
        optimizer = torch.optim.Adam(plain.parameters(), lr=task.lr, fused=True)
        images = images_of(task)[0][: BLOCK * task.batch_size].to(task.device)
        found["bare loop"] = timed(lambda: train_epoch(plain, optimizer, images, task), BLOCK)
    return found


def replicas(task: Task, numbers: Sequence[int]) -> Result:
    """Microseconds of one step of each of N replicas: stacked, as a graph and without, and one after the other."""
    found: Result = {}
    with told(found, "one"):
        step, position, data = prepared(task, 0)
        alone, blocks = graph(step, position), minibatches(data, task, 1)[0]
        found["one"] = timed(lambda: alone.run(blocks, 0), BLOCK)
    for n in numbers:
        for way, make in (("stacked, graph", graph), ("stacked, launched by the host", EagerEngine)):
            with told(found, f"{n}, {way}"):
                release()
                prepare = [prepared(task, seed) for seed in range(n)]
                stacked = StackedSteps([p[0] for p in prepare], [p[1] for p in prepare], make)
                many = minibatches(prepare[0][2], task, n)
                found[f"{n}, {way}"] = timed(lambda s=stacked, b=many: s.run(b, [0] * len(b)), BLOCK)
    return found


def graph(step: AnyStep, position: AnyPosition) -> Engine:
    return GraphEngine(step, position, required=True) if torch.cuda.is_available() else EagerEngine(step, position)


def prepared(task: Task, seed: int, compiled: bool = False) -> tuple[Step, Position, ResidentDataModule]:
    """A model of the task on its device, ready to take steps."""
    model, data = built(task, seed)
    model.train()
    trainer = Trainer(
        accelerator=task.device, devices=1, logger=False, enable_checkpointing=False, enable_progress_bar=False
    )
    model.stepper = None
    trainer.strategy.optimizers = model.configure_optimizers()
    players = model.players()
    if compiled:
        rows = task.batch_size
        players = [replace(player, losses=CompiledLosses(player.losses, rows, required=True)) for player in players]
    direct = [DirectOptimization(trainer, place, player, None) for place, player in enumerate(players)]
    return Step(model, players, direct, data), Position(model, seed, 1_000_000, 0), data


def built(task: Task, seed: int) -> tuple[Model, ResidentDataModule]:
    torch.manual_seed(seed)
    config = compose("train", words(task, Path(task.data_dir))[1:]).config
    data = _data.setdefault(task.name, build_data(config))
    return build_model(config, data).to(task.device), data


_data: dict[str, ResidentDataModule] = {}


def minibatches(data: ResidentDataModule, task: Task, n: int) -> list[list[Tensor]]:
    """A block for each of N replicas."""
    order = torch.randperm(data.n_rows("train"), device=task.device)[: BLOCK * task.batch_size]
    return [list(order.roll(replica).split(task.batch_size)) for replica in range(n)]


def timed(run: Callable[[], object], n_steps: int) -> Result:
    """Of a function that takes so many steps: microseconds of one, the GPU's busy share, memory."""
    on_gpu = torch.cuda.is_available()
    for _ in range(3):
        run()
    seconds: list[float] = []
    for _ in range(BLOCKS):
        synchronize()
        start = time.perf_counter()
        run()
        synchronize()
        seconds.append(time.perf_counter() - start)
    result: Result = {"us": statistics.median(seconds) / n_steps * 1e6}
    if on_gpu:
        with profile(activities=[ProfilerActivity.CUDA]) as profiler:
            run()
            synchronize()
        kernels = [event for event in profiler.events() or () if event.device_type.name == "CUDA"]
        result["gpu_us"] = sum(event.time_range.elapsed_us() for event in kernels) / n_steps
        result["kernels"] = len(kernels) / n_steps
        result["memory"] = torch.cuda.max_memory_allocated()
        names: dict[str, float] = {}
        for event in kernels:
            names[event.name[:70]] = names.get(event.name[:70], 0.0) + event.time_range.elapsed_us() / n_steps
        result["longest"] = sorted(names.items(), key=lambda item: -item[1])[:8]
    return result


# -- epochs of the ordinary command --------------------------------------------------------------------


def epochs(task: Task) -> Result:
    """Seconds from one epoch's start to the next, validation, logs and checkpoints included; the first apart."""
    found: Result = {}
    ways = {
        "default": [],
        "cuda_graphs=false": ["trainer.cuda_graphs=false"],
        "bf16": ["trainer.precision=bf16-mixed"],
        "compile=true": ["trainer.compile=true"],
    }
    for name, more in ways.items() if task.device == "cuda" else [("default", ["trainer.max_epochs=2"])]:
        starts = _Starts()
        with told(found, name), tempfile.TemporaryDirectory() as folder, joined(starts):
            given = [*words(task, Path(folder)), f"trainer.max_epochs={EPOCHS}", *more]
            code = cli.main(list({word.partition("=")[0]: word for word in given}.values()))
            seconds = [b - a for a, b in pairwise(starts.times)]
            found[name] = {"exit": code, "first": seconds[0], "s": statistics.median(seconds[1:] or seconds)}
    return found


class _Starts(Callback):
    """When each epoch begins, and when the last has ended."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        synchronize()
        self.times.append(time.perf_counter())

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.on_train_epoch_start(trainer, pl_module)


# -- likelihoods ---------------------------------------------------------------------------------------


def chunks(task: Task) -> Result:
    """Images per second of the likelihood by 1,000 samples, and the memory, by samples at a time; batches of 100."""
    found: Result = {}
    model, data = built(task, 0)
    model.eval()
    where = torch.device(task.device, 0) if task.device == "cuda" else torch.device("cpu")
    n_images, n_samples = (1000, 1000) if task.device == "cuda" else (100, 10)
    suitable = evaluation.suitable_chunk(100 * math.prod(task.image), where)
    for chunk in sorted({*CHUNKS, suitable}):
        with told(found, str(chunk)):
            release()
            settings = Evaluation(n_samples, n_images, 100, chunk, checkpoint="last")
            for n in (100, n_images):  # the first warms up
                start = time.perf_counter()
                conditions = evaluation.Conditions("test", replace(settings, n_images=n), device=where)
                evaluation.evaluate_likelihood(model, data, conditions)  # pyright: ignore[reportArgumentType]
                seconds = time.perf_counter() - start
            memory = torch.cuda.max_memory_allocated() if task.device == "cuda" else 0
            found[str(chunk)] = {"images_per_second": n_images / seconds, "memory": memory}
    return {"suitable": suitable, "by_chunk": found}


# -- what all need -------------------------------------------------------------------------------------


@contextmanager
def told(found: Result, name: str) -> Iterator[None]:
    """What fails inside is told in its place."""
    try:
        yield
    except Exception as error:
        found[name] = {"error": f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"}
    sys.stderr.write(f"{name}: {found.get(name)}\n")


def precision(half: bool) -> Any:
    """Autocast as the stepper has it: without a cache of rounded weights."""
    if not half:
        return nullcontext()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.autocast(device, torch.bfloat16, cache_enabled=False)


def synchronize() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def release() -> None:
    """Free what is held no longer, and count the peak of the memory anew."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
