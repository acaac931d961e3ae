"""`attelbo compare`: what is one setting, what its numbers are, and the forms it is written in."""

import base64
import csv
import itertools
import json
import math
import re
import shutil
import statistics
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from scipy import stats

from attelbo.cli import main
from attelbo.errors import UserError
from attelbo.experiments.comparison.runs import find_runs
from attelbo.experiments.comparison.settings import settings_of
from attelbo.experiments.comparison.statistics import Estimate, paired, sign_flip_p
from attelbo.experiments.comparison.table import MOST_KEYS, Comparison, as_text, chosen, metrics_of
from attelbo.experiments.rundir import config_hash
from attelbo.experiments.tables import print_replicas

MEASURES = [["elbo", "ELBO", "nats", 2, "", "more"], ["nll", "NLL", "nats", 2, "", "less"]]


def part(**arguments: Any) -> dict[str, Any]:
    return {"_target_": "some.Class", **arguments}


def configuration(seed: int, objective: str = "ELBO", **more: Any) -> dict[str, Any]:
    return {
        "name": "small",
        "seed": seed,
        "tags": [],
        "data": part(name="digits", root="data", seed=seed),
        "model": {
            "_target_": "attelbo.models.build_vae",
            "latent_dim": more.pop("latent_dim", 2),
            "objective": {"_target_": f"attelbo.latent.objectives.{objective}", **more},
        },
        "optimizer": part(),
        "scheduler": part(),
        "trainer": {"threads": 1 + seed % 2, "replicas": 1, "stack": "auto"},
        "logger": {},
        "paths": {"output_dir": f"somewhere/{seed}"},
    }


def write_run(
    folder: Path,
    config: dict[str, Any],
    nll: float,
    state: str = "done",
    choices: dict[str, str] | None = None,
    started: str = "2026-01-01",
) -> Path:
    """A run directory as training leaves it, as far as a comparison reads it."""
    path = folder / f"{config_hash(config)}-{started}"
    (path / ".hydra").mkdir(parents=True)
    (path / "config.yaml").write_text(yaml.safe_dump(config))
    (path / ".hydra" / "choices.yaml").write_text(yaml.safe_dump(choices or {}))
    status = {
        "state": state,
        "config_hash": config_hash(config),
        "started": f"{started}T00:00:00",
        "error": "boom\nRuntimeError: x",
    }
    (path / "status.json").write_text(json.dumps(status))
    curves = {"train/loss": nll, "val/elbo": -nll}
    rows = [f"{step},0,{name},{value - 10 / step}" for name, value in curves.items() for step in (1, 2, 3)]
    (path / "metrics.csv").write_text("\n".join(["step,epoch,metric,value", *rows]) + "\n")
    if state == "done":
        metrics = {"test/elbo": -nll - 1, "test/nll": nll, "test/nll_std_error": 0.5}
        result = {"metrics": metrics, "measures": MEASURES, "seconds": {"train": 2.0}, "parameters": 100}
        (path / "result.json").write_text(json.dumps(result))
    return path


@pytest.fixture
def two(tmp_path: Path) -> Path:
    """Two settings with three seeds each."""
    for seed, (a, b) in enumerate([(20.0, 18.5), (21.0, 19.0), (22.0, 21.5)]):
        write_run(tmp_path, configuration(seed), a)
        write_run(tmp_path, configuration(seed, "IWAE", n_samples=5), b)
    return tmp_path


# -- statistics ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [2, 3, 10])
def test_intervals_are_students(n: int) -> None:
    values = np.random.default_rng(n).normal(5, 2, n).tolist()
    estimate = Estimate.of(values)
    low, high = stats.t.interval(0.95, n - 1, loc=np.mean(values), scale=stats.sem(values))
    assert estimate.half_width is not None
    assert (estimate.mean - estimate.half_width, estimate.mean + estimate.half_width) == pytest.approx((low, high))


def test_text_shows_the_interval_whatever_its_size() -> None:
    assert Estimate(17.7663, 0.1068, 3).text() == "17.77 ± 0.11"
    assert Estimate(17.7663, 0.0012, 3).text() == "17.7663 ± 0.0012"
    assert Estimate(0.13960327152666885, 1.8e-16, 2).text(3) == "0.140 ± 0.000"  # the same, but for the rounding
    assert Estimate(17.7663, None, 1).text() == "17.77"
    assert Estimate(-0.0044, None, 1).text() == "0.00"


def test_a_mean_that_is_not_finite_has_no_interval() -> None:
    assert Estimate.of([1.0, math.nan]).text() == "nan"
    assert Estimate.of([1.0, math.inf]) == Estimate(math.inf, None, 2)
    assert Estimate.of([-math.inf, math.inf]).text() == "nan"


