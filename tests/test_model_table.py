"""The table of all models: what is read from the runs is what is shown, and what is missing is said."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from benchmarks import models

from attelbo.experiments.listing import choices, package_folder

SETTING = models.Setting("digits", "Digits", (), (), (0, 1))


def write(sweep: Path, name: str, *nlls: float | None) -> None:
    for seed, nll in enumerate(nlls):
        run = sweep / SETTING.data / name / str(seed)
        run.mkdir(parents=True)
        state = (
            {"state": "done"} if nll is not None else {"state": "failed", "error": "Traceback\nValueError: a reason"}
        )
        (run / "status.json").write_text(json.dumps(state | {"started": "2031-05-03T10:00:00"}))
        (run / "provenance.json").write_text(json.dumps({"git": {"sha": "0123456789", "diff": ""}}))
        metrics = {"test/nll": nll, "test/nll_std_error": 0.25, "test/elbo": -20.0, "test/active_units": 7.0}
        (run / "result.json").write_text(json.dumps({"metrics": metrics, "seconds": {"train": 3.0}}))


def test_the_best_comes_first_with_its_interval(tmp_path):
    write(tmp_path, "vae", 20.0, 21.0)
    write(tmp_path, "iwae", 18.0, 20.0)
    write(tmp_path, "vae_maf_prior", 22.0, None)
    lines = models.table(SETTING, ["vae", "iwae", "vae_maf_prior", "ae"], tmp_path).splitlines()
    rows = [line for line in lines if line.startswith("| `")]
    assert [row.split("`")[1] for row in rows] == ["iwae", "vae", "vae_maf_prior", "ae"]
    # Student's t with one degree of freedom: 12.706 * std / sqrt(2), std = sqrt(2).
    assert "| 19.00 ± 12.71 | -20.00 ± 0.00 |" in rows[0]
    assert "| - | 7 | 3 | 2031-05-03 0123456 |" in rows[0]  # no bits per dimension were recorded
    columns = [line.replace("\\|", "").count("|") for line in lines if line.startswith("|")]
    assert set(columns) == {11}
    assert rows[2].endswith("**seeds done: 1; ValueError: a reason** |")
    assert rows[3].endswith("**not run** |")
    # 19 and 20.5, each within 12.71 and 6.35: the seeds leave it open. A single seed has no interval.
    assert "- IWAE (`iwae`): 19.00 nats, better than 20.50 of `vae` at this budget; their intervals overlap." in lines
    single = models.table(replace(SETTING, seeds=(0,)), ["vae", "iwae"], tmp_path)
    assert "- IWAE (`iwae`): 19.00 nats, better than 20.50 of `vae` at this budget.\n" in single


def test_rows_of_models_that_have_no_runs_are_kept(tmp_path):
    write(tmp_path / "first", "vae", 20.0, 21.0)
    write(tmp_path / "first", "iwae", 18.0, 20.0)
    names = ["ae", "iwae", "vae", "vae_maf_prior"]
    other = models.Setting("mnist", "MNIST", (), (), (0,))
    before = models.page([models.table(setting, names, tmp_path / "first") for setting in (SETTING, other)])
    write(tmp_path / "second", "vae_maf_prior", 19.5, 19.5)
    write(tmp_path / "second", "iwae", 30.0, 30.0)
    tables = [models.table(setting, names, tmp_path / "second", before) for setting in (SETTING, other)]
    rows = [line for line in tables[0].splitlines() if line.startswith("| `")]
    assert [row.split("`")[1] for row in rows] == ["vae_maf_prior", "vae", "iwae", "ae"]
    assert rows[1] in before
    verdict = "- a flow as prior (`vae_maf_prior`): 19.50 nats, better than 20.50 of `vae` at this budget"
    assert f"{verdict}; their intervals overlap.\n" in tables[0]
    assert tables[1] == models.table(other, names, tmp_path / "nothing")
    assert models.page(tables) == models.page(
        [models.table(setting, names, tmp_path / "nothing", models.page(tables)) for setting in (SETTING, other)]
    )


def test_what_has_a_warm_up_is_compared_with_a_plain_vae_that_has_one(tmp_path):
    for name, nll in (("vae", 20.0), ("warm_up_vae", 18.0), ("vamp_vae", 19.0), ("iwae", 17.0)):
        write(tmp_path, name, nll, nll)
    lines = models.table(SETTING, ["vae", "warm_up_vae", "vamp_vae", "iwae"], tmp_path).splitlines()
    assert "- VampPrior (`vamp_vae`): 19.00 nats, not better than 18.00 of `warm_up_vae` at this budget." in lines
    assert "- IWAE (`iwae`): 17.00 nats, better than 20.00 of `vae` at this budget." in lines


def test_a_run_that_failed_says_why(tmp_path):
    write(tmp_path, "vae", None)
    assert "**ValueError: a reason**" in models.table(SETTING, ["vae"], tmp_path)


def test_one_seed_has_the_error_over_images(tmp_path):
    write(tmp_path, "vae", 95.5)
    assert "| 95.50 ± 0.25 |" in models.table(SETTING, ["vae"], tmp_path)
    result = tmp_path / SETTING.data / "vae" / "0" / "result.json"
    content = json.loads(result.read_text())
    del content["metrics"]["test/nll_std_error"]
    result.write_text(json.dumps(content))
    assert "| 95.50 |" in models.table(SETTING, ["vae"], tmp_path)  # one image, which has no error


def test_the_models_with_networks_of_their_own_are_models():
    assert set(choices([package_folder()])["model"]) >= set(models.OWN_NETWORKS)
    assert set(choices([package_folder()])["model"]) >= {
        name for names, plain in models.COMPARED.values() for name in (*names, plain)
    }


@pytest.mark.parametrize("setting", models.SETTINGS, ids=lambda setting: setting.data)
def test_settings_compose(setting, capsys):
    from attelbo.cli import main

    for name, words in (("vae", setting.words), ("vdvae", setting.own)):
        assert main(["check", f"model={name}", *words]) == 0
    assert f"{setting.data} (" in capsys.readouterr().out
