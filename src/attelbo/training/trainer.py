"""The Lightning Trainer of a run, from the nodes of ``conf/trainer`` and ``conf/callbacks``."""

import logging
import math
import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import Checkpoint, ProgressBar
from lightning.pytorch.loggers import Logger

from attelbo.building import Spec, build
from attelbo.errors import ConfigError, one_line
from attelbo.training.callbacks import Progress
from attelbo.training.checkpoint import AtomicCheckpointIO
from attelbo.training.interruption import Interruption
from attelbo.training.optimization import is_alone
from attelbo.training.replicas import Seat
from attelbo.training.stepping import BlockStepper, Switch
from attelbo.training.threads import Threads, use_threads
from attelbo.training.time_limit import TimeLimit, seconds_of

Precision = Literal["32-true", "bf16-mixed", "16-mixed"]
"""Weights stay in float32, as the data and every evaluation do; mixed precision rounds inside the step."""


def build_trainer(
    run_dir: Path,
    seed: int,
    callbacks: Mapping[str, Spec | None],
    max_epochs: int,
    accelerator: str,
    threads: Threads,
    compile: Switch,
    replicas: int,
    stack: Switch,
    max_steps: int = -1,
    max_time: str | None = None,
    steps_per_epoch: int | None = None,
    devices: int | Sequence[int] | Literal["auto"] = 1,
    num_nodes: int = 1,
    strategy: str = "auto",
    precision: Precision = "32-true",
    clip_norm: float | None = None,
    micro_batches: int = 1,
    log_every_n_steps: int = 50,
    check_val_every_n_epoch: int = 1,
    limit_train_blocks: int | None = None,
    limit_val_batches: int | None = None,
    deterministic: bool = False,
    profiler: Literal["simple", "advanced", "pytorch"] | None = None,
    cuda_graphs: Switch = "auto",
    seat: Seat | None = None,
) -> Trainer:
    """A Trainer that trains in blocks of minibatches and keeps everything in the run directory; :func:`attach_run`
    gives it its loggers.

    Args:
        run_dir: where checkpoints and media go.
        seed: the run's seed.
        callbacks: nodes by name, built here; those that are null are left out.
        max_epochs: passes over the training rows, or epochs of ``steps_per_epoch``; -1: no limit but ``max_steps``.
        max_steps: optimizer steps; -1: no limit but ``max_epochs``.
        max_time: the time that training may take, "DD:HH:MM:SS"; no limit if None. See ``attelbo.training.time_limit``.
        steps_per_epoch: optimizer steps in an epoch, which ends with validation and checkpoint; a pass over the rows if
            None. Not used here, but by the data (:attr:`~attelbo.data.ResidentDataModule.steps_per_epoch`).
        accelerator: as in Lightning: auto, cpu, gpu, ...
        devices: how many, or which.
        num_nodes: machines.
        strategy: as in Lightning: auto, ddp, ...; none that shards parameters.
        precision: as in Lightning; weights are in float32 in all of them.
        clip_norm: largest norm of the gradient.
        micro_batches: parts that a minibatch is split into to save memory; what looks at it as a whole sees a part.
        log_every_n_steps: optimizer steps between two logged lines; at most one is written for a block.
        check_val_every_n_epoch: epochs between two validations.
        limit_train_blocks: blocks in an epoch, to debug.
        limit_val_batches: minibatches in a validation, to debug.
        deterministic: refuse operations that have no deterministic implementation.
        profiler: as in Lightning.
        threads: CPU threads of torch; its own choice if None, left as they are if auto: the caller, who has model and
            data, measures their number (``attelbo.training.threads``).
        compile: put the model's losses through torch.compile; auto: where it was measured to pay.
        cuda_graphs: replay each optimizer step as a CUDA graph; auto: on one GPU, where the model allows it.
        replicas: runs that share a process: see ``attelbo.experiments.replicas``.
        stack: compute the steps of replicas as one stacked model, not compiled; auto: where it pays and they allow it.
            Not used here, but by those who share the process.
        seat: the run's place among replicas, if it is one; of other progress bars than ours only one is shown.

    Raises:
        ConfigError: settings that contradict this machine; :func:`check_settings` is for all others.
    """
    if precision.startswith("bf16") and not bf16_is_fast(accelerator):
        raise ConfigError(
            f"trainer.precision={precision}: this CPU has no bf16 arithmetic and would take about ten times as long; "
            "use trainer.precision=32-true or a GPU"
        )
    _quiet()
    if threads != "auto":
        use_threads(threads)
    chosen = _built(callbacks, seat)
    stepper = BlockStepper(seed, log_every_n_steps, micro_batches, clip_norm, compile, cuda_graphs, seat)
    limits = [] if max_time is None else [TimeLimit(seconds_of(max_time))]
    try:
        trainer = Trainer(
            accelerator=accelerator,
            devices=devices,  # pyright: ignore[reportArgumentType] - a Sequence is as good as a list
            num_nodes=num_nodes,
            strategy=strategy,
            precision=precision,
            max_epochs=max_epochs,
            max_steps=max_steps,
            check_val_every_n_epoch=check_val_every_n_epoch,
            limit_train_batches=limit_train_blocks,
            limit_val_batches=limit_val_batches,
            log_every_n_steps=1,  # the stepper writes train/* itself, at its own interval
            num_sanity_val_steps=0,
            deterministic=deterministic,
            profiler=profiler,
            logger=False,
            callbacks=[stepper, *chosen, Interruption(), *limits],
            default_root_dir=run_dir,
            plugins=[AtomicCheckpointIO()],
            enable_progress_bar=any(isinstance(callback, ProgressBar) for callback in chosen),
            enable_checkpointing=any(isinstance(callback, Checkpoint) for callback in chosen),
            enable_model_summary=False,
            use_distributed_sampler=False,  # the loader shards its own order
        )
    except (ValueError, TypeError, MisconfigurationException) as error:
        raise ConfigError(
            f"trainer: {one_line(error)} "
            f"[accelerator={accelerator}, devices={devices}, strategy={strategy}, precision={precision}; "
            "trainer=default takes what this machine has]"
        ) from error
    if replicas > 1 and not is_alone(trainer):
        raise ConfigError("trainer.replicas: replicas share one device, in 32-true or bf16 precision: trainer=default")
    return trainer