def test_seeds_without_a_finite_value_take_no_part_in_pairs() -> None:
    """With a NaN among them no sum of signs was as far from zero: p was 0, and the difference significant."""
    a = {0: 3.0, 1: 4.0, 2: 6.0}
    b = {0: 2.0, 1: 2.5, 2: 5.0}
    assert paired({**a, 3: math.nan, 4: math.inf}, {**b, 3: 1.0, 4: math.inf}) == paired(a, b)
    assert paired({0: 1.0, 1: math.nan}, {0: 1.0, 1: 1.0}) is None


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("n", [2, 5, 9])
def test_sign_flips_are_scipys_permutation_test(n: int, sign: int) -> None:
    differences = sign * np.random.default_rng(n).normal(0.4, 1, n)
    test = stats.permutation_test((differences,), np.mean, permutation_type="samples", n_resamples=np.inf)
    assert sign_flip_p(differences.tolist()) == pytest.approx(test.pvalue)


def test_paired_takes_the_shared_seeds_and_says_what_they_can_show() -> None:
    a, b = {0: 3.0, 1: 4.0, 2: 6.0, 7: 100.0}, {0: 2.0, 1: 2.5, 2: 5.0, 8: -100.0}
    result = paired(a, b)
    assert result is not None
    d = [1.0, 1.5, 1.0]
    assert result.n == 3
    assert result.difference.mean == pytest.approx(np.mean(d))
    assert result.effect_size == pytest.approx(np.mean(d) / np.std(d, ddof=1))
    assert result.p_value == result.smallest_p == 0.25
    assert "3 pairs cannot show a difference at the 5% level" in result.statement("A", "B", "nats")
    assert "6 seeds could" in result.statement("A", "B")
    assert paired({0: 1.0}, {0: 2.0}) is None


def test_many_pairs_are_students_test() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(0.3, 1, 40), rng.normal(0, 1, 40)
    result = paired(dict(enumerate(a)), dict(enumerate(b)))
    assert result is not None
    assert result.p_value == pytest.approx(stats.ttest_rel(a, b).pvalue)
    assert "No difference is shown" in result.statement("A", "B")
    clear = paired(dict(enumerate(a - 2)), dict(enumerate(b)))
    assert clear is not None
    assert "The difference is significant" in clear.statement("A", "B")


def test_equal_results_differ_by_nothing() -> None:
    a = {0: 3.0, 1: 4.0, 2: 6.0}
    equal, less = paired(a, a), paired(a, {seed: value + 1 for seed, value in a.items()})
    assert equal is not None
    assert less is not None
    assert (equal.difference.mean, equal.effect_size, equal.p_value) == (0.0, 0.0, 1.0)
    assert (less.difference.mean, less.effect_size, less.p_value) == (-1.0, -math.inf, 0.25)


def test_significant_or_not_is_said() -> None:
    clear = paired({i: 1 + 0.01 * i for i in range(8)}, dict.fromkeys(range(8), 0.0))
    unclear = paired({i: (-1.0) ** i for i in range(8)}, dict.fromkeys(range(8), 0.0))
    assert clear is not None
    assert unclear is not None
    assert "significant at the 5% level" in clear.statement("A", "B")
    assert "No difference is shown" in unclear.statement("A", "B")


# -- settings ------------------------------------------------------------------------------------------


def test_runs_that_differ_in_seed_threads_and_folders_are_one_setting(two: Path) -> None:
    settings = settings_of(find_runs([str(two)]).done)
    assert [setting.seeds for setting in settings] == [[0, 1, 2], [0, 1, 2]]
    # What only one of the classes has, its n_samples, follows from the class.
    assert {setting.label for setting in settings} == {"model.objective=ELBO", "model.objective=IWAE"}


def test_a_choice_stands_for_what_lies_below_it_and_the_rest_is_told(tmp_path: Path) -> None:
    for k, dim in itertools.product((5, 50), (2, 4)):
        for name in ("vae", "iwae"):
            config = configuration(0, name.upper(), **({"n_samples": k} if name == "iwae" else {}), latent_dim=dim)
            if name == "iwae" or k == 5:
                write_run(tmp_path, config, 1.0, choices={"model": name, "data": "digits", "paths": "default"})
    settings = settings_of(find_runs([str(tmp_path)]).done)
    assert {setting.label for setting in settings} == {
        f"model={name} model.latent_dim={dim}{k}"
        for dim in (2, 4)
        for name, k in (("vae", ""), *(("iwae", f" model.objective.n_samples={k}") for k in (5, 50)))
    }


