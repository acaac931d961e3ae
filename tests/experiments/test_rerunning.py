"""`attelbo rerun`: the same comes out bit for bit, and what does not is told."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from attelbo.cli import main
from attelbo.experiments import rerunning
from attelbo.experiments.provenance import differences
from attelbo.experiments.rerunning import Change


@pytest.fixture(scope="module")
def done(shared_runs) -> Path:
    return shared_runs.train("trainer.threads=auto", "trainer.max_epochs=1").run_dir


def change(path: Path, edit: Any) -> Any:
    """Write an edited JSON file; what it was before."""
    before = path.read_text()
    content = json.loads(before)
    edit(content)
    path.write_text(json.dumps(content))
    return before


def test_a_run_is_repeated_bit_for_bit(done, capsys):
    assert main(["rerun", str(done)]) == 0
    out = capsys.readouterr().out
    assert "code, versions and hardware are those of the run" in out
    assert "the same, bit for bit: " in out
    again = done.with_name(f"{done.name}-rerun")
    weights = [torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"] for run in (done, again)]
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())
    assert json.loads((again / "rerun.json").read_text()) == {"of": str(done), "equal": True, "differences": []}
    # Both are the same configuration: a comparison takes one of the two.
    hashes = {json.loads((run / "status.json").read_text())["config_hash"] for run in (done, again)}
    assert len(hashes) == 1


@pytest.mark.parametrize("training", ["true", "false"])
def test_a_run_without_its_result_is_one_line(done, capsys, training):
    (done / "result.json").rename(done / "gone")
    try:
        assert main(["rerun", f"run={done}", f"training={training}"]) == 2
    finally:
        (done / "gone").rename(done / "result.json")
    assert capsys.readouterr().err == (
        f"error: {done} has no result.json: there is nothing to compare a repetition with\n"
    )


def test_a_configuration_that_was_edited_is_one_line(done, capsys):
    file = done / "config.yaml"
    before = file.read_text()
    file.write_text(before.replace("max_epochs: ", "max_epochs: many, or "))
    try:
        assert main(["rerun", str(done)]) == 2
    finally:
        file.write_text(before)
    error = capsys.readouterr().err
    assert error.startswith("error: trainer.max_epochs: expected int, got 'many, or ")
    assert error.endswith(f" [{file}]\n")


def test_what_is_not_the_same_is_listed(done, capsys):
    def falsify(result):
        result["metrics"]["test/elbo"] *= 1.001
        result["steps"] += 1

    before = change(done / "result.json", falsify)
    curves = (done / "metrics.csv").read_text()
    (done / "metrics.csv").write_text(curves.replace("val/kl,", "val/kl,1"))
    try:
        assert main(["rerun", f"run={done}"]) == 1
    finally:
        (done / "result.json").write_text(before)
        (done / "metrics.csv").write_text(curves)
    out = capsys.readouterr().out
    lines = {line.split()[0].rstrip(","): line for line in out.splitlines() if line.strip()}
    assert lines["test/elbo"].split()[-1] == "1.0e-03"
    assert "steps" in lines
    assert "from step" in lines["val/kl"]
    assert "not the same: 3 of" in out
    report = json.loads((done.with_name(f"{done.name}-rerun-2") / "rerun.json").read_text())
    assert [each["name"].partition(",")[0] for each in report["differences"]] == ["test/elbo", "steps", "val/kl"]


def test_only_the_measurement_is_repeated(done, capsys):
    before = sorted(done.parent.iterdir())
    assert main(["rerun", str(done), "training=false"]) == 0
    assert "the same, bit for bit" in capsys.readouterr().out
    assert sorted(done.parent.iterdir()) == before


def test_an_interrupted_repetition_goes_on(done, capsys):
    again = done.with_name(f"{done.name}-rerun")
    before = change(again / "status.json", lambda status: status.update(state="interrupted"))
    started = json.loads(before)["started"]
    assert main(["rerun", str(done)]) == 0
    status = json.loads((again / "status.json").read_text())
    assert (status["state"], status["started"], status["attempts"]) == ("done", started, 2)


def test_other_data_are_refused(done, capsys):
    before = change(done / "provenance.json", lambda p: p["data"]["checksums"].update(test="0" * 64))
    runs = sorted(done.parent.iterdir())
    try:
        assert main(["rerun", str(done)]) == 2
    finally:
        (done / "provenance.json").write_text(before)
    assert f"its test data are no longer what they were: SHA-256 {'0' * 64} then" in capsys.readouterr().err
    assert sorted(done.parent.iterdir()) == runs


def test_a_folder_that_cannot_be_written_is_one_line(done, capsys, monkeypatch):
    monkeypatch.setattr(rerunning, "why_not_written", lambda path: "Read-only file system")
    assert main(["rerun", str(done)]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {done}-rerun")
    assert error.endswith(f" cannot be written: Read-only file system; copy {done} to where it can\n")


def test_a_run_that_is_not_done_is_refused(done, capsys):
    before = change(done / "status.json", lambda status: status.update(state="failed"))
    try:
        assert main(["rerun", str(done)]) == 2
    finally:
        (done / "status.json").write_text(before)
    assert "is failed, not done" in capsys.readouterr().err
    assert main(["rerun", "nowhere"]) == 2
    assert "nowhere: no such folder" in capsys.readouterr().err


def test_replicas_are_repeated_together(runs, capsys):
    words = runs.words("trainer.replicas=2", "trainer.stack=true", "trainer.max_epochs=1")
    assert main(["train", *words]) == 0
    (sweep,) = (runs.folder / "small").iterdir()
    first, other = (path for path in sorted(sweep.iterdir()) if path.is_dir())
    assert sorted(json.loads((first / "result.json").read_text())["stacked_with"]) == [first.name, other.name]
    assert main(["rerun", str(first)]) == 0
    assert "the same, bit for bit" in capsys.readouterr().out
    assert {path.name for path in sweep.with_name(f"{sweep.name}-rerun").iterdir() if path.is_dir()} == {
        first.name,
        other.name,
    }
    change(other / "status.json", lambda status: status.update(state="failed"))
    assert main(["rerun", str(first)]) == 2
    assert f"in one stacked model with {other}, which is not done" in capsys.readouterr().err


def test_a_fitted_prior_is_repeated(done, capsys):
    assert main(["fit-prior", f"run={done}", "epochs=1", "accelerator=cpu"]) == 0
    (second,) = (done.parent.parent / "small-mixture_of_gaussians").iterdir()
    assert main(["rerun", str(second)]) == 0
    assert "the same, bit for bit" in capsys.readouterr().out


def test_origins_that_differ_are_told():
    def origin(**changes: Any) -> dict[str, Any]:
        content = {
            "git": {"sha": "a" * 40, "diff": ""},
            "versions": {"python": "3.11.7", "torch": "2.15.0"},
            "hardware": {"system": "Linux", "cpu": "x", "gpus": []},
        }
        return content | changes

    assert differences(origin(), origin()) == []
    assert differences(origin(), origin(git={"sha": "b" * 40, "diff": "x"})) == [
        "code differs: aaaaaaa then, bbbbbbb with uncommitted changes now"
    ]
    dirty = origin(git={"sha": "a" * 40, "diff": "x"})
    assert differences(dirty, origin(git={"sha": "a" * 40, "diff": "y"})) == [
        "code differs: aaaaaaa with uncommitted changes then, other changes on top of it now"
    ]
    assert differences(origin(), origin(git=None)) == ["code differs: aaaaaaa then, none now"]
    assert differences(origin(), origin(versions={"python": "3.11.7", "torch": "2.16.0"})) == [
        "torch differs: 2.15.0 then, 2.16.0 now"
    ]
    assert differences(origin(), origin(hardware={"system": ["Linux", 6], "cpu": "x", "gpus": []})) == [
        "system differs: Linux then, Linux, 6 now"
    ]
    assert differences(origin(), origin(hardware={"system": "Linux", "cpu": "x", "gpus": ["y", "z"]})) == [
        "gpus differs: none then, y, z now"
    ]


def test_the_size_of_a_difference():
    assert Change("x", 2.0, 1.0).relative == 0.5
    assert Change("x", -1.0, 1.0).relative == 2.0
    assert Change("x", 0.0, 1.0).relative == 1.0
    assert Change("x", None, 1.0).relative == math.inf
