"""Files are written where a symbolic link leads to; the link stays."""

from pathlib import Path

import pytest
import torch

from attelbo.errors import UserError
from attelbo.experiments.sampled import write_folder
from attelbo.files import link_or_copy, why_not_written, write_atomically, writing


@pytest.fixture
def link(tmp_path: Path) -> Path:
    """A relative link in one folder to a file in another, which is not there yet."""
    (tmp_path / "here").mkdir()
    (tmp_path / "there").mkdir()
    link = tmp_path / "here" / "link.csv"
    link.symlink_to(Path("..", "there", "file.csv"))
    return link


def test_what_a_link_leads_to_is_written(tmp_path: Path, link: Path) -> None:
    for content in ("one", "two"):
        write_atomically(link, content)
        assert (tmp_path / "there" / "file.csv").read_text() == content
    (tmp_path / "last").write_text("three")
    link_or_copy(tmp_path / "last", link)
    assert (tmp_path / "there" / "file.csv").read_text() == "three"
    assert link.is_symlink()
    assert [path.name for path in (tmp_path / "here").iterdir()] == ["link.csv"]
    assert [path.name for path in (tmp_path / "there").iterdir()] == ["file.csv"]


def test_what_a_link_leads_to_is_asked(tmp_path: Path, link: Path) -> None:
    assert why_not_written(link) is None
    (tmp_path / "there" / "file.csv").mkdir()
    assert why_not_written(link) == "Is a directory"
    (tmp_path / "there" / "file.csv").rmdir()
    (tmp_path / "there").rmdir()
    (tmp_path / "there").write_text("a file")
    assert why_not_written(link) == "Not a directory"


def test_a_folder_in_place_of_a_file_is_told_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").mkdir()
    with (
        pytest.raises(UserError, match=r"config\.yaml cannot be written: Is a directory"),
        writing(tmp_path),
    ):
        write_atomically(tmp_path / "config.yaml", "name: small\n")
    assert [path.name for path in tmp_path.iterdir()] == ["config.yaml"]


def test_a_link_to_itself_becomes_a_file(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    write_atomically(tmp_path / "loop", "text")
    assert (tmp_path / "loop").read_text() == "text"


def test_samples_go_into_the_folder_that_a_link_leads_to(tmp_path: Path, link: Path) -> None:
    (tmp_path / "there" / "file.csv").mkdir()
    write_folder(iter([(torch.zeros(2, 1, 4, 4), None)]), link)
    assert link.is_symlink()
    assert sorted(path.name for path in (tmp_path / "there" / "file.csv").iterdir()) == ["000000.png", "000001.png"]