def test_a_label_has_no_more_words_than_tell_a_setting_from_the_others(tmp_path: Path) -> None:
    for data, lr in (("digits", 0.1), ("digits", 0.2), ("mnist", 0.3)):
        config = {**configuration(0), "optimizer": part(lr=lr, momentum=lr), "callbacks": {"kind": 1}}
        choices = {"callbacks": "default", "data": data}
        write_run(tmp_path, {**config, "data": part(name=data)}, 1.0, choices=choices)
    write_run(tmp_path, {**configuration(0), "name": "other", "data": part(name="kmnist")}, 1.0)
    settings = settings_of(find_runs([str(tmp_path)]).done)
    assert {len(setting.values) for setting in settings} == {4}
    assert {setting.label for setting in settings} == {
        *("data=digits optimizer.lr=0.1", "data=digits optimizer.lr=0.2", "data=mnist optimizer.lr=0.3", "other")
    }


def test_by_merges_what_is_not_named(two: Path) -> None:
    write_run(two, configuration(5, latent_dim=9), 1.0)
    settings = settings_of(find_runs([str(two)]).done, ["model.latent_dim"])
    assert {setting.label: len(setting.runs) for setting in settings} == {
        "model.latent_dim=2": 6,
        "model.latent_dim=9": 1,
    }
    with pytest.raises(UserError, match=r"--by model.latnet_dim: no such key; did you mean model.latent_dim\?"):
        settings_of(find_runs([str(two)]).done, ["model.latnet_dim"])
    with pytest.raises(UserError, match=r"--by zzz: no such key; config\.yaml of each run has them all$"):
        settings_of(find_runs([str(two)]).done, ["zzz"])


