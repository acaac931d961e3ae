"""Files that are downloaded: two processes that do it at once."""

from pathlib import Path

from attelbo.data.files import DataFile, Downloaded


class Folder(Downloaded):
    """A folder of two files, of which another process is done with one while they are downloaded here."""

    embedded = "data=digits needs no files"

    def files(self) -> list[DataFile]:
        return [DataFile(f"set/{name}", None) for name in "ab"]

    def download(self, folder: Path, root: Path) -> None:
        (folder / "set").mkdir()
        for name in "ab":
            (folder / "set" / name).write_text("ours")


def test_what_another_process_has_downloaded_meanwhile_is_kept(tmp_path, monkeypatch):
    rename = Path.rename

    def after_another(path: Path, target: Path) -> Path:
        if not target.exists() and path.is_dir():
            target.mkdir()
            (target / "a").write_text("theirs")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", after_another)
    Folder().prepare(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["set"]
    assert {path.name: path.read_text() for path in (tmp_path / "set").iterdir()} == {"a": "theirs", "b": "ours"}
