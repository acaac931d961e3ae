"""From a configuration node to an object: ``{"_target_": "package.Class", **arguments}``.

The one place where a name in a YAML file becomes code. Only names inside the allowed packages are imported:
``PACKAGES`` and those that the user, never a file, lists in ``$ATTELBO_PACKAGES``. Nested nodes are passed on as they
are: their owner builds them, with the shapes that only it knows.
"""

import importlib
import inspect
import os
import traceback
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from types import UnionType
from typing import Any, ClassVar, NotRequired, Union, Unpack, get_args, get_origin, get_type_hints

from attelbo.errors import ConfigError

PACKAGES = ("attelbo", "torch", "torchvision", "lightning", "torchmetrics")
OWN = "ATTELBO_PACKAGES"
"""The environment variable that allows packages of the user's own, separated by commas."""

KINDS = {
    "encoder": "attelbo.networks.Encoder",
    "decoder": "attelbo.networks.Decoder",
    "posterior": "attelbo.latent.Posterior",
    "prior": "attelbo.latent.Prior",
    "likelihood": "attelbo.latent.Likelihood",
    "objective": "attelbo.latent.Objective",
    "position": "attelbo.attention.Position",
    "score": "attelbo.attention.Score",
    "normalizer": "attelbo.attention.Normalizer",
    "mask": "attelbo.attention.Mask",
}
"""Parts of a model, and what they must be."""

Spec = Mapping[str, Any]
"""A configuration node: ``_target_`` and the arguments for it, as plain containers."""


def locate(target: str) -> Callable[..., Any]:
    """The class or function that a dotted name stands for.

    Raises:
        ConfigError: outside the allowed packages, no such name, or a module with a syntax error.
    """
    if not isinstance(target, str):
        raise ConfigError(f"_target_ must be the dotted name of a class or function, got {target!r}")
    package = target.partition(".")[0]
    own = [*filter(None, map(str.strip, os.environ.get(OWN, "").split(",")))]
    allowed = (*PACKAGES, *own)
    if package not in allowed:
        raise ConfigError(
            f"_target_ '{target}' is outside the allowed packages: {', '.join(allowed)}; "
            f"{OWN}={','.join([*own, package])} allows it too"
        )
    module, _, name = target.rpartition(".")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError, SyntaxError) as error:
        raise ConfigError(f"_target_ '{target}' cannot be imported: {error}") from error