def test_of_equal_runs_the_newest_counts_and_unfinished_ones_are_told(
    two: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_run(two / "0", configuration(0), 99.0, started="2026-02-01")  # before the others by name
    write_run(two, configuration(1), 0.0, state="failed", started="2026-03-01")  # the one that is done counts
    write_run(two, configuration(7), 0.0, state="failed")
    found = find_runs([str(two)])
    assert found.repeated == 2
    assert len(found.done) == 6
    assert max(run.metrics["test/nll"] for run in found.done) == 99.0
    assert [run.state for run in found.unfinished] == ["failed"]
    assert found.unfinished[0].reason == "RuntimeError: x"
    assert main(["compare", str(two)]) == 0
    told = capsys.readouterr().out
    assert "older runs of the same configurations, left out: 2\n" in told
    assert "failed, left out: " in told


def test_a_run_without_its_result_is_told(two: Path, capsys: pytest.CaptureFixture[str]) -> None:
    robbed = write_run(two, configuration(7), 10.0)
    (robbed / "result.json").unlink()
    assert main(["compare", str(two)]) == 0
    assert f"without result.json, left out: {robbed}" in " ".join(capsys.readouterr().out.split())
    assert main(["compare", str(robbed)]) == 2
    assert capsys.readouterr().err == "error: none of the 1 runs there is done\n"


def test_runs_without_a_metric_are_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for seed in (0, 1):
        path = write_run(tmp_path, configuration(seed), 1.0)
        (path / "result.json").write_text(json.dumps({"metrics": {}, "measures": [], "seconds": {"train": 2.0}}))
    assert main(["compare", str(tmp_path)]) == 0
    assert "2.0" in capsys.readouterr().out


def test_a_unit_stands_only_beside_numbers_that_have_it_and_what_most_runs_lack_comes_last(tmp_path: Path) -> None:
    for place, unit in enumerate(("of 2 latent dimensions", "of 8 latent dimensions", "of 8 latent dimensions")):
        path = write_run(tmp_path, configuration(place), 1.0)
        result = json.loads((path / "result.json").read_text())
        own = [["bleu", "BLEU", "of 100", 2, "", "more"]] if place == 0 else []
        result["measures"] = [*own, ["units", "active units", unit, 0, "", ""], *MEASURES]
        result["metrics"] |= {"test/units": 2.0, "test/bleu": 3.0} if own else {"test/units": 2.0}
        (path / "result.json").write_text(json.dumps(result))
    found = find_runs([str(tmp_path)])
    assert [(m.label, m.unit) for m in metrics_of(found.done)] == [
        *(("active units", ""), ("ELBO", "nats"), ("NLL", "nats"), ("BLEU", "of 100"))
    ]


def test_no_name_of_a_setting_is_cut_off(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    keys = [f"a_rather_long_key_{i}" for i in range(MOST_KEYS)]
    for seed in range(2):
        write_run(tmp_path, {**configuration(0), "model": part(**dict.fromkeys(keys, f"value-{seed}"))}, 1.0)
    assert main(["compare", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert all(f"model.{key} " in printed for key in keys)
    assert printed.count("value-0") >= MOST_KEYS


def test_nothing_is_cut_off_in_the_table_of_replicas(two: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In a window of 80 columns there was a test/effective_sample_si… beside two settings."""
    runs = [run.path for run in find_runs([str(two)]).done]
    for path in runs:
        result = json.loads((path / "result.json").read_text())
        result["metrics"]["test/a_measure_with_a_name_that_takes_half_of_a_narrow_window"] = 1.0
        (path / "result.json").write_text(json.dumps(result))
    print_replicas(runs, two)
    printed = capsys.readouterr().out
    assert "test/a_measure_with_a_name_that_takes_half_of_a_narrow_window" in printed
    assert all(f" model.objective={name} n=3 " in printed for name in ("ELBO", "IWAE"))


def test_replicas_have_the_intervals_of_a_comparison(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Four runs of two seeds were four seeds: ± 0.94 in place of ± 6.35."""
    for seed, data_seed, nll in ((1, 1, 20.0), (1, 2, 20.2), (2, 1, 21.0), (2, 2, 21.2)):
        config = configuration(seed)
        config["data"]["seed"] = data_seed
        write_run(tmp_path, config, nll)
    print_replicas([run.path for run in find_runs([str(tmp_path)]).done], tmp_path)
    replicas = capsys.readouterr().out
    assert main(["compare", str(tmp_path), "--metric", "nll"]) == 0
    assert " 2  20.60 ± 6.35 " in capsys.readouterr().out
    assert re.search(r"test/nll +20.60 ± 6.35 ", replicas)
    assert " n=2 " in replicas


def test_replicas_have_the_digits_of_a_comparison(two: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of a setting with one seed, 0.4296 bits were 0.43, and 16 active units 16.00."""
    runs = [run for run in find_runs([str(two)]).done if run.seed == 0]
    for run in runs:
        result = json.loads((run.path / "result.json").read_text())
        result["metrics"] |= {"test/bits_per_dim": 0.4296, "test/active_units": 16.0, "test/unnamed": 0.12345}
        result["measures"] += [["bits_per_dim", "bits/dim", "", 4, "", "less"], ["active_units", "", "", 0, "", ""]]
        (run.path / "result.json").write_text(json.dumps(result))
    print_replicas([run.path for run in runs], two)
    printed = capsys.readouterr().out
    for key, text in (("bits_per_dim", "0.4296"), ("active_units", "16"), ("unnamed", "0.1235"), ("nll", "20.00")):
        assert re.search(rf"test/{key} +{text} +\S", printed)
    assert "std_error" not in printed


def test_what_is_given_the_label_is_told_from_what_is_not(two: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """log p(x|y) was the best of all, beside log p(x)."""
    for run in find_runs([str(two)]).done:
        result = json.loads((run.path / "result.json").read_text())
        elbo, nll = (dict(zip(("key", "label", "unit", "digits", "note", "better"), m, strict=True)) for m in MEASURES)
        if run.config["model"]["objective"]["_target_"].endswith("IWAE"):
            elbo["note"], nll["note"] = "given the label", "given the label; 100 importance samples, 9 images"
        else:
            nll["note"] = "200 importance samples, 9 images"
        result["measures"] = [list(elbo.values()), list(nll.values())]
        (run.path / "result.json").write_text(json.dumps(result))
    told = "NLL, ELBO of model.objective=IWAE: given the label, not comparable with those that are not"
    for words, n in (([], 1), (["--by", "name"], 0)):
        assert main(["compare", str(two), "--metric", "nll", "--metric", "elbo", *words]) == 0
        assert " ".join(capsys.readouterr().out.split()).count(told) == n


def test_runs_that_were_tested_on_other_rows_are_told(two: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As after a file of the user's own was replaced: their mean over seeds would be one of two things."""
    runs = sorted(path.parent for path in two.rglob("status.json"))
    for place, run in enumerate(runs):
        made = {"data": {"checksums": {"test": "a" if place else "b"}}, "git": None, "versions": {}}
        (run / "provenance.json").write_text(json.dumps(made | {"hardware": {"cpu": "", "gpus": []}}))
    assert main(["compare", str(two), "-o", str(two / "page.html"), "-o", str(two / "table.tex")]) == 0
    told = (
        "not to be compared, since their test data differ, in rows or their values, though not in configuration: "
        f"1 as {runs[0]}; {len(runs) - 1} as {runs[1]}"
    )
    assert told in capsys.readouterr().out.replace("\n", "")
    assert all("not to be compared, since" in (two / name).read_text() for name in ("page.html", "table.tex"))
    (runs[0] / "provenance.json").write_text((runs[1] / "provenance.json").read_text())
    assert main(["compare", str(two)]) == 0
    assert "not to be compared" not in capsys.readouterr().out


def test_an_evaluation_of_other_weights_is_no_part_of_a_result(two: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = find_runs([str(two)]).done
    for run, checkpoint in zip(runs, ("best", *["last"] * 5), strict=True):
        result = json.loads((run.path / "result.json").read_text())
        (run.path / "result.json").write_text(json.dumps(result | {"checkpoint": "best"}))
        more = {"metrics": {"test/psnr": 9.0}, "measures": [["psnr", "PSNR", "dB", 2, "", "more"]], "seconds": {}}
        (run.path / "evaluation-test.json").write_text(json.dumps(more | {"checkpoint": checkpoint}))
    again = find_runs([str(two)]).done
    assert ["test/psnr" in run.metrics for run in again] == [True, *[False] * 5]
    assert ["psnr" in [measure[0] for measure in run.result["measures"]] for run in again] == [True, *[False] * 5]
    assert main(["compare", str(two), "--metric", "psnr"]) == 0
    told = "what attelbo evaluate found of other weights than those of the result is left out: 5 runs"
    assert told in " ".join(capsys.readouterr().out.split())


def test_what_a_result_has_is_not_replaced_by_an_evaluation(two: Path) -> None:
    run = find_runs([str(two)]).done[0]
    nll = run.metrics["test/nll"]
    other = ["nll", "another label", "bits", 4, "by another measurement", "less"]
    more = {"metrics": {"test/nll": nll + 1, "test/psnr": 9.0}, "measures": [other], "seconds": {}}
    (run.path / "evaluation-test.json").write_text(json.dumps(more))
    again = find_runs([str(run.path)]).done[0]
    assert (again.metrics["test/nll"], again.metrics["test/psnr"]) == (nll, 9.0)
    assert again.result["measures"] == run.result["measures"]


def test_of_many_keys_each_setting_shows_what_most_others_do_not_have(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    keys = [f"key_{i}" for i in range(MOST_KEYS + 1)]
    usual = dict.fromkeys(keys, "usual")
    for changed in ([], *([key] for key in keys), keys[:2]):
        write_run(tmp_path, {**configuration(0), "model": part(**usual | dict.fromkeys(changed, "special"))}, 1.0)
    table, page = tmp_path / "table.csv", tmp_path / "page.html"
    assert main(["compare", str(tmp_path), "-o", str(table), "-o", str(page)]) == 0
    printed = capsys.readouterr().out
    told = re.findall(r"^ +\d+  (\S.*?)   ", printed, re.MULTILINE)
    single = [f"model.{key}=special" for key in keys]
    assert sorted(told) == sorted(["small", *single, " ".join(single[:2])])
    assert "9 keys differ: of each setting only what tells it from most others is shown" in printed
    assert table.read_text().startswith(",".join(f"model.{key}" for key in keys))
    (content,) = re.findall(r'type="application/json">(.*)</script>', page.read_text())
    shown = json.loads(content)
    assert shown["keys"] == ["setting"]
    # A filter finds the values that are not shown, too.
    assert all("model.key_8=usual" in s["words"] for s in shown["settings"] if "key_8" not in s["label"])


def test_a_group_of_which_none_is_chosen_is_called_so(tmp_path: Path) -> None:
    for choice, node in (("none", {}), ("default", {"pictures": {"n": 1}})):
        write_run(tmp_path, {**configuration(0), "callbacks": node}, 1.0, choices={"callbacks": choice})
    settings = settings_of(find_runs([str(tmp_path)]).done)
    assert {setting.label for setting in settings} == {"callbacks=none", "callbacks=default"}


def test_a_checkpoint_that_a_run_began_with_tells_it_apart(tmp_path: Path) -> None:
    for place, ckpt in enumerate((None, "auto", "outputs/a/last.ckpt")):
        write_run(tmp_path, configuration(0) | {"ckpt": ckpt}, nll=20.0 + place, started=f"2026-01-0{place + 1}")
    found = find_runs([str(tmp_path)])
    assert found.repeated == 1  # auto is the same run, begun later
    assert sorted(setting.values["ckpt"] for setting in settings_of(found.done)) == ["-", "outputs/a/last.ckpt"]


def test_a_seed_counts_once_of_however_many_runs(tmp_path: Path) -> None:
    """What --by averages over: each seed of the two settings with two learning rates, but for one that has one."""
    values = {(2, 0): (10.0, 20.0), (2, 1): (11.0, 21.0), (2, 2): (10.5, 20.5)}
    values |= {(4, 0): (10.0, 30.0), (4, 1): (11.0, 31.0), (4, 2): (11.0,)}
    for (dim, seed), numbers in values.items():
        for place, nll in enumerate(numbers):
            config = configuration(seed, latent_dim=dim)
            write_run(tmp_path, {**config, "optimizer": part(lr=10.0 ** -(3 + place))}, nll)
    found = find_runs([str(tmp_path)])
    a, b = settings_of(found.done, ["model.latent_dim"])
    every = metrics_of(found.done)
    comparison = Comparison([a, b], chosen(every, ["nll"]), every, found)
    (metric,) = comparison.metrics
    for setting, means in ((a, [15.0, 16.0, 15.5]), (b, [20.0, 21.0, 11.0])):
        estimate = comparison.estimate(setting, metric)
        assert estimate == Estimate.of(means)
        assert setting.seeds == [0, 1, 2]
    difference = comparison.paired(a, b, metric)
    assert difference is not None
    assert difference.difference == Estimate.of([-5.0, -5.0, 4.5])
    assert [row[1] for row in comparison.cells(as_text)] == ["3", "3"]


def test_runs_of_one_seed_have_no_interval(tmp_path: Path) -> None:
    for threads, nll in ((1, 42.0), (2, 43.0)):
        config = configuration(0)
        write_run(tmp_path, {**config, "trainer": {**config["trainer"], "threads": threads}}, nll)
    found = find_runs([str(tmp_path)])
    (setting,) = settings_of(found.done)
    assert Comparison.estimate(setting, chosen(metrics_of(found.done), ["nll"])[0]) == Estimate(42.5, None, 1)


# -- the command ---------------------------------------------------------------------------------------


def test_the_table_is_sorted_and_pairs_are_compared(two: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", str(two), "--metric", "nll"]) == 0
    out = capsys.readouterr().out
    lines = [
        line for line in out.splitlines() if "model.objective" not in line and ("ELBO  " in line or "IWAE  " in line)
    ]
    assert "left out" not in out
    assert "IWAE" in lines[0]  # less is better
    assert "ELBO" in lines[1]
    half = stats.t.ppf(0.975, 2) * statistics.stdev([18.5, 19.0, 21.5]) / math.sqrt(3)
    assert f"19.67 ± {half:.2f}" in lines[0]
    assert "NLL: " in out
    assert "-1.33 ±" in out
    assert "cannot show a difference" in out


def test_a_metric_that_few_runs_have_does_not_silence_the_others(two: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (one, *_) = find_runs([str(two)]).done
    result = json.loads((one.path / "result.json").read_text())
    result["metrics"]["test/irs"] = 0.5
    (one.path / "result.json").write_text(json.dumps(result))
    assert main(["compare", str(two), "--metric", "nll", "--metric", "irs"]) == 0
    out = capsys.readouterr().out
    assert "NLL: " in out
    assert "test/irs: it is known for fewer than two of the seeds that they share" in out


def test_brackets_in_names_and_values_are_no_markup(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "runs[1]"  # of which a glob would make runs1
    for seed, freeze in itertools.product((0, 1), ([], ["encoder"])):
        write_run(folder, {**configuration(seed), "init": {"freeze": freeze}}, 20.0 + seed + len(freeze))
    assert main(["compare", str(folder), "--metric", "nll"]) == 0
    assert re.search(r"1 +- .*\n *2 +\[encoder\] ", capsys.readouterr().out)


def test_csv_markdown_and_latex_hold_the_same_numbers(two: Path, tmp_path: Path) -> None:
    outputs = [tmp_path / f"table{suffix}" for suffix in (".csv", ".md", ".tex")]
    words = [word for path in outputs for word in ("-o", str(path))]
    assert main(["compare", str(two), "--metric", "test/nll", *words]) == 0
    with outputs[0].open() as file:
        rows = list(csv.DictReader(file))
    assert [float(row["test/nll"]) for row in rows] == pytest.approx([59 / 3, 21.0])
    assert [row["test/nll_n"] for row in rows] == ["3", "3"]
    assert float(rows[1]["test/nll_half_width"]) == pytest.approx(stats.t.ppf(0.975, 2) / math.sqrt(3))
    assert "| NLL, nats |" in outputs[1].read_text()
    assert "| 21.00 ± 2.48 |" in outputs[1].read_text()
    assert r"$21.00 \pm 2.48$" in outputs[2].read_text()
    assert r"IWAE & 3 & $19.67" in outputs[2].read_text()
    assert outputs[1].read_text().endswith("\n\n- mean ± 95 % interval over seeds\n")
    assert outputs[2].read_text().endswith("\n% mean ± 95 % interval over seeds\n")


def test_a_csv_of_runs_has_a_line_for_each(two: Path, tmp_path: Path) -> None:
    path = tmp_path / "runs.csv"
    assert main(["compare", str(two), "-o", str(path), "-o", str(tmp_path / "table.md"), "--runs"]) == 0
    with path.open() as file:
        rows = list(csv.DictReader(file))
    found = {(row["model.objective"], int(row["seed"])): float(row["test/nll"]) for row in rows}
    assert found == {
        **{("IWAE", seed): nll for seed, nll in enumerate((18.5, 19.0, 21.5))},
        **{("ELBO", seed): nll for seed, nll in enumerate((20.0, 21.0, 22.0))},
    }
    assert all(json.loads((Path(row["run"]) / "result.json").read_text())["metrics"]["test/nll"] for row in rows)
    assert {float(row["seconds"]) for row in rows} == {2.0}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nowhere"], "nowhere: no such folder"),
        (["{two}", "--metric", "nlll"], "--metric nlll: no such metric; did you mean nll?"),
        (["{two}", "-o", "table.docx"], "--output table.docx: its form must be one of .html, .csv, .md, .tex"),
        (["{two}", "--runs", "-o", "x.md"], "--runs: a line for each run is for a file; add --output FILE.csv"),
        (["{two}", "--pair", "1", "9"], "--pair 1 9: two of the settings 1 to 2"),
        (["{two}", "--udr", "lasso", "--udr", "spearman"], "argument --udr: it is given once"),
        (["{two}", "--pair", "1", "2", "--pair", "2", "1"], "argument --pair: it is given once"),
        (["{empty}"], "there is no run in"),
        ([], "which runs? name a folder"),
        (["{cut}"], "result.json cannot be read: "),
        (["{half}"], "status.json cannot be read: "),
        (["{ended}"], "config.yaml cannot be read: its tags is missing"),
        (["{listed}"], "choices.yaml cannot be read: a mapping is expected at the top"),
        (["{two}", "-o", "{two}/new/x.md", "-o", "/dev/null/x.csv"], "--output /dev/null/x.csv cannot be written: Not"),
    ],
)
def test_what_is_wrong_is_one_line(two, tmp_path_factory, capsys, words, message) -> None:
    empty = tmp_path_factory.mktemp("empty")
    cut = write_run(tmp_path_factory.mktemp("cut"), configuration(0), 1.0)
    (cut / "result.json").write_text('{"metr')
    half = write_run(tmp_path_factory.mktemp("half"), configuration(0), 1.0)
    (half / "status.json").write_text('{"st')
    ended = write_run(tmp_path_factory.mktemp("ended"), configuration(0), 1.0)
    (ended / "config.yaml").write_text((ended / "config.yaml").read_text().partition("paths:")[0] + "seed: 0\n")
    listed = write_run(tmp_path_factory.mktemp("listed"), configuration(0), 1.0)
    (listed / ".hydra" / "choices.yaml").write_text("- data\n")
    folders = {"two": two, "empty": empty, "cut": cut, "half": half, "ended": ended, "listed": listed}
    assert main(["compare", *(word.format(**folders) for word in words)]) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.count("\n") == 1
    assert captured.out == ""
    assert not (two / "new").exists()


def test_runs_that_cannot_be_read_are_left_out_in_a_line_each(two: Path, tmp_path: Path, capsys) -> None:
    """One of them ended the comparison of all."""
    shutil.copytree(two, tmp_path / "all")
    broken = [write_run(tmp_path / "all" / str(seed), configuration(seed), 1.0) for seed in range(90, 94)]
    (broken[0] / "config.yaml").write_text("{")
    (broken[1] / "status.json").write_text("[]")
    (broken[2] / "result.json").write_text("")
    (broken[3] / "metrics.csv").write_text("step,epoch,metric,value\n1,0,val/elbo,x\n")
    assert main(["compare", str(tmp_path / "all"), "-o", str(tmp_path / "page.html")]) == 0
    out, err = capsys.readouterr()
    left, curves = err.splitlines()[:-1], err.splitlines()[-1]
    for line, run, name in zip(left, broken, ("config.yaml", "status.json", "result.json"), strict=False):
        assert line.startswith(f"left out: {run / name} cannot be read: ")
    assert len(left) == 3
    assert curves.startswith(f"curves left out: {broken[3] / 'metrics.csv'}, line 2 cannot be read")
    assert "NLL" in out
    assert (tmp_path / "page.html").is_file()


# -- the page ------------------------------------------------------------------------------------------


def test_the_page_fetches_nothing_and_no_value_can_break_out(two: Path, tmp_path: Path) -> None:
    write_run(two, configuration(0, "ELBO", note="</script><script>alert(1)</script>"), 1.0)
    page = tmp_path / "page.html"
    assert main(["compare", str(two), "-o", str(page)]) == 0
    html = page.read_text()
    assert "<script>alert" not in html
    assert "\\u003cscript>alert" in html
    assert "http" not in html.replace("http://www.w3.org/2000/svg", "")


def test_a_page_of_fifty_runs_stays_below_ten_megabytes(tmp_path: Path) -> None:
    noise = np.random.default_rng(0)
    for i in range(50):
        path = write_run(tmp_path, configuration(0, "ELBO", weight=float(i)), 20.0 + i)
        rows = [
            f"{step},0,{metric},{noise.normal()}" for step in range(400) for metric in ("val/elbo", "train/elbo", "a")
        ]
        (path / "metrics.csv").write_text("\n".join(["step,epoch,metric,value", *rows]) + "\n")
        (path / "media").mkdir()
        for name in ("samples", "reconstructions", "latent_map"):
            (path / "media" / f"{name}.png").write_bytes(noise.bytes(150_000))  # as noise: not to be compressed
    page = tmp_path / "page.html"
    assert main(["compare", str(tmp_path), "-o", str(page)]) == 0
    assert 2_000_000 < page.stat().st_size < 10_000_000


def test_the_page_has_every_kind_of_picture_of_a_run(two: Path, tmp_path: Path) -> None:
    """Of attention each layer's, whatever it is called; not those that a command has drawn, nor of earlier epochs."""
    # Of the first run that has them: here one with another seed than the first run of its setting.
    first = next(run.path for run in find_runs([str(two)]).done if run.seed == 1)
    names = ("attention_decoder_layers_1", "samples", "confusion")
    (first / "media").mkdir()
    for name in (*names, "samples-n9-seed1", "samples-epoch0001"):
        (first / "media" / f"{name}.png").write_bytes(name.encode())
    page = tmp_path / "page.html"
    assert main(["compare", str(two), "-o", str(page)]) == 0
    content = page.read_text().partition('type="application/json">')[2].partition("</script>")[0]
    shown = json.loads(content)["settings"]
    pictures = {name: uri for setting in shown for name, (uri, _) in setting["pictures"].items()}
    assert {seed for setting in shown for _, seed in setting["pictures"].values()} == {1}
    assert {name: base64.b64decode(uri.partition(",")[2]).decode() for name, uri in pictures.items()} == {
        name: name for name in names
    }
    assert list(pictures) == ["samples", "confusion", "attention_decoder_layers_1"]


MEASURE = """
<script>
const boxes = [...document.querySelectorAll("#gallery figcaption")];
document.body.dataset.over = Math.max(...boxes.map(box => box.scrollWidth - box.clientWidth));
</script></body>"""


@pytest.mark.skipif(shutil.which("chromium") is None, reason="there is no chromium: apt-get install chromium")
def test_long_labels_stay_in_their_cards_in_a_browser(tmp_path: Path) -> None:
    """Of model/decoder=latent_diffusion beside its seed, the seed was cut off."""
    for decoder in ("a" * 60, "b" * 60):
        run = write_run(tmp_path, {**configuration(0), "model": part(decoder=decoder)}, 1.0)
        (run / "media").mkdir()
        (run / "media" / "samples.png").write_bytes(b"")
    page = tmp_path / "page.html"
    assert main(["compare", str(tmp_path), "-o", str(page)]) == 0
    page.write_text(page.read_text().replace("</body>", MEASURE))
    browser = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    shown = subprocess.run([*browser, "--dump-dom", page.as_uri()], capture_output=True, text=True, timeout=120)
    assert 'data-over="0"' in shown.stdout


CLICK = """
<script>
document.querySelectorAll("#table th")[2].click();
document.querySelectorAll("#table th")[2].click();
const sorted = [...document.querySelectorAll("#table tbody tr")].map(row => row.cells[0].textContent.trim());
document.getElementById("filter").value = "iwae";
document.getElementById("filter").dispatchEvent(new Event("input"));
document.body.dataset.sorted = sorted.join(" ");
document.body.dataset.filtered = document.querySelectorAll("#table tbody tr").length;
document.body.dataset.curves = document.querySelectorAll("#curves polyline").length;
document.body.dataset.curve = document.getElementById("curve").value;
document.body.dataset.points = document.querySelectorAll("#scatter circle").length;
</script></body>"""


@pytest.mark.skipif(shutil.which("chromium") is None, reason="there is no chromium: apt-get install chromium")
def test_the_page_sorts_filters_and_draws_in_a_browser(two: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    assert main(["compare", str(two), "--metric", "nll", "-o", str(page)]) == 0
    page.write_text(page.read_text().replace("</body>", CLICK))
    browser = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    shown = subprocess.run([*browser, "--dump-dom", page.as_uri()], capture_output=True, text=True, timeout=120)
    assert (
        'data-sorted="ELBO IWAE"' in shown.stdout
    )  # the first click: the most, which is better; the second: the other way round
    assert 'data-filtered="1"' in shown.stdout
    assert 'data-curves="1"' in shown.stdout
    assert 'data-curve="val/elbo"' in shown.stdout  # an NLL has no curve
    assert 'data-points="4"' in shown.stdout  # three seeds and their mean
