"""Losses through ``torch.compile``: when it pays, whether it works on this machine, and with which settings.

What is compiled is the whole of a model's ``losses``, forward and backward, as one static graph: likelihood and
objective are fused with the network's last layer, which compiling encoder and decoder alone cannot. Noise comes from
torch's own generators (``fallback_random``), so that a compiled step computes the eager step's numbers up to rounding.
The measurements are in ``benchmarks/NOTES.md``.
"""

import contextlib
import importlib.util
import inspect
import logging
import math
import os
import shutil
import sys
import sysconfig
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch._dynamo.exc import FailOnRecompileLimitHit, TorchDynamoException
from torch._functorch import config as functorch_config
from torch.nn.modules.conv import _ConvNd

from attelbo.attention import AttentionLayer
from attelbo.data.batch import Batch
from attelbo.errors import ConfigError, first_line
from attelbo.latent import DiscretizedLogistic
from attelbo.models.base import Terms

Losses = Callable[[Batch], Terms]

STEPS_TO_PAY = 20_000
"""Optimizer steps after which compiling has surely paid: 6,000 to 14,000 were measured, with an empty cache."""

LONG = 100_000
"""The same where a step is shorter or gains less: 30,000 were measured on a CPU, fully connected, and 70,000 on a
GPU."""

GAINS = (AttentionLayer, DiscretizedLogistic)
"""Much arithmetic between matrix products and convolutions, which is fused: 1.1 to 1.3 times as fast on a CPU."""
NO_GAIN = (_ConvNd, nn.RNNBase, nn.RNNCellBase)
"""They take nearly all of the time, and stay torch's own kernels: 0.97 to 1.02 times as fast on a CPU."""
LOSES = nn.GroupNorm
"""torch's own kernel is faster than what the compiler makes of it: 0.92 to 0.94 times as fast on a CPU."""

_HAS_ISOLATION = "isolate_recompiles" in inspect.signature(torch.compile).parameters
_ONE_GRAPH: dict[str, Any] = {"isolate_recompiles": True, "recompile_limit": 1} if _HAS_ISOLATION else {}
"""One graph for each model, even if an earlier model in this process had the same code. torch 2.11 counts them
together: after eight graphs, losses are computed without compiling."""


def steps_to_pay(model: nn.Module, device: torch.device) -> float:
    """Optimizer steps from which on a training ends sooner if its losses are compiled; infinite where it never does.

    On a CPU this depends on what lies between the products: fully connected networks gain a tenth (1.10 to 1.14 with
    minibatches of 100), which is slow to pay for half a minute of processor time. On a GPU replayed CUDA graphs take
    away what launching costs; half as many kernels are still 1.3 to 1.5 times as fast.
    """

    def has(kinds: type | tuple[type, ...]) -> bool:
        return any(isinstance(module, kinds) for module in model.modules())

    if has(LOSES):
        return math.inf
    if device.type != "cpu":
        return LONG
    if has(GAINS):
        return STEPS_TO_PAY
    return math.inf if has(NO_GAIN) else LONG


def compiler_missing(device: torch.device) -> str | None:
    """What ``torch.compile`` needs for the device and is not there; None if it can be tried."""
    if device.type != "cpu":
        return None if importlib.util.find_spec("triton") else "Triton is not installed"
    name = os.environ.get("CXX") or ("clang++" if sys.platform == "darwin" else "g++")
    if not shutil.which(name):
        return f"there is no C++ compiler {name}"
    header = Path(sysconfig.get_path("include")) / "Python.h"
    return None if header.is_file() else f"Python's own header is missing: {header}"


class CompiledLosses:
    """The same losses as one static graph, compiled when the first batch of ``rows`` comes.

    There is never a second graph: batches of another size, such as the short one at the end of an epoch, are computed
    eagerly, and so is everything else that does not fit the graph.

    Args:
        losses: of a model, or of one of its players.
        rows: of a whole batch; the first to come may be a shorter one, where a run is resumed at the end of an epoch.
        required: whether it is an error, at the first call, that they cannot be compiled; otherwise a line says so, and
            they are computed eagerly.
    """

    def __init__(self, losses: Losses, rows: int, *, required: bool) -> None:
        self.losses = losses
        self.rows = rows
        self.required = required
        self.graph: Losses | None = None

    def __call__(self, batch: Batch) -> Terms:
        if len(batch.x) != self.rows:
            return self.losses(batch)
        if self.graph is None:
            return self._compile(batch)
        try:
            return self.graph(batch)
        except FailOnRecompileLimitHit:
            return self.losses(batch)

    def _compile(self, batch: Batch) -> Terms:
        sys.stderr.write("the losses are compiled, once, before the first step: half a minute or more\n")
        compile: Any = torch.compile  # whose annotations lack some of its arguments
        self.graph = graph = compile(
            self.losses,
            fullgraph=True,
            dynamic=False,
            options={"fallback_random": True},
            **_ONE_GRAPH,
        )
        try:
            # Forward and backward at once: later, a failure would come in the middle of a step.
            with _quiet(), functorch_config.patch(force_non_lazy_backward_lowering=True):
                return graph(batch)
        except TorchDynamoException as error:
            reason = first_line(error)
            if self.required:
                raise ConfigError(
                    f"trainer.compile=true: this model cannot be compiled here: {reason}; trainer.compile=false runs it"
                ) from error
            sys.stderr.write(f"trainer.compile=auto: not compiled: {reason}\n")
            self.graph = self.losses
            return self.losses(batch)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence what torch says about the machine while it compiles, such as that there is no GPU."""
    logger = logging.getLogger("torch.utils.cpp_extension")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
