"""What is read again from the files of runs and sweeps, and a check of it: a file may have been edited by hand, cut
off, or written by another program. What has a default here may be missing."""

import json
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter, ValidationError

State = Literal["pending", "running", "done", "pruned", "failed", "interrupted"]
"""Of a run."""

_Digits = Annotated[int, Field(ge=0, le=20)]


@dataclass
class Status:
    """status.json"""

    state: State
    config_hash: str = ""
    started: datetime = datetime.min
    ended: datetime = datetime.min
    attempts: int = 1
    train_seconds: float = 0.0
    error: str = ""


@dataclass
class Result:
    """result.json and evaluation-<split>.json"""

    metrics: dict[str, float]
    seconds: dict[str, float]
    measures: list[tuple[str, str, str, _Digits, str, Literal["more", "less", ""]]] = field(default_factory=list)
    """Of each the fields of an ``attelbo.metrics.Measure``."""
    checkpoint: str = ""
    monitor: str | None = None
    epochs: int = 0
    steps: int = 0
    parameters: int = 0
    samples_per_second: float = 0.0
    tokens_per_second: float = 0.0
    nll_samples: int = 0
    out_of_time: bool = False
    stacked_with: list[str] = field(default_factory=list)


@dataclass
class _Data:
    checksums: dict[str, str]


@dataclass
class _Git:
    sha: str
    diff: str


@dataclass
class _Hardware:
    cpu: str
    gpus: list[str]


@dataclass
class Provenance:
    """provenance.json"""

    data: _Data
    git: _Git | None
    versions: dict[str, str | None]
    hardware: _Hardware
    argv: list[str] = field(default_factory=list)


@dataclass
class _Job:
    number: int
    hash: str
    words: list[str]


@dataclass
class _Search:
    metric: str
    direction: Literal["minimize", "maximize"]
    n_trials: int
    proposals: int
    parameters: dict[str, str]


@dataclass
class Sweep:
    """sweep.json"""

    jobs: list[_Job]
    search: _Search | None = None


@dataclass
class Compared:
    """pruning.json"""

    metric: str
    direction: Literal["minimize", "maximize"]
    pruner: str
    warmup: Annotated[int, Field(ge=0)]
    others: list[str]


@dataclass
class _Part:
    target: Annotated[str, Field(alias="_target_")]


@dataclass
class _Trainer:
    threads: Annotated[int, Field(ge=1, lt=2**31)] | None


@dataclass
class _Paths:
    output_dir: str


@dataclass
class Configuration:
    """config.yaml"""

    name: str
    seed: int
    tags: list[str]
    data: _Part
    model: _Part
    optimizer: _Part
    scheduler: _Part
    trainer: _Trainer
    logger: dict[str, _Part | None]
    paths: _Paths
    """The last lines of the file: one that is cut off lacks them."""
    ckpt: str | None = None
    init: dict[str, Any] = field(default_factory=dict)


_FILES: Mapping[str, Any] = {
    "status.json": Status,
    "result.json": Result,
    "provenance.json": Provenance,
    "sweep.json": Sweep,
    "pruning.json": Compared,
    "config.yaml": Configuration,
    "choices.yaml": dict[str, str | None],
    "overrides.yaml": list[str],
}


def misfit(name: str, content: Any) -> str | None:
    """The first fault in the content of the file with this name, in words; None if there is none. A file whose name is
    not known here must have a mapping at the top."""
    kind = Result if name.startswith("evaluation-") else _FILES.get(name, dict[Any, Any])
    try:
        # As JSON, in which times are texts and tuples are lists; strictly: "3" is no number, and true is none.
        _reader(kind).validate_json(json.dumps(content, default=str), strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        key, found = ".".join(map(str, first["loc"])), reprlib.repr(first["input"])
        if first["type"] == "missing":
            return f"its {key} is missing"
        wanted = first["msg"].removeprefix("Input should be ").replace("an object", "a mapping")  # as YAML calls it
        return f"its {key} must be {wanted}, got {found}" if key else f"{wanted} is expected at the top"
    return None


@cache
def _reader(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)
