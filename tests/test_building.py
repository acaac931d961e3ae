"""Arguments that a constructor takes as ``**options: Unpack[TypedDict]`` are checked as those that it names."""

import importlib
import inspect
import re
from pathlib import Path
from typing import Any, Literal, TypedDict, Unpack, get_type_hints

import pytest

import attelbo
from attelbo.building import OWN, arguments_of, build, lacking
from attelbo.checking import FaultError, check_node
from attelbo.errors import ConfigError
from attelbo.models.vae import VAESpecs, vae_parts
from attelbo.networks import AttentionParts, AttentionSpecs


class Choices(TypedDict, total=False):
    size: int | None
    kind: Literal["flat", "round"]


class Needed(Choices):
    name: str


class Base:
    def __init__(self, dim: int, *, size: int | None = None, kind: Literal["flat", "round"] = "flat") -> None:
        self.said = (dim, size, kind)


class Between(Base):
    """Without a constructor."""


class Derived(Between):
    def __init__(self, dim: int, *, gate: bool = False, **options: Unpack[Choices]) -> None:
        super().__init__(dim, **options)
        self.gate = gate


class Further(Derived):
    def __init__(self, **options: Unpack[Choices]) -> None:
        super().__init__(3, **options)


def function(dim: int, **options: Unpack[Needed]) -> None:
    """Nothing says what its defaults are."""


def test_the_keys_have_the_defaults_of_the_constructor_that_gets_them() -> None:
    known = arguments_of(Derived)
    assert {name: each.default for name, each in known.items()} == {
        "dim": inspect.Parameter.empty,
        "gate": False,
        "size": None,
        "kind": "flat",
    }
    named = arguments_of(Base)
    assert [known[name] for name in ("size", "kind")] == [named[name] for name in ("size", "kind")]
    assert arguments_of(Further) == {name: named[name] for name in ("size", "kind")}


def test_a_key_that_must_be_given_is_missing_where_it_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(OWN, __name__.partition(".")[0])
    assert lacking({"_target_": f"{__name__}.function", "dim": 1}, ()) == ["name"]
    assert lacking({"_target_": f"{__name__}.Derived"}, ()) == ["dim"]


@pytest.mark.parametrize(
    ("node", "problem", "meant"),
    [
        ({"sizes": 2}, "unknown key", "part.size"),
        ({"options": {}}, "unknown key; known here: dim, gate, size, kind", None),
        ({"size": "2"}, "expected int or null, got '2'", None),
        ({"kind": "rounds"}, "expected 'flat' or 'round', got 'rounds'; did you mean round?", None),
        ({"gate": 1}, "expected bool, got 1", None),
    ],
)
def test_a_wrong_key_or_value(monkeypatch: pytest.MonkeyPatch, node: dict, problem: str, meant: str | None) -> None:
    monkeypatch.setenv(OWN, __name__.partition(".")[0])
    check_node({"_target_": f"{__name__}.Derived", "dim": 1, "size": 2, "kind": "round"}, "part")
    with pytest.raises(FaultError) as caught:
        check_node({"_target_": f"{__name__}.Derived", "dim": 1, **node}, "part")
    assert (caught.value.key, caught.value.problem) == (f"part.{next(iter(node))}", problem)
    assert caught.value.meant == meant


def told(
    *, scale: float, other: float | None = 1.0, weight: dict | float = 1.0, size: int = 1, either: int | float = 1
) -> list:
    return [scale, other, weight, size, either]


def test_whole_numbers_are_floats_where_floats_are_declared(monkeypatch: pytest.MonkeyPatch) -> None:
    """The YAML ``2`` is an int; torch makes integers of it."""
    monkeypatch.setenv(OWN, __name__.partition(".")[0])
    node = {"_target_": f"{__name__}.told", "scale": 2, "other": 3, "weight": 4, "size": 5, "either": 6}
    made = build(node)
    assert made == [2, 3, 4, 5, 6]
    assert [*map(type, made)] == [float, float, float, int, int]
    assert build({**node, "other": None, "weight": {"a": 1}})[1:3] == [None, {"a": 1}]
    assert type(node["scale"]) is int  # what is written and hashed stays as it is
    with pytest.raises(ConfigError, match=r"scale is too large a number \[told\]"):
        build({**node, "scale": 10**400})


SOURCE = Path(attelbo.__file__).parent
TAKING_OPTIONS = [
    path for path in SOURCE.rglob("*.py") if re.search(r"\*\*options: Unpack\[\w+\]\s*[,)]", path.read_text("utf-8"))
]


@pytest.mark.parametrize("path", TAKING_OPTIONS, ids=lambda path: str(path.relative_to(SOURCE)))
def test_options_are_arguments_of_the_constructor_that_gets_them(path: Path) -> None:
    module = importlib.import_module(".".join(path.relative_to(SOURCE.parent).with_suffix("").parts))
    kinds = [kind for _, kind in inspect.getmembers(module, inspect.isclass) if kind.__module__ == module.__name__]
    named = {kind: inspect.signature(kind).parameters for kind in kinds if "__init__" in vars(kind)}
    taking = [kind for kind, arguments in named.items() if "options" in arguments]
    assert taking
    for kind in taking:
        own, below = arguments_of(kind), arguments_of(kind.__mro__[1])
        for name in own.keys() - named[kind].keys():
            assert (own[name].annotation, own[name].default) == (below[name].annotation, below[name].default)


@pytest.mark.parametrize(
    ("specs", "target", "beside"),
    [(VAESpecs, vae_parts, {"data", "n_classes"}), (AttentionSpecs, AttentionParts, {"n_global", "where"})],
)
def test_configurations_are_the_arguments_of_what_gets_them(specs: Any, target: Any, beside: set[str]) -> None:
    taken = {name: each for name, each in arguments_of(target).items() if name not in beside}
    assert get_type_hints(specs) == {name: each.annotation for name, each in taken.items()}
    assert specs.__optional_keys__ == {name for name, each in taken.items() if each.default is not each.empty}
