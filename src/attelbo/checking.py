"""Every key and value of a configuration against the signature of what it configures.

A node ``{"_target_": "package.Class", **arguments}`` is checked against the signature of ``Class``: an
unknown argument is an error, and each value must fit its annotation as strict JSON does (an int serves
for a float, a list for a sequence; the string ``0.00025d`` serves for no number). Nothing is built here;
ranges are the constructors' business.
"""

import dataclasses
import inspect
import json
import math
import re
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.errors import PydanticSchemaGenerationError, PydanticUndefinedAnnotation

from attelbo.building import arguments_of, locate, members, needed
from attelbo.errors import ConfigError, did_you_mean, nearest

Part = Annotated[Mapping[str, Any], "a node with _target_"]
"""In a schema: the value must be a part, that is, a mapping with ``_target_``."""


class Given(tuple[str, ...]):
    """In a schema, ``Annotated[Part, Given(["seed"])]``: the arguments that its owner gives the part; all others that
    it needs must stand in its node."""


Parts = Annotated[Mapping[str, Any], "named nodes with _target_, or null"]
"""In a schema: the values of the mapping must be parts or null; the names are free."""

GIVEN_TO_MODELS = ("data", "optimizer", "scheduler")
"""Arguments of a model that do not stand in its node: the description of the data, and nodes beside its own."""

_NEEDS_OBJECT = frozenset({"needs_python_object", "callable_type"})
"""Errors of pydantic for annotations that no JSON value can satisfy: such values are not checked here."""


class FaultError(Exception):
    """One wrong key or value: its name, what is wrong, the key that was probably meant, and all unknown keys of its
    node."""

    def __init__(self, key: str, problem: str, meant: str | None = None, unknown: Sequence[str] = ()) -> None:
        super().__init__(f"{key}: {problem}")
        self.key, self.problem, self.meant, self.unknown = key, problem, meant, unknown


@contextmanager
def naming(file: Path) -> Iterator[None]:
    """A context for what checks and builds the configuration of a run: errors name its file."""
    try:
        yield
    except (ConfigError, FaultError) as error:
        raise ConfigError(f"{error} [{file}]") from error


def check_node(
    node: Mapping[str, Any],
    key: str = "",
    schema: Callable[..., Any] | None = None,
    given: Collection[str] | None = None,
) -> None:
    """Check a node and all nodes inside it.

    Args:
        node: plain containers.
        key: the node's dotted name, empty for the root.
        schema: what a node without ``_target_`` is checked against; without one only nodes inside are checked.
        given: the arguments of one with ``_target_`` that its owner gives it. None: they are not known, and nothing is
            missing.

    Raises:
        FaultError: at the first wrong key or value.
    """
    if "_target_" in node:
        schema = _locate(node["_target_"], _join(key, "_target_"))
    parameters = arguments_of(schema) if schema is not None else None
    arguments = {name: value for name, value in node.items() if name != "_target_"}
    if parameters is not None and all(parameter.kind is not parameter.VAR_KEYWORD for parameter in parameters.values()):
        unknown = [_join(key, name) for name in arguments if name not in parameters]
        if unknown:  # before any value: importing what is named inside may take seconds
            raise _unknown(unknown[0], unknown[0].removeprefix(f"{key}."), key, parameters, unknown)
    if given is None and dataclasses.is_dataclass(schema):
        given = ()
    if parameters is not None and given is not None:
        missing = [name for name in needed(parameters) if name not in node and name not in given]
        if missing:
            raise FaultError(_join(key, missing[0]), "is missing, and nothing goes without it")
    for name, value in arguments.items():
        if parameters is not None and name in parameters:
            _check_value(value, _join(key, name), parameters[name].annotation)
        else:
            _check_inside(value, _join(key, name))


def _unknown(
    full: str, name: str, key: str, parameters: Mapping[str, inspect.Parameter], unknown: Sequence[str]
) -> FaultError:
    guess = nearest(name, parameters)
    if guess:
        return FaultError(full, "unknown key", _join(key, guess))
    return FaultError(full, f"unknown key; known here: {', '.join(parameters) or 'none'}", unknown=unknown)


def _locate(target: Any, key: str) -> Callable[..., Any]:
    if not isinstance(target, str):
        raise FaultError(key, f"expected the dotted name of a class or function, got {target!r}")
    try:
        found = locate(target)
    except ConfigError as error:
        module, _, name = target.rpartition(".")
        guess = nearest(name, vars(sys.modules[module])) if module in sys.modules else None
        meant = did_you_mean(guess if guess != name else None)  # what is there may not be allowed
        raise FaultError(key, f"{error}{meant}") from error
    if not callable(found):
        raise FaultError(key, f"{target} is not a class or function")
    return found


