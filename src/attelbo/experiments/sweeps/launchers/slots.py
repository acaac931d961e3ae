"""Slots for jobs on one machine: how many at a time, and which GPUs and how many threads each may use."""

import os
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from attelbo.errors import ConfigError

Slot = Mapping[str, str]
"""The environment variables of a job that runs in it."""


def slots(n_jobs: int | None, gpus: int, devices: Sequence[str], cores: int) -> list[Slot]:
    """Slots for ``n_jobs`` jobs.

    Args:
        n_jobs: None: one for each ``gpus`` devices, or for each core where there is no device.
        gpus: devices of each job; where there are not enough for all jobs, devices are shared, in turn.
        devices: names of GPUs, as in CUDA_VISIBLE_DEVICES.
        cores: shared evenly, at least one thread each.

    Raises:
        ConfigError: there are fewer devices than one job needs.
    """
    if devices and gpus > len(devices):
        raise ConfigError(f"hydra.launcher.gpus={gpus}: this machine has {len(devices)}")
    n = n_jobs or (len(devices) // gpus if devices and gpus else cores)
    threads = {"OMP_NUM_THREADS": str(max(1, cores // n))}
    if not devices:
        return [threads] * n
    taken = [[devices[(job * gpus + k) % len(devices)] for k in range(gpus)] for job in range(n)]
    return [{**threads, "CUDA_VISIBLE_DEVICES": ",".join(names)} for names in taken]


def slots_here(n_jobs: int | None, gpus: int, total: int, config: Mapping[str, Any]) -> list[Slot]:
    """Slots on this machine for the jobs of a sweep.

    Args:
        n_jobs: jobs at a time; None: one for each GPU, or for each core.
        gpus: GPUs of each job.
        total: jobs of the sweep; they share the cores if they are fewer.
        config: what they have in common.

    Raises:
        ConfigError: there are fewer devices than one job needs.
    """
    found = [] if config["trainer"]["accelerator"] == "cpu" else devices()
    n = len(slots(n_jobs, gpus, found, cores()))
    return slots(min(n, total), gpus, found, cores())


def devices() -> list[str]:
    """The GPUs that this process may use."""
    import torch

    n = torch.cuda.device_count()
    named = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    return (named or [str(device) for device in range(n)])[:n]


def cores() -> int:
    """Physical cores that this process may use."""
    from joblib import cpu_count

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # where they cannot be told from logical ones
        return cpu_count(only_physical_cores=True)