def _built(nodes: Mapping[str, Spec | None], seat: Seat | None) -> list[Callback]:
    """The callbacks of these nodes; of replicas each knows its seat, and only the first has other bars than ours."""
    callbacks: list[Callback] = [build(node) for node in nodes.values() if node is not None]
    for each in callbacks:
        if seat is not None and isinstance(each, Progress):
            each.seat, each.clock = seat, seat.clock
    if seat is None or seat.place == 0:
        return callbacks
    return [each for each in callbacks if isinstance(each, Progress) or not isinstance(each, ProgressBar)]


def check_settings(
    max_epochs: int, max_steps: int = -1, strategy: str = "auto", clip_norm: float | None = None, **others: Any
) -> None:
    """Check those arguments of :func:`build_trainer` that do not depend on the machine.

    Raises:
        ConfigError: one is out of range.
    """
    for name in _AT_LEAST_ONE:
        if isinstance(number := others.get(name), int) and number < 1:
            raise ConfigError(f"trainer.{name} must be at least 1, got {number}")
    if isinstance(threads := others.get("threads"), int) and threads > _MOST_THREADS:
        raise ConfigError(f"trainer.threads must be at most {_MOST_THREADS:,}, got {threads:,}; auto measures it")
    for name, limit in (("max_epochs", max_epochs), ("max_steps", max_steps)):
        if limit < 1 and limit != -1:
            raise ConfigError(f"trainer.{name} must be at least 1, got {limit}; -1 is no limit")
    if max_epochs == max_steps == -1:
        raise ConfigError("trainer.max_epochs or trainer.max_steps must be at least 1: the training needs an end")
    if (max_time := others.get("max_time")) is not None:
        seconds_of(max_time)
        if others.get("replicas", 1) > 1:
            raise ConfigError("trainer.max_time: replicas take their steps together, and each has a time of its own")
    if clip_norm is not None and not 0 < clip_norm < math.inf:
        raise ConfigError(f"trainer.clip_norm must be above 0 and finite, got {clip_norm}; null clips nothing")
    if others.get("stack") is True and others.get("compile") is True:
        raise ConfigError(
            "trainer.stack=true: a stacked model is not compiled; trainer.stack=auto compiles each replica, "
            "trainer.compile=auto stacks them"
        )
    if strategy.startswith(("fsdp", "deepspeed")):
        raise ConfigError(
            f"trainer.strategy={strategy}: sharded parameters allow no backward pass inside of training_step, where "
            "blocks take their steps; trainer=ddp shares the rows among GPUs"
        )


_AT_LEAST_ONE = (
    *("micro_batches", "log_every_n_steps", "check_val_every_n_epoch", "steps_per_epoch"),
    *("limit_train_blocks", "limit_val_batches", "threads", "replicas"),
)

_MOST_THREADS = 1024
"""More than any machine has; OpenMP ends the process where it is asked for a million."""


def attach_run(trainer: Trainer, run_dir: Path, loggers: Sequence[Logger] = ()) -> Trainer:
    """Give a Trainer the run's directory and loggers, which are made only once it is known that it can be built."""
    trainer._default_root_dir = str(run_dir)  # pyright: ignore[reportAttributeAccessIssue] - it has no setter
    trainer.loggers = list(loggers)
    return trainer


def bf16_is_fast(accelerator: str) -> bool:
    """Whether products in bfloat16 take less time there than in float32; CPUs without such arithmetic emulate it."""
    on_cpu = accelerator == "cpu" or (accelerator == "auto" and not torch.cuda.is_available())
    return not on_cpu or torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def _quiet() -> None:
    """Fewer messages from Lightning, and no needless query of the driver at every optimizer step."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    logging.getLogger("lightning.fabric").setLevel(logging.WARNING)
    logging.getLogger("lightning.pytorch.profilers").setLevel(logging.INFO)  # the table that was asked for
    # On a machine with srun on the PATH Lightning advises to use it in every run that does not.
    warnings.filterwarnings("ignore", ".*srun.*")
    warnings.filterwarnings("ignore", ".*LeafSpec.*")  # between Lightning 2.6 and torch 2.15
    warnings.filterwarnings("ignore", ".*AccumulateGrad node's stream.*")  # the same, about DistributedDataParallel
    warnings.filterwarnings("ignore", ".*GPU available but not used.*")  # accelerator=cpu is a choice
    warnings.filterwarnings("ignore", ".*in eval mode at the start of training.*")  # frozen parts are
    if not torch.cuda.is_available():
        # Lightning sets this when imported; each optimizer step would then ask NVML for devices, 0.2 ms a step.
        os.environ.pop("PYTORCH_NVML_BASED_CUDA_CHECK", None)
