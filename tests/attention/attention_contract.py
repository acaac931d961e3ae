"""What the tables of attention share: its parts, as the configuration files name them. A new file is in every table."""

from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf
from torch import Tensor, nn

from attelbo.attention import KERNELS, KernelName
from attelbo.building import part

CONF = Path(__file__).parents[2] / "conf" / "model"

TRAINABLE: list[KernelName] = [name for name in KERNELS if name != "flex"]
"""Kernels that have a backward pass on a CPU."""

HEADS, HEAD_DIM, MAX_LENGTH = 4, 4, 16


def names(group: str) -> list[str]:
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


@cache
def _file(group: str, name: str) -> dict[str, Any]:
    node = OmegaConf.to_container(OmegaConf.load(CONF / group / f"{name}.yaml"))
    assert isinstance(node, dict)
    return {str(key): value for key, value in node.items()}


def build_part(group: str, name: str, **offered: Any) -> Any:
    """The part as its file describes it, in float64, with parameters away from their initialization."""
    given = {"dim": HEADS * HEAD_DIM, "heads": HEADS, "head_dim": HEAD_DIM, "max_length": MAX_LENGTH, **offered}
    made = part(group, deepcopy(_file(group, name)), **given)
    return randomize(made.double()) if isinstance(made, nn.Module) else made


def randomize(module: nn.Module) -> nn.Module:
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(std=0.5)
    return module


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
