"""The shape of the house: imports go one way, the mechanisms are pure torch, modules are short."""

import ast
import graphlib
import importlib
import inspect
import pydoc
import re
import subprocess
import sys
from functools import cache, reduce
from pathlib import Path

import attelbo

SOURCE = Path(attelbo.__file__).parent
MODULES = sorted(SOURCE.rglob("*.py"))

EVERYWHERE = {"errors", "building", "seeding", "files", "records", "checks", "checking"}
PURE = {"attention", "latent"}
ALLOWED = {
    "errors": set(),
    "checks": set(),
    "checking": set(),
    "seeding": set(),
    "files": set(),
    "records": set(),
    "building": set(),
    "attention": set(),
    "latent": set(),
    "metrics": set(),
    "data": set(),
    "networks": PURE,
    "models": PURE | {"networks", "data", "metrics"},
    "training": PURE | {"networks", "models", "data", "metrics"},
    "experiments": PURE | {"networks", "models", "training", "data", "metrics"},
    "cli": {"experiments"},
    "__main__": {"cli"},
    "__init__": {"experiments"},  # when it is called
}
"""Package or module -> those that it may import, besides itself and those that all may import."""

LONGEST = 320


def room(path: Path) -> str:
    """The package below attelbo, or the module beside the packages, that a file belongs to."""
    return path.relative_to(SOURCE).with_suffix("").parts[0]


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@cache
def imported(path: Path) -> set[str]:
    """Full names of the modules that a file imports anywhere, inside functions too."""
    names: set[str] = set()
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            assert node.module is not None
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def test_every_room_is_known():
    assert {room(path) for path in MODULES} == set(ALLOWED)


def test_imports_go_one_way():
    for path in MODULES:
        own = room(path)
        used = {name.split(".")[1] for name in imported(path) if name.startswith("attelbo.")}
        used &= set(ALLOWED)  # `from attelbo import __version__` names no room
        assert used <= ALLOWED[own] | EVERYWHERE | {own}, path


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(SOURCE.parent).with_suffix("").parts).removesuffix(".__init__")


def imported_at_once(tree: ast.AST) -> set[str]:
    """Of the modules that :func:`imported` gives, those that are imported with the file."""
    names: set[str] = set()
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.ImportFrom):
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif not isinstance(node, ast.FunctionDef) and "TYPE_CHECKING" not in ast.dump(getattr(node, "test", node)):
            names |= imported_at_once(node)
    return names


def test_no_two_modules_need_each_other():
    """An import runs the packages above a module too, but for those that the importing module is in itself."""
    known, graph = set(map(module_of, MODULES)), {}
    for path in MODULES:
        own, needed = module_of(path), set()
        for name in imported_at_once(tree_of(path)):
            above = [name, *(name.rsplit(".", n)[0] for n in range(1, name.count(".") + 1))]
            needed |= {each for each in above if each in known and each != own and not own.startswith(f"{each}.")}
        graph[own] = needed
    graphlib.TopologicalSorter(graph).prepare()  # raises a CycleError


def test_the_mechanisms_are_pure_torch():
    pure = [path for path in MODULES if room(path) in PURE]
    assert {room(path) for path in pure} == PURE
    for path in pure:
        packages = {name.partition(".")[0] for name in imported(path)}
        assert packages <= {"torch", "attelbo"} | sys.stdlib_module_names, path


PURE_AT_RUN_TIME = """
import sys
import attelbo.attention, attelbo.latent, attelbo.latent.schedules
heavy = {"lightning", "hydra", "omegaconf", "torchmetrics", "torchvision", "matplotlib", "sklearn", "pydantic", "rich"}
sys.exit(", ".join(sorted(heavy & set(sys.modules))) or 0)
"""


def test_the_mechanisms_load_nothing_but_torch():
    done = subprocess.run([sys.executable, "-c", PURE_AT_RUN_TIME], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


LAZY = {"matplotlib", "wandb", "sklearn", "torchvision", "tensorboard"}


def test_what_is_slow_to_import_is_imported_where_it_is_needed():
    for path in MODULES:
        at_once = {
            name.partition(".")[0]
            for node in tree_of(path).body
            for name in (
                [alias.name for alias in node.names]
                if isinstance(node, ast.Import)
                else [node.module or ""]
                if isinstance(node, ast.ImportFrom)
                else []
            )
        }
        assert not at_once & LAZY, path


def test_modules_are_short_and_say_what_they_are():
    for path in MODULES:
        text = path.read_text(encoding="utf-8")
        assert len(text.splitlines()) < LONGEST, path
        assert ast.get_docstring(tree_of(path)) or not text.strip(), path


def test_what_docstrings_refer_to_exists():
    """In the module, in a class of it, or by its full name."""
    for path in MODULES:
        names = re.findall(r":(?:class|func|meth):`~?([\w.]+)`", path.read_text(encoding="utf-8"))
        if not names:
            continue
        module = importlib.import_module(".".join(path.relative_to(SOURCE.parent).with_suffix("").parts))
        scopes = [module, *(kind for _, kind in inspect.getmembers(module, inspect.isclass))]
        for name in names:
            here = (reduce(lambda at, part: getattr(at, part, None), name.split("."), scope) for scope in scopes)
            assert any(here) or pydoc.locate(name), f"{path}: {name}"
