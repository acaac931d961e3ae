"""`attelbo reproduce`: every paper's file, the runs it asks for, and what is said of the numbers."""

import importlib.metadata
import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from attelbo.cli import main
from attelbo.errors import ConfigError
from attelbo.experiments.comparison.statistics import Estimate
from attelbo.experiments.composing import session
from attelbo.experiments.configuration import check, compose
from attelbo.experiments.papers.specification import Paper, papers, read_paper
from attelbo.experiments.papers.table import FORMS, Reproduction, Row

CONTENT: dict[str, Any] = {
    "title": "A small table",
    "source": "Nobody 2026",
    "metric": "test/elbo",
    "unit": "nats",
    "better": "more",
    "tolerance": 1.0,
    "words": [],
    "cells": {
        "a": {"title": "A", "published": -20.0, "trust": "A"},
        "b": {"words": ["model.latent_dim=3"], "published": -19.0, "trust": "B", "source": "quoted by Somebody"},
        "c": {"words": ["model.latent_dim=4"]},
    },
    "order": ["a", "b"],
    "budgets": {"smoke": {"note": "two epochs"}, "quick": {"seeds": 2}, "full": {"seeds": 3}},
}


def paper(**changes: Any) -> Paper:
    return Paper.model_validate({**CONTENT, **changes})


def reproduction(budget: Any, *measured: float | None, missing: int = 0, **changes: Any) -> Reproduction:
    p = paper(**changes)
    estimates = [None if value is None else Estimate(value, 0.3, 3) for value in measured]
    rows = [Row(name, p.cells[name], e, 1.0, missing, "2026-11-26") for name, e in zip(p.cells, estimates, strict=True)]
    return Reproduction(p, budget, rows)


@pytest.mark.parametrize("name", papers())
def test_every_run_of_every_paper_composes(name: str) -> None:
    p = read_paper(name)
    assert all(cell.published is None or (cell.tolerance or p.tolerance) for cell in p.cells.values())
    every = {tuple(words): words for budget in p.budgets for cell in p.cells for words in p.jobs(cell, budget, 1)}
    with session():  # each file is read once
        for words in every.values():
            check(compose("train", words))


@pytest.mark.parametrize("name", papers())
def test_every_paper_is_described(name: str) -> None:
    first = papers()[name].read_text().splitlines()[0]
    assert first.startswith("# ")
    assert any(str(year) in first for year in range(1980, 2030))


def test_of_two_words_for_one_key_the_later_counts() -> None:
    p = paper(
        words=["trainer.max_epochs=9", "data=mnist"],
        budgets={**CONTENT["budgets"], "smoke": {"words": ["trainer.max_epochs=1"]}},
    )
    assert p.jobs("b", "smoke", 2, ["data=digits"]) == [
        ["trainer.max_epochs=1", "data=digits", "model.latent_dim=3", f"seed={seed}"] for seed in (0, 1)
    ]