@lru_cache(maxsize=256)
def arguments_of(target: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    """The arguments of a class or function by name, annotations evaluated where that is possible.

    ``**options: Unpack[Options]`` (PEP 692) stands for the keys of the TypedDict ``Options``. The default of a key that
    may be left out is the one in the constructor that gets it, that of the class which ``target`` derives from; ``...``
    if there is none of that name.
    """
    try:
        arguments = dict(inspect.signature(target, eval_str=True).parameters)
    except (NameError, TypeError, AttributeError):  # a name imported for type checkers only
        arguments = dict(inspect.signature(target).parameters)
    last = next(reversed(arguments.values()), None)
    if last is not None and last.kind is last.VAR_KEYWORD and get_origin(last.annotation) is Unpack:
        del arguments[last.name]
        (options,) = get_args(last.annotation)
        inherited = arguments_of(_base(target)) if isinstance(target, type) else {}
        for name, annotation in get_type_hints(options, include_extras=True).items():
            if get_origin(annotation) is NotRequired:
                (annotation,) = get_args(annotation)
            default = inherited[name].default if name in inherited else ...
            if name in options.__required_keys__:
                default = last.empty
            arguments[name] = inspect.Parameter(name, last.KEYWORD_ONLY, default=default, annotation=annotation)
    return arguments


def _base(kind: type) -> type:
    """The class whose constructor is called by that of ``kind``."""
    owners = [base for base in kind.__mro__ if "__init__" in vars(base)]
    return owners[1]


def members(annotation: Any) -> Iterable[Any]:
    """The annotation's members, if it is a union; else itself."""
    if get_origin(annotation) in (Union, UnionType):
        for member in get_args(annotation):
            yield from members(member)
    else:
        yield annotation


def build(spec: Spec, *positional: Any, **given: Any) -> Any:
    """Call what ``spec["_target_"]`` names with the node's arguments and those ``given`` by the owner. A whole number
    in the node is given as a float where the argument is declared as one.

    Raises:
        ConfigError: no ``_target_``, one that is not allowed, an argument that the owner supplies, or a number that no
            float holds.
    """
    arguments = {key: value for key, value in spec.items() if key != "_target_"}
    if "_target_" not in spec:
        raise ConfigError(f"a part without _target_: {arguments}; choose one with <group>=...")
    if taken := sorted(arguments.keys() & given.keys()):
        raise ConfigError(f"{taken[0]} cannot be set here: {spec['_target_']} is given it by its surroundings")
    target = locate(spec["_target_"])
    return target(*positional, **_as_declared(arguments, target), **given)


def _as_declared(arguments: Mapping[str, Any], target: Callable[..., Any]) -> dict[str, Any]:
    """The arguments, with floats for whole numbers where floats are declared: the YAML ``2`` is an int, of which
    torch makes tensors of integers."""
    declared = dict(arguments)
    for name in [name for name, value in arguments.items() if type(value) is int]:
        parameter = arguments_of(target).get(name)
        kinds = set() if parameter is None else set(members(parameter.annotation))
        if float in kinds and int not in kinds:
            try:
                declared[name] = float(arguments[name])
            except OverflowError as error:
                raise ConfigError(f"{name} is too large a number [{target.__qualname__}]") from error
    return declared


def locate_part(name: str, spec: Spec) -> Callable[..., Any]:
    """What the node of a part of a model names.

    Raises:
        ConfigError: no ``_target_``, or one that is not allowed.
    """
    if "_target_" not in spec:
        raise ConfigError(f"model.{name}._target_: its file names no class, only {dict(spec)}; add _target_ to it")
    return locate(spec["_target_"])


def part(name: str, spec: Spec, **offered: Any) -> Any:
    """Build a part of a model; of the arguments that are ``offered`` it is given those that its constructor names.

    Args:
        name: of the part in the configuration, such as ``prior``.
        spec: its node.
        offered: what its neighbours fix, such as shapes.

    Raises:
        ConfigError: no ``_target_``, an argument is missing or out of range, or what was built is not such a part or
            lacks one of its attributes.
    """
    wanted = arguments_of(locate_part(name, spec))
    given = {key: value for key, value in offered.items() if key in wanted}
    if missing := lacking(spec, given):
        raise ConfigError(
            f"model.{name}: {spec['_target_']} needs {' and '.join(missing)}, which neither its file nor this model "
            "gives it; choose another, or another model"
        )
    try:
        made = build(spec, **given)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"model.{name}: {blamed(error, spec['_target_'])}") from error
    if kind := KINDS.get(name.rpartition(".")[2]):
        base: Any = locate(kind)
        if not isinstance(made, base):
            raise ConfigError(f"model.{name}: {spec['_target_']} is no {kind}; a class of one's own is derived from it")
        said = (key for key, kept in base.__annotations__.items() if get_origin(kept) is not ClassVar)
        if unsaid := [attribute for attribute in said if not hasattr(made, attribute)]:
            raise ConfigError(f"model.{name}: {spec['_target_']} lacks {' and '.join(unsaid)}, which every {kind} has")
    return made


def blamed(error: Exception, target: str) -> str:
    """The error's message with ``target``, and the file and line that raised it if its package is the user's own."""
    own, line = target.partition(".")[0], ""
    if own not in PACKAGES:
        for frame, number in traceback.walk_tb(error.__traceback__):
            if frame.f_globals.get("__name__", "").partition(".")[0] == own:
                line = f", {Path(frame.f_code.co_filename).name} line {number}"
    return f"{error} [{target}{line}]"


def lacking(spec: Spec, given: Collection[str]) -> list[str]:
    """The required arguments of what ``spec["_target_"]`` names that are neither in its node nor ``given`` by its
    owner."""
    return [name for name in needed(arguments_of(locate(spec["_target_"]))) if name not in spec and name not in given]


def needed(arguments: Mapping[str, inspect.Parameter]) -> Iterator[str]:
    """The names of those that have no default."""
    for name, argument in arguments.items():
        if argument.default is argument.empty and argument.kind not in (argument.VAR_POSITIONAL, argument.VAR_KEYWORD):
            yield name


def flatten(node: Mapping[str, Any], separator: str = ".", prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(key, value) of every leaf of nested mappings, the keys along its path joined. An empty mapping is a leaf."""
    for key, value in node.items():
        if isinstance(value, Mapping) and value:
            yield from flatten(value, separator, f"{prefix}{key}{separator}")
        else:
            yield f"{prefix}{key}", value
