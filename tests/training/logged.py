"""A run that loggers are told of, and what it shows."""

from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch.loggers import Logger

from attelbo.training.loggers import RunInfo, build_loggers

CSV = {"_target_": "attelbo.training.loggers.CsvLogger"}
TENSORBOARD = {"_target_": "attelbo.training.loggers.TensorBoard"}
WANDB = {"_target_": "attelbo.training.loggers.WeightsAndBiases", "project": "attelbo", "entity": None}
CONFIG = {"seed": 0, "model": {"latent_dim": 4, "widths": [8, 16], "bias": True}, "ckpt": None, "name": "tiny"}
PICTURE = np.random.Generator(np.random.PCG64(1)).integers(0, 256, (20, 30, 3), dtype=np.uint8)
RESULT = {
    "metrics": {"test/elbo": -1.5, "test/nll": 1.25},
    "measures": [["nll", "NLL", "nats", None]],
    "checkpoint": "best",
    "monitor": None,
    "steps": 7,
    "seconds": {"train": 2.0, "evaluate": 0.5},
    "classifier": {"accuracy": 0.9, "folder": "classifiers/digits"},
}
NUMBERS = {
    **{"test/elbo": -1.5, "test/nll": 1.25, "checkpoint": "best", "steps": 7},
    **{"seconds/train": 2.0, "seconds/evaluate": 0.5},
    **{"classifier/accuracy": 0.9, "classifier/folder": "classifiers/digits"},
}
"""Of the result, as a dashboard has them."""


def run_info(folder: Path, run_id: str = "abc123", **changed: Any) -> RunInfo:
    return RunInfo(folder, "tiny", run_id, "sweep-1", "train", ("v0.1.0",), {**CONFIG, **changed})


def loggers_for(folder: Path, **nodes: Any) -> list[Logger]:
    return build_loggers(nodes, run_info(folder))