def test_each_cell_is_run_with_every_choice_and_shows_the_best_in_validation() -> None:
    p = paper(best_of=["optimizer.lr=1e-3", "optimizer.lr=1e-2"])
    assert p.choices("full") == ["optimizer.lr=1e-3", "optimizer.lr=1e-2"]
    assert p.choices("full", ["optimizer.lr=5"]) == [None]
    assert p.jobs("a", "full", 1, [], "optimizer.lr=1e-2") == [["optimizer.lr=1e-2", "seed=0"]]

    def run(value: float, test: float, state: str = "done", first: float = -99.0) -> Any:
        curves = {"val/elbo": [(1, first), (2, value)]}
        return SimpleNamespace(
            state=state,
            seconds=60.0,
            path=Path(str(test)),
            result={},
            metrics={"test/elbo": test},
            curves=curves,
            status={"ended": "2026-11-26T01:00"},
            provenance={},
        )

    runs = {
        "a": [[run(-20.0, -30.0)], [run(-21.0, -10.0)]],
        "b": [[run(-20.0, -10.0)], [run(-19.0, -30.0)]],
        "c": [[run(0.0, 0.0, "failed")], [run(-50.0, -40.0)]],
    }
    table = Reproduction.of(p, "full", runs, p.choices("full"))
    assert [row.choice for row in table.rows] == ["optimizer.lr=1e-3", "optimizer.lr=1e-2", "optimizer.lr=1e-2"]
    assert [row.measured and row.measured.mean for row in table.rows] == [-30.0, -30.0, -40.0]
    assert [row.missing for row in table.rows] == [0, 0, 0]  # one that has failed will not be waited for
    assert {row.date for row in table.rows} == {"2026-11-26"}
    assert "A: optimizer.lr=1e-3 is the best of 2 in validation" in table.notes()
    begun = Reproduction.of(p, "full", {**runs, "a": [[run(-20.0, -30.0)], [None]]}, p.choices("full"))
    assert begun.verdict(begun.rows[0]) == "1 run missing"
    # What is not finite is no best; a run with nothing else is worse than any.
    nan, inf = math.nan, math.inf
    broken = {
        "a": [[run(-21.0, -10.0)], [run(-20.0, -30.0, first=nan)]],
        "b": [[run(nan, -10.0), run(-1.0, -10.0)], [run(-60.0, -30.0, first=inf)]],
        "c": [[run(nan, -10.0, first=nan)], [run(-19.0, -30.0)]],
    }
    assert [row.choice for row in Reproduction.of(p, "full", broken, p.choices("full")).rows] == [
        "optimizer.lr=1e-2",
        "optimizer.lr=1e-3",
        "optimizer.lr=1e-2",
    ]
    falling = {
        "a": [[run(2.0, 30.0, first=99.0)], [run(1.0, 10.0, first=99.0)]],
        "b": [[run(1.0, 10.0, first=99.0)], [run(2.0, 30.0, first=99.0)]],
        "c": [[run(nan, 10.0, first=nan)], [run(3.0, 40.0, first=0.0)]],
    }
    less = Reproduction.of(paper(better="less", best_of=p.best_of), "full", falling, p.choices("full"))
    assert [row.measured and row.measured.mean for row in less.rows] == [10.0, 10.0, 40.0]
    mistyped = Reproduction.of(paper(metric="test/elbow"), "full", {**runs, "c": [[None]]})
    told = "none of its runs has test/elbow; did you mean test/elbo? (there are test/elbo)"
    assert [note for note in mistyped.notes() if "elbow;" in note] == [f"A: {told}", f"b: {told}"]


def test_pairs_of_cells_are_compared_over_the_seeds_that_both_have() -> None:
    def run(seed: int, elbo: float, ended: str) -> Any:
        return SimpleNamespace(
            path=Path("run"),
            seed=seed,
            state="done",
            seconds=60.0 + seed,
            result={},
            metrics={"test/elbo": elbo},
            curves={},
            status={"ended": ended},
            provenance={},
        )

    a = [run(seed, -20.0 - seed**2, f"2026-11-2{9 - seed}T01:00") for seed in range(6)]
    b = [run(seed, -21.0 - seed**2, "2026-11-20T01:00") for seed in (5, 4, 3, 2, 1, 0, 6)]
    p = paper(pairs=[["a", "b"], ["a", "c"]])
    table = Reproduction.of(p, "full", {"a": [a], "b": [b], "c": [b[:1]]})
    (told,) = [note for note in table.notes() if " minus " in note]
    assert told.startswith("test/elbo: A minus b: 1.00 ± 0.00 over 6 shared seeds")
    assert table.rows[0].date == "2026-11-29"  # the latest


def test_a_cell_that_collapsed_is_told_once() -> None:
    measures = [["kl", "KL", "nats"], ["active_units", "active units", "of 2"]]

    def run(name: str, active: float) -> Any:
        metrics = {"test/elbo": -1.0, "test/kl": 0.01, "test/active_units": active}
        result = {"metrics": metrics, "measures": measures}
        return SimpleNamespace(
            path=Path(name),
            state="done",
            seconds=1.0,
            result=result,
            metrics=metrics,
            status={},  # without its end, as in a file that was edited
            curves={},
            provenance={},
        )

    shared, sound = [run("1", 2.0), run("2", 0.0), run("3", 0.0)], [run("4", 1.0)]
    notes = Reproduction.of(paper(), "full", {"a": [shared], "b": [shared], "c": [sound]}).notes()
    (told,) = [note for note in notes if "no latent dimension" in note]
    assert told.startswith("A: no latent dimension is active, the KL is 0.01 nats")
    assert told.endswith("(in 2 of 3 runs)")


