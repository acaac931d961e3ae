"""The wheel: what an installed attelbo needs is in it, and nothing else. Built here, without a network."""

import zipfile
from pathlib import Path

import pytest
from hatchling.builders.wheel import WheelBuilder

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Name -> content of every file in the wheel."""
    folder = tmp_path_factory.mktemp("dist")
    (wheel,) = WheelBuilder(str(ROOT)).build(directory=str(folder), versions=["standard"])
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def below(folder: Path) -> set[str]:
    names = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return {name for name in names if "__pycache__" not in name}


def test_it_holds_the_package_the_configuration_and_nothing_else(files):
    source, conf = below(ROOT / "src" / "attelbo"), below(ROOT / "conf")
    assert "experiments/templates/report.html.j2" in source
    assert "train.yaml" in conf
    inside = {name for name in files if ".dist-info/" not in name}
    assert inside == {f"attelbo/{name}" for name in source} | {f"attelbo/conf/{name}" for name in conf}


def test_configuration_and_template_are_the_files_of_the_checkout(files):
    pairs = {f"attelbo/conf/{name}": ROOT / "conf" / name for name in below(ROOT / "conf")}
    template = "experiments/templates/report.html.j2"
    pairs[f"attelbo/{template}"] = ROOT / "src" / "attelbo" / template
    for name, path in pairs.items():
        assert files[name] == path.read_bytes(), name


def test_it_brings_the_command_and_the_licence(files):
    described = {name.partition(".dist-info/")[2]: text for name, text in files.items() if ".dist-info/" in name}
    assert b"attelbo = attelbo.cli:main" in described["entry_points.txt"]
    assert described["licenses/LICENSE"] == (ROOT / "LICENSE").read_bytes()
    assert b"\nRequires-Python: <3.15,>=3.11\n" in described["METADATA"]