def _check_value(value: Any, key: str, annotation: Any) -> None:
    if dataclasses.is_dataclass(annotation) and isinstance(annotation, type):
        if not isinstance(value, Mapping):
            raise FaultError(key, f"expected a mapping, got {value!r}")
        return check_node(value, key, annotation)
    given = next((mark for mark in get_args(annotation) if isinstance(mark, Given)), None)
    if given is not None:
        _check_parts(value, key, one=True)
        return check_node(value, key, given=given)
    if annotation is Part or annotation is Parts:
        _check_parts(value, key, one=annotation is Part)
    else:
        _check_type(value, key, annotation)
    return _check_inside(value, key)


def _check_parts(value: Any, key: str, *, one: bool) -> None:
    if not isinstance(value, Mapping) or (one and "_target_" not in value):
        raise FaultError(key, f"expected {'a mapping with _target_' if one else 'named parts'}, got {value!r}")
    for name, part in () if one else value.items():
        if part is not None and not (isinstance(part, Mapping) and "_target_" in part):
            raise FaultError(_join(key, name), f"expected a mapping with _target_, or null, got {part!r}")


def _check_type(value: Any, key: str, annotation: Any) -> None:
    adapter = _adapter(annotation) if annotation is not inspect.Parameter.empty else None
    if adapter is None:
        return
    for number in value if isinstance(value, list) else [value]:
        if isinstance(number, int | float) and (problem := _out_of_range(number, annotation)):
            raise FaultError(key, problem)
    try:
        adapter.validate_json(json.dumps(value, default=str), strict=True)
    except ValidationError as error:
        if any(detail["type"] not in _NEEDS_OBJECT for detail in error.errors()):
            problem = f"expected {_readable(annotation)}, got {value!r}{_remedy(value, annotation)}"
            raise FaultError(key, problem) from error


_LARGEST, _SMALLEST = 3.4e38, 1.2e-38
"""Of single precision, in which a number beyond is infinite, or zero."""


def _out_of_range(number: int | float, annotation: Any) -> str | None:
    """What is wrong with a number that torch cannot hold; None where nothing is. NaN and infinity are the
    constructors' business."""
    whole = type(number) is int and float not in members(annotation)
    if (sys.maxsize if whole else _LARGEST) < abs(number) != math.inf:
        return "is too large a number"
    return "is too small a number: it is rounded to zero" if 0 < abs(number) < _SMALLEST else None


def _check_inside(value: Any, key: str) -> None:
    """Parts may stand anywhere inside a value."""
    if isinstance(value, Mapping):
        if "_target_" in value:
            check_node(value, key)
        else:
            for name, inner in value.items():
                _check_inside(inner, _join(key, name))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            _check_inside(inner, f"{key}[{index}]")


def _adapter(annotation: Any) -> TypeAdapter[Any] | None:
    try:
        return _adapter_of(annotation)
    except TypeError:  # the annotation cannot be hashed
        return _adapter_of.__wrapped__(annotation)


@lru_cache(maxsize=1024)
def _adapter_of(annotation: Any) -> TypeAdapter[Any] | None:
    try:
        return TypeAdapter(annotation, config=ConfigDict(arbitrary_types_allowed=True))
    except (PydanticSchemaGenerationError, PydanticUndefinedAnnotation, TypeError, NameError):
        return None  # an annotation that pydantic cannot read, or that has a configuration of its own


def _literals(annotation: Any) -> list[Any]:
    return [value for member in members(annotation) if get_origin(member) is Literal for value in get_args(member)]


def _readable(annotation: Any) -> str:
    """``int | None``, ``Sequence[int]``, ``'a' or 'b'``: without the names of modules."""

    def one(member: Any) -> str:
        if get_origin(member) is Literal:
            return " or ".join(map(repr, get_args(member)))
        if get_origin(member) is Annotated and (described := getattr(get_args(member)[1], "description", None)):
            return described
        return "null" if member is type(None) else re.sub(r"\b\w+\.", "", inspect.formatannotation(member))

    text = " or ".join(dict.fromkeys(map(one, members(annotation))))
    return text.replace(" or Tensor", "").replace(" | Tensor", "")  # torch's optimizers; no YAML value is a tensor


def _remedy(value: Any, annotation: Any) -> str:
    if isinstance(value, str) and value.startswith("[") and value.endswith("]"):
        return f"; a list is written without quotes around it: {value}"
    if isinstance(value, str | int | float) and {Sequence, list, tuple} & set(map(get_origin, members(annotation))):
        return f"; a list is written [{value}]"
    if isinstance(value, str):
        words = [literal for literal in _literals(annotation) if isinstance(literal, str)]
        return did_you_mean(nearest(value, [*words, *(("true", "false") if bool in members(annotation) else ())]))
    if str in members(annotation) and isinstance(value, int | float):
        return f"; quote it to make it a string: \"'{value}'\""
    return ""


def _join(key: str, name: Any) -> str:
    return f"{key}.{name}" if key else str(name)