def test_the_forms_of_a_table() -> None:
    full = reproduction("full", -20.5, None, -18.0)
    assert set(FORMS) == {".md", ".csv", ".tex"}
    lines = FORMS[".csv"](full).splitlines()
    assert lines[1] == "A,-20.00,A,-20.50 ± 0.30,3,1,2026-11-26,reproduced (within 1)"
    latex = FORMS[".tex"](full)
    assert r"A & -20.00 & A & -20.50 $\pm$ 0.30 & 3 & 1 & 2026-11-26 & reproduced (within 1) \\" in latex
    assert latex.count("\n% ") == len(full.notes())
    assert "- measured: mean ± 95 % interval over seeds\n" in FORMS[".md"](full)
    single = Reproduction(paper(order=[]), "full", [Row("a", full.paper.cells["a"], Estimate.of([-20.0]), 1.0, 0)])
    assert "±" not in FORMS[".md"](single)


def test_verdicts_are_given_at_the_full_budget_on_published_values_only() -> None:
    full = reproduction("full", -20.5, -21.0, -18.0)
    assert [full.verdict(row) for row in full.rows] == ["reproduced (within 1)", "worse by 2.00 (tolerance 1)", ""]
    better = reproduction("full", -18.0, -19.0, None)
    assert better.verdict(better.rows[0]) == "better by 2.00 (tolerance 1)"
    quick = reproduction("quick", -20.5, -21.0, -18.0)
    assert [quick.verdict(row) for row in quick.rows] == ["", "", ""]
    assert "a verdict is given at --budget full only" in quick.notes()
    assert "a verdict is given at --budget full only" not in full.notes()
    assert [note for note in full.notes() if "Somebody" in note] == ["b: quoted by Somebody"]
    assert full.head[1::2] == ["published, nats", "measured, nats", "s a run", "verdict"]
    short = reproduction("full", -20.5, -21.0, -18.0, missing=1)
    assert short.verdict(short.rows[0]) == "1 run missing"


def test_better_and_worse_that_seeds_do_not_show_are_told() -> None:
    """Max regression of the set transformer's paper at three seeds was better by 0.07, with an interval of ± 0.12."""
    p = paper()
    for values, told in (
        ([-22.0, -22.5, -21.5], "worse by 2.00 (tolerance 1)"),
        ([-22.0, -24.0, -20.0], "worse by 2.00 (tolerance 1), within the interval"),
        ([-22.0], "worse by 2.00 (tolerance 1)"),
        ([-20.0, -24.0, -16.0], "reproduced (within 1)"),
    ):
        row = Row("a", p.cells["a"], Estimate.of(values), 1.0, 0)
        assert Reproduction(p, "full", [row]).verdict(row) == told


def test_what_is_not_a_number_is_neither_better_nor_worse() -> None:
    p = paper(better="less")
    row = Row("a", p.cells["a"], Estimate.of([-20.0, float("nan")]), 1.0, 0)
    assert Reproduction(p, "full", [row]).verdict(row) == "not a number"


def test_no_title_and_no_note_breaks_a_table() -> None:
    p = paper(
        cells={"a": {"title": "p(x|z)", "published": 1.0, "trust": "A"}}, order=[], note="One line\nand another.\n"
    )
    made = Reproduction(p, "full", [Row("a", p.cells["a"], None, None, 1)])
    assert r"| p(x\|z) | 1.00 |" in FORMS[".md"](made)
    assert all(
        line.startswith("% ") for line in FORMS[".tex"](made).partition(r"\end{tabular}")[2].strip().splitlines()
    )


