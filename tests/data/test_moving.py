"""Files that are not where they were looked for."""

import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from attelbo.cli import main
from attelbo.data.moving import absent, moved
from attelbo.data.sources import Arrays, ImageFolder
from attelbo.errors import DataError, MissingDataError
from attelbo.models import load_run

X = np.random.default_rng(0).normal(size=(60, 3)).astype(np.float32)


def test_a_path_from_the_working_folder_is_found_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    np.save("mine/x.npy", X)
    with pytest.raises(MissingDataError) as raised:
        Arrays("mine/x.npy").look(tmp_path / "data")
    assert str(raised.value) == (
        f"{tmp_path}/data/mine/x.npy: no such file; data.source.path says which, from paths.data_dir or absolutely; "
        f"did you mean {tmp_path}/mine/x.npy?"
    )
    with pytest.raises(DataError, match=rf"absolutely; did you mean {tmp_path}/mine\?$"):
        ImageFolder("elsewhere/mine").load(tmp_path / "data")
    assert str(absent(Path("/nowhere/such"), "file", "key")).endswith(
        "key says which, from paths.data_dir or absolutely"
    )
    assert str(pickle.loads(pickle.dumps(raised.value))) == str(raised.value)


def test_absolute_paths_are_looked_for_by_the_longest_end_that_is_there(tmp_path: Path):
    for name in ("b/c.npy", "c.npy", "d.npy"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    source = {"_target_": "x", "path": "/a/b/c.npy", "labels": "/a/d.npy", "rest": ["/a"], "gone": "/a/e.npy", "x": "x"}
    found = moved({"root": "/old", "source": source}, str(tmp_path))
    there = {"path": str(Path("b/c.npy")), "labels": "d.npy"}
    assert found == {"root": str(tmp_path), "source": {**source, **there}}
    assert moved({"root": "/old", "source": source}, None) == {"root": "/old", "source": source}


def _run(folder: Path, *words: str) -> Path:
    fixed = ["trainer.max_epochs=1", "logger=none", "callbacks=checkpoint", "evaluation.n_samples=2"]
    assert main(["train", *words, *fixed, f"paths.output_dir={folder}"]) == 0
    return next(path.parent for path in folder.rglob("config.yaml") if path.parent.name != ".hydra")


@pytest.mark.parametrize("kind", ["arrays", "pictures"])
def test_a_run_that_moved_finds_data_that_moved(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    old, new, vae = tmp_path / "old", tmp_path / "new", ["model/encoder=mlp", "model/decoder=mlp"]
    old.mkdir()
    if kind == "arrays":
        np.save(old / "mine", X)
        words = ["data=arrays", f"data.source.path={old}/mine.npy", "model/likelihood=normal", *vae]
    else:
        (old / "mine").mkdir()
        for i in range(30):
            Image.fromarray(np.full((8, 8), 8 * i, np.uint8)).save(old / "mine" / f"{i}.png")
        words = ["data=image_folder", f"data.source.path={old}/mine", "data.source.size=8", "data.source.channels=1"]
        words += ["data.binarize=threshold", *vae]
    run = _run(tmp_path / "outputs", *words).rename(tmp_path / "run")
    shutil.move(old, new)
    capsys.readouterr()
    for command in (["evaluate", "n_samples=2"], ["embed"], ["rerun"], ["fit-prior", "prior=maf", "epochs=1"]):
        words = [command[0], f"run={run}", *command[1:]]
        assert main(words) == 2
        assert capsys.readouterr().err.endswith("; data_dir=... is the folder that has it now\n")
        assert main([*words, f"data_dir={new}"]) == 0
    _, data = load_run(run, data_dir=str(new))
    given: Any = data
    given.setup()
    assert given.n_rows("test") == (6 if kind == "arrays" else 3)
