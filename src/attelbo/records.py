"""What the files of runs and sweeps hold, as far as it is read again, and a check of it: a file may have been edited by
hand, cut off, or written by something else."""

import reprlib
from collections.abc import Mapping
from datetime import datetime
from functools import cache
from types import UnionType
from typing import Any, Literal, NotRequired, TypedDict, Union, get_args, get_origin, get_type_hints, is_typeddict


class Status(TypedDict):
    """status.json"""

    state: str
    config_hash: NotRequired[str]
    started: NotRequired[datetime]
    ended: NotRequired[datetime]
    attempts: NotRequired[int]
    train_seconds: NotRequired[float]
    error: NotRequired[str]


class Result(TypedDict):
    """result.json and evaluation-<split>.json"""

    metrics: dict[str, float]
    seconds: dict[str, float]
    measures: NotRequired[list[tuple[str, str, str, int, str, Literal["more", "less", ""]]]]
    """Of each the fields of an ``attelbo.metrics.Measure``."""
    checkpoint: NotRequired[str]
    monitor: NotRequired[str | None]
    epochs: NotRequired[int]
    steps: NotRequired[int]
    parameters: NotRequired[int]
    samples_per_second: NotRequired[float]
    out_of_time: NotRequired[bool]
    stacked_with: NotRequired[list[str]]


class _Data(TypedDict):
    checksums: dict[str, str]


class _Git(TypedDict):
    sha: str
    diff: str


class _Hardware(TypedDict):
    cpu: str
    gpus: list[str]


class Provenance(TypedDict):
    """provenance.json"""

    data: _Data
    git: _Git | None
    versions: dict[str, str | None]
    hardware: _Hardware
    argv: NotRequired[list[str]]


class _Job(TypedDict):
    number: int
    hash: str
    words: list[str]


class _Search(TypedDict):
    metric: str
    direction: Literal["minimize", "maximize"]
    n_trials: int
    proposals: int
    parameters: dict[str, str]


class Sweep(TypedDict):
    """sweep.json"""

    jobs: list[_Job]
    search: NotRequired[_Search]


class Compared(TypedDict):
    """pruning.json"""

    metric: str
    direction: Literal["minimize", "maximize"]
    pruner: str
    warmup: int
    others: list[str]


class _Trainer(TypedDict):
    threads: NotRequired[int | None]


class _Paths(TypedDict):
    output_dir: str


class Configuration(TypedDict):
    """config.yaml, whose last lines are the paths"""

    name: str
    seed: int
    data: dict[str, Any]
    model: dict[str, Any]
    trainer: _Trainer
    optimizer: NotRequired[dict[str, Any]]
    scheduler: NotRequired[dict[str, Any]]
    tags: NotRequired[list[str]]
    ckpt: NotRequired[str | None]
    init: NotRequired[dict[str, Any]]
    logger: NotRequired[dict[str, dict[str, Any] | None]]
    paths: _Paths


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

_WORDS: Mapping[Any, str] = {
    **{str: "a text", int: "a whole number", float: "a number", bool: "true or false", dict: "a mapping"},
    **{list: "a list", type(None): "null", datetime: "a time"},
}


def misfit(name: str, content: Any) -> str | None:
    """The first thing in the content of the file with this name that is not as it must be, in words; None where all is.
    A file with a name that is not known here must have a mapping at the top."""
    kind = Result if name.startswith("evaluation-") else _FILES.get(name, dict[Any, Any])
    return _misfit(content, kind, "")


def _misfit(value: Any, kind: Any, key: str) -> str | None:
    origin, inside = get_origin(kind), get_args(kind)
    if is_typeddict(kind) and isinstance(value, dict):
        hints = _hints(kind)
        if missing := [name for name in hints if name in kind.__required_keys__ and name not in value]:
            return f"its {_join(key, missing[0])} is missing"
        parts = [(name, value[name], of) for name, of in hints.items() if name in value]
    elif origin is dict and isinstance(value, dict):
        parts = [(name, part, inside[1]) for name, part in value.items()]
    elif origin is list and isinstance(value, list):
        parts = [(place, part, inside[0]) for place, part in enumerate(value)]
    elif origin is tuple and isinstance(value, list) and len(value) == len(inside):
        parts = [(place, *pair) for place, pair in enumerate(zip(value, inside, strict=True))]
    elif origin in (Union, UnionType):
        told = [_misfit(value, each, key) for each in inside]
        return None if None in told else told[0]
    elif _fits(value, kind):
        return None
    else:
        told = f"its {key} must be {_expected(kind)}" if key else f"{_expected(kind)} is expected at the top"
        return f"{told}, got {reprlib.repr(value)}"
    return next((told for name, part, of in parts if (told := _misfit(part, of, _join(key, name)))), None)


def _fits(value: Any, kind: Any) -> bool:
    """Whether a value is of a kind that has no parts."""
    if kind is Any:
        return True
    if get_origin(kind) is Literal:
        return value in get_args(kind)
    if kind in (int, float):
        number = isinstance(value, int if kind is int else int | float) and not isinstance(value, bool)
        return number and (isinstance(value, float) or abs(value) < 2**63)
    if kind is datetime:
        return isinstance(value, str) and _is_time(value)
    return isinstance(kind, type) and not is_typeddict(kind) and isinstance(value, kind)


def _is_time(value: str) -> bool:
    try:
        datetime.fromisoformat(value)
    except ValueError:
        return False
    return True


def _expected(kind: Any) -> str:
    inside = get_args(kind)
    if get_origin(kind) is Literal:
        return " or ".join(map(repr, inside))
    if get_origin(kind) is tuple:
        return f"a list of {len(inside)}"
    return _WORDS[dict if is_typeddict(kind) else get_origin(kind) or kind]


def _join(key: str, name: Any) -> str:
    return f"{key}.{name}" if key else str(name)


@cache
def _hints(kind: Any) -> Mapping[str, Any]:
    return get_type_hints(kind)