LESS_IS_BETTER = {"bits_per_dim", "coded_bits_per_dim", "gap", "loss", "mae", "nll", "reconstruction"}


@pytest.mark.parametrize("name", papers())
def test_a_number_that_is_too_good_is_called_better(name: str) -> None:
    p = read_paper(name)
    for cell, of in p.cells.items():
        if of.published is not None:
            sign = -1 if p.metric_of(cell).removeprefix("test/") in LESS_IS_BETTER else 1
            row = Row(cell, of, Estimate(of.published + 100 * sign, 0.0, 3), 1.0, 0)
            assert Reproduction(p, "full", [row]).verdict(row).startswith("better by 100"), cell


def test_the_claimed_order_is_checked() -> None:
    assert reproduction("full", -20.0, -19.0, None).order() == "order b > A, the best first: holds"
    assert reproduction("full", -19.0, -20.0, None).order() == "order b > A, the best first: does not hold"
    assert "which decides nothing" in reproduction("smoke", -19.0, -20.0, None).order()
    assert "not all cells are measured" in reproduction("full", -19.0, None, None).order()
    every: Any = {"order": ["a", "b", "c"]}
    assert reproduction("full", -20.0, -19.0, -18.0, **every).order() == "order c > b > A, the best first: holds"
    for wrong in ((-20.0, -18.0, -19.0), (-19.0, -20.0, -18.0)):
        assert reproduction("full", *wrong, **every).order().endswith("does not hold")
    assert reproduction("full", 20.0, 19.0, 18.0, **every, better="less").order().endswith(": holds")
    # Of two intervals of 0.3 each, a difference of 0.5 decides nothing.
    assert reproduction("full", -20.0, -19.0, -19.0, **every).order().endswith("does not hold, within the intervals")
    assert reproduction("full", -20.0, -19.5, -18.0, **every).order().endswith(": holds, within the intervals")
    assert reproduction("full", -19.0, -19.5, -18.0, **every).order().endswith("does not hold, within the intervals")
    assert reproduction("full", -19.0, -19.5, -20.5, **every).order().endswith("does not hold")
    assert reproduction("full", -20.0, -19.0, -18.0, **every, better="less").order().endswith("does not hold")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"cells": {"a": {"published": 1.0}}}, "a published value and its trust mark"),
        ({"cells": {"a": {"published": 1.0, "trust": "C"}}}, "cells.a.trust: Input should be 'A' or 'B'"),
        ({"order": ["x"]}, "order: x: no such cell"),
        (
            {"budgets": {"smoke": {}}},
            "paper.yaml: a paper has at least one cell, and the budgets smoke, quick and full",
        ),
        ({"metrik": 1}, "metrik: Extra inputs are not permitted"),
    ],
)
def test_a_wrong_file_is_one_line(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    folder = tmp_path / "paper" / "small"
    folder.mkdir(parents=True)
    (folder / "paper.yaml").write_text(yaml.safe_dump({**CONTENT, **changes}))
    with pytest.raises(ConfigError) as error:
        read_paper("small", tmp_path)
    assert message in str(error.value)
    assert str(error.value).startswith("conf/paper/small/paper.yaml: ")


@pytest.mark.parametrize(
    ("word", "given", "told"),
    [
        ("modle.latent_dim=3", [], "modle.latent_dim (conf/paper/small/paper.yaml): unknown key; did you mean"),
        ("model=vea", [], "model=vea (conf/paper/small/paper.yaml): no such choice; did you mean vae?"),
        ("tags={a", [], "'tags={a' (conf/paper/small/paper.yaml): not of the form key=value"),
        ("tags=[x]", ["modle.latent_dim=3"], "modle.latent_dim (command line): unknown key; did you mean"),
    ],
)
def test_a_wrong_word_is_told_with_the_file_where_it_stands(
    word: str, given: list[str], told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "paper" / "small"
    folder.mkdir(parents=True)
    (folder / "paper.yaml").write_text(yaml.safe_dump({**CONTENT, "words": [word]}))
    assert main(["reproduce", "small", "--budget", "smoke", "--config-dir", str(tmp_path), *given]) == 2
    assert capsys.readouterr().err.startswith(f"error: {told}")


def test_a_paper_in_the_wrong_place_is_told_the_right_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "paper").mkdir()
    (tmp_path / "paper" / "mine.yaml").write_text(yaml.safe_dump(CONTENT))
    assert main(["reproduce", "mine", "--config-dir", str(tmp_path)]) == 2
    place = "conf/paper/mine.yaml is no paper: conf/paper/mine/paper.yaml is its place"
    assert capsys.readouterr().err == f"error: reproduce mine: {place}\n"


def test_a_table_is_rebuilt_and_goes_on(runs, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small = [word for word in runs.words("trainer.max_epochs=1") if not word.startswith("model.latent_dim")]
    folder = tmp_path / "conf" / "paper" / "small"
    folder.mkdir(parents=True)
    (folder / "paper.yaml").write_text("# A small table (Nobody 2026)\n" + yaml.safe_dump({**CONTENT, "words": small}))
    command = ["reproduce", "small", "--budget", "smoke", "--config-dir", str(tmp_path / "conf")]
    assert main([*command, "--cell", "b"]) == 0
    out = capsys.readouterr().out
    assert "sweep: 1 of 1 jobs done" in out
    (table,) = runs.folder.glob("papers/small/smoke-*/table.md")
    rows = [[cell.strip() for cell in line.split("|")[1:]] for line in table.read_text().splitlines() if "|" in line]
    assert {row[0]: row[3] == "-" for row in rows if row[0] in ("A", "b", "c")} == {"A": True, "b": False, "c": True}
    assert main(command) == 0  # the others too
    out = capsys.readouterr().out
    assert "sweep: 1 of 3 jobs are done already" in out
    assert "sweep: 3 of 3 jobs done" in out
    line = next(line for line in out.splitlines() if line.split()[:1] == ["b"])
    assert line.split()[1:3] == ["-19.00", "B"]
    (table,) = runs.folder.glob("papers/small/smoke-*/table.md")
    assert "| b | -19.00 | B |" in table.read_text()
    assert "quoted by Somebody" in table.read_text()
    assert f", torch {importlib.metadata.version('torch')}, " in table.read_text()
    assert main([*command, "--seeds", "2"]) == 0  # three more runs beside the others
    out = capsys.readouterr().out
    assert "sweep: 3 of 6 jobs are done already" in out
    assert list(runs.folder.glob("papers/small/smoke-*/table.md")) == [table]
    assert main(command) == 0  # fewer seeds than there are
    assert "sweep: 3 of 3 jobs are done already" in capsys.readouterr().out
    (ledger,) = runs.folder.glob("papers/small/smoke-*/sweep.json")
    assert [job["state"] for job in json.loads(ledger.read_text())["jobs"]] == ["done"] * 6
    rows = [[cell.strip() for cell in line.split("|")[1:]] for line in table.read_text().splitlines() if "|" in line]
    assert [row[4] for row in rows if row[0] in ("A", "b", "c")] == ["1", "1", "1"]
    assert main(["reproduce", "--list", "--config-dir", str(tmp_path / "conf")]) == 0
    out = capsys.readouterr().out
    assert "small" in out
    assert "A small table (Nobody 2026)" in out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["iwea"], "reproduce iwea: no such paper; did you mean iwae?"),
        (["iwae", "--budget", "huge"], "invalid choice: 'huge'"),
        (["iwae", "--cell", "iwea_5"], "--cell iwea_5: no such cell; did you mean iwae_5?"),
        (["iwae", "--seeds", "0"], "--seeds must be at least 1, got 0"),
        ([], "which paper? attelbo reproduce --list"),
        (
            ["sort_reverse", "-o", "/dev/null/x.md"],
            "reproduce: --output /dev/null/x.md cannot be written: Not a directory",
        ),
        (
            ["iwae", "model.latnet_dim=2"],
            "model.latnet_dim (command line): unknown key; did you mean model.latent_dim?",
        ),
    ],
)
def test_what_is_wrong_is_one_line(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["reproduce", *words]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
