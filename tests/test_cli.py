"""The command line: start-up, help, what it hands to the run, exit codes."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from attelbo.cli import INTERRUPTED, UNREAD, main
from attelbo.cli.usage import SWEEP
from attelbo.errors import DataError
from attelbo.experiments import assembly, run
from attelbo.experiments.rundir import RunDirectory
from attelbo.models import loading

STOPPED = 143

LIGHT = """
import contextlib, io, sys
from attelbo.cli import main
with contextlib.redirect_stdout(io.StringIO()) as out:
    code = main({words!r})
assert code == 0 and len(out.getvalue()) > 100, out.getvalue()
heavy = {{"torch", "hydra", "omegaconf", "lightning", "matplotlib", "pydantic", "numpy"}} & set(sys.modules)
sys.exit(f"imported: {{heavy}}" if heavy else 0)
"""


@pytest.mark.parametrize(
    "words",
    [
        ["--help"],
        ["train", "--help"],
        ["evaluate", "-h"],
        ["sample", "-h"],
        ["traverse", "-h"],
        ["check", "-h"],
        ["list"],
        ["list", "model"],
    ],
    ids=" ".join,
)
def test_help_and_list_import_nothing_heavy(words):
    done = subprocess.run(
        [sys.executable, "-c", LIGHT.format(words=words)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("word", ["model.latnet_dim=3", "+typo=1", "model=vea"])
def test_a_slip_is_answered_without_torch(word):
    code = (
        f"import sys; from attelbo.cli import main; sys.exit(main(['train', {word!r}]) != 2 or 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr.startswith("error: ")


def test_the_states_of_sweeps_and_the_comparison_of_runs_do_not_wait_for_torch(tmp_path):
    code = "import sys; import attelbo.experiments.comparison, attelbo.experiments.sweeps.showing as showing\n"
    ledger = {"jobs": [{"number": 0, "hash": "a1", "words": ["seed=1"]}]}
    (tmp_path / "sweep.json").write_text(json.dumps(ledger), encoding="utf-8")
    code += f"from pathlib import Path; showing.status([Path({str(tmp_path)!r})]); sys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "seed=1" in done.stdout


def test_python_m_attelbo_is_the_command():
    done = subprocess.run([sys.executable, "-m", "attelbo", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("attelbo ")


def test_without_a_word_it_says_what_it_can(capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["attelbo"])
    assert main() == main([]) == main(["--help"]) == 0
    once, *others = capsys.readouterr().out.split("attelbo: ")[1:]
    assert others == [once, once]


def test_a_reader_who_wants_no_more_is_no_error():
    pipe = "set -o pipefail; " + sys.executable + " -m attelbo list model | true"
    done = subprocess.run(["bash", "-c", pipe], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (UNREAD, "")


def test_a_closed_output_is_no_error():
    closed = f"{sys.executable} -m attelbo --version >&-"
    assert subprocess.run(["bash", "-c", closed], capture_output=True, check=True).stderr == b""


def test_help_of_a_command_names_its_options_and_keys(capsys):
    assert main(["train", "--help"]) == 0
    out = capsys.readouterr().out
    for word in ("--multirun", "--config-dir", "--cfg", "seed: 0", "- model: vae"):
        assert word in out


@pytest.mark.parametrize("command", ["evaluate", "fit-prior"])
def test_help_of_a_command_says_all_that_it_does_and_no_option_that_it_refuses(command, capsys):
    """A second line of what fit-prior does was cut off, and ``-m`` stood among the options of all of them."""
    assert main(["--help"]) == main([command, "--help"]) == 0
    everything, own = capsys.readouterr().out.split(f"attelbo {command} ")[1:3]
    said = re.split(r"\n  attelbo |\n\n", everything)[0].split()
    assert own.split()[: len(said)] == said
    assert "--multirun" not in own
    assert "--config-dir" in own


@pytest.mark.parametrize("words", [["sweep"], ["sweep", "status", "--help"], ["sweep", "dry", "-h"]], ids=" ".join)
def test_help_of_sweep(words, capsys):
    assert main(words) == 0
    assert capsys.readouterr().out == SWEEP


def test_unknown_command(capsys):
    assert main(["trian"]) == 2
    known = (
        "train, check, list, evaluate, sample, translate, predict, reconstruct, interpolate, traverse, embed, "
        "fit-prior, rerun, compare, sweep, reproduce, wandb, completion"
    )
    message = f"error: trian: no such command; did you mean train? (there are {known})\n"
    assert capsys.readouterr().err == message


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("--hlep", "; did you mean --help? (there are --help, --version)"),
        ("--versoin", "; did you mean --version? (there are --help, --version)"),
        ("train --hepl", "; did you mean --help?"),
        ("train --model=vae", "; keys are written without dashes: model=..."),
        ("train -seed=3", "; keys are written without dashes: seed=..."),
        ("train seed = 3", "'seed' (command line): not of the form key=value; no spaces stand around the ="),
        ("evaluate x seed=1,2", "'1,2' is a sweep, and this command runs once: give one value, or write seed=[...]"),
        ("evaluate x split=val", "got 'val'; did you mean validation?"),
        ("evaluate x model.dim=3", "model.dim (command line): unknown key; the option --cfg job prints the keys"),
        (f"evaluate {__file__}", "test_cli.py is a file; a run is a folder, such as outputs/<name>/<run id>"),
        (
            "reproduce iwae smoke",
            "smoke: options are written with dashes: --budget smoke; see attelbo reproduce",
        ),
        ("reproduce list", "list: options are written with dashes: --list; see"),
        ("compare x metric=nll", "metric=nll: options are written with dashes: --metric nll; see"),
        ("wandb report x dry", "dry: options are written with dashes: --dry; see"),
        ("list model encoder", "list: one group at a time, such as model/encoder"),
    ],
)
def test_a_slip_is_answered_with_what_was_meant(line, told, capsys):
    assert main(line.split()) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert told in error
    assert error.count("\n") == 1


def test_help_of_a_command_by_its_name(capsys):
    assert main(["help", "sample"]) == main(["sample", "--help"]) == 0
    out = capsys.readouterr().out
    assert out[: len(out) // 2] == out[len(out) // 2 :]


class Recorder:
    """Stands for :func:`attelbo.experiments.run.train`: keeps what it was given."""

    def __init__(self, outcomes):
        self.outcomes = list(outcomes)
        self.calls = []

    def __call__(self, config, overrides, choices, sweep, loaded, job_type):
        self.calls.append(
            SimpleNamespace(config=config, overrides=overrides, choices=choices, sweep=sweep, argv=sys.argv)
        )
        outcome = self.outcomes.pop(0)
        if isinstance(outcome, BaseException):
            raise outcome
        if sweep is not None and outcome == 0:
            RunDirectory.job(sweep, config).write("status.json", {"state": "done"})
        return SimpleNamespace(exit_code=outcome, run_dir=Path("x"))


@pytest.fixture
def runs(monkeypatch, tmp_path):
    """Replace the run by a recorder that gives the outcomes asked for."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(assembly, "verify", lambda config: "")

    def replace(*outcomes):
        recorder = Recorder(outcomes)
        monkeypatch.setattr(run, "train", recorder)
        return recorder

    return replace


def test_train_hands_over_plain_configuration_words_and_choices(runs, tmp_path, monkeypatch):
    recorder = runs(0)
    monkeypatch.setattr(sys, "argv", ["attelbo", "train", "seed=0", "data=mnist"])
    assert main() == 0
    (call,) = recorder.calls
    assert type(call.config) is dict
    assert type(call.config["data"]) is dict
    assert call.config["seed"] == 0
    assert call.overrides == ["seed=0", "data=mnist", "~experiment"]
    assert call.choices["data"] == "mnist"
    assert not any("hydra" in group for group in call.choices)
    assert call.sweep is None
    assert call.argv == ["attelbo", "train", "seed=0", "data=mnist"]  # Lightning starts its other processes with it
    assert list(tmp_path.iterdir()) == []  # Hydra writes nothing


@pytest.mark.parametrize("code", [0, 1, STOPPED])
def test_the_exit_code_of_a_run_is_that_of_the_command(runs, code):
    runs(code)
    assert main(["train"]) == code


def test_what_the_user_can_mend_is_one_line(runs, capsys):
    runs(DataError("data/mnist.gz is damaged; delete it"))
    assert main(["train"]) == 2
    assert capsys.readouterr().err == "error: data/mnist.gz is damaged; delete it\n"


def test_a_defect_keeps_its_traceback(runs, capsys):
    runs(ZeroDivisionError("a defect"))
    assert main(["train"]) == 1
    err = capsys.readouterr().err
    assert "Traceback" in err
    assert "ZeroDivisionError: a defect" in err


@pytest.mark.parametrize(
    ("error", "asked"),
    [
        (
            RuntimeError("CPUAllocator: can't allocate memory: you tried to allocate 51200000000 bytes"),
            "51.2 GB",
        ),
        (RuntimeError("CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has a total capacity of"), "2.5 GiB"),
        (MemoryError("Unable to allocate 745. GiB for an array with shape (10,)"), "745.0 GiB"),
        (MemoryError(), None),
    ],
)
def test_too_little_memory_is_one_line(error, asked, runs, capsys):
    runs(error)
    assert main(["train"]) == 2
    told = f" ({asked} were asked for at once)" if asked else ""
    err = capsys.readouterr().err
    assert err.startswith(f"error: out of memory{told}: a smaller model takes less, so do smaller batches, ")
    assert err.count("\n") == 1


def test_a_model_that_no_memory_holds_is_one_line(capsys):
    assert main(["check", f"model.latent_dim={10**15}"]) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: out of memory (")
    assert err.count("\n") == 1


def test_layers_that_memory_holds_one_by_one_but_not_together_are_one_line(capsys, monkeypatch):
    """The system ended the process."""
    monkeypatch.setattr(loading, "free_memory", lambda: 100_000)
    assert main(["check"]) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: model: out of memory: its parameters take more than the 0.0 GB that are free; fewer")
    assert err.count("\n") == 1


def test_the_keyboard_interrupts(runs):
    runs(KeyboardInterrupt())
    assert main(["train"]) == INTERRUPTED


def test_a_multirun_runs_every_job_in_one_sweep(runs, capsys):
    recorder = runs(0, 1, ZeroDivisionError("a defect"), 0)
    assert main(["train", "-m", "seed=1,2", "model/likelihood=bernoulli,normal"]) == 1  # a failed job stops no other
    assert [(call.config["seed"], call.choices["model/likelihood"]) for call in recorder.calls] == [
        (1, "bernoulli"),
        (1, "normal"),
        (2, "bernoulli"),
        (2, "normal"),
    ]
    (folder,) = {call.sweep for call in recorder.calls}
    assert f"sweep: 2 of 4 jobs done in {folder}\n" in capsys.readouterr().out


def test_a_sweep_is_named_by_what_it_runs(runs):
    folders = []
    for words in (["seed=1,2"], ["seed=2,1", "paths.data_dir=x"], ["seed=1,3"]):
        recorder = runs(0, 0)
        assert main(["train", "-m", *words]) == 0
        folders.append(recorder.calls[0].sweep)
        shutil.rmtree(folders[-1])  # or nothing would be left to do
    assert folders[0] == folders[1] != folders[2]
    assert folders[0].parts[0] == "outputs"
    assert folders[0].name.startswith("sweep-")


def test_a_sweep_may_be_given_its_folder(runs, capsys):
    recorder = runs(0)
    assert main(["train", "name=x", "hydra.mode=MULTIRUN", "hydra.sweep.dir=mine/${name}"]) == 0
    assert recorder.calls[0].sweep == Path("mine/x")
    assert "1 of 1 jobs done in mine/x\n" in (printed := capsys.readouterr().out)
    assert "compare" not in printed
    runs(0, 0)
    assert main(["train", "-m", "seed=1,2", "hydra.sweep.dir=mine/two words"]) == 0
    assert "\nsweep: attelbo compare 'mine/two words' sets the runs side by side\n" in capsys.readouterr().out


def test_a_stopped_job_stops_the_sweep(runs):
    recorder = runs(0, STOPPED, 0)
    assert main(["train", "-m", "seed=1,2,3"]) == STOPPED
    assert len(recorder.calls) == 2


def test_no_job_runs_if_another_is_wrong(runs):
    recorder = runs()
    assert main(["train", "-m", "seed=1,x"]) == 2
    assert recorder.calls == []


def test_a_process_of_a_distributed_run_joins_it(monkeypatch, tmp_path):
    joined = []

    def join(path):
        joined.append(path)
        return SimpleNamespace(exit_code=0)

    monkeypatch.setattr(run, "join", join)
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setenv("ATTELBO_RUN_DIR", str(tmp_path))
    assert main(["train", "-m", "not even parsed"]) == 0
    assert joined == [tmp_path]


def test_check_verifies_and_runs_nothing(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["check", "-m", "model.latent_dim=3,4"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert all(line.startswith("ok: ") and "VariationalAutoencoder" in line for line in lines)
    assert list(tmp_path.iterdir()) == []


def test_check_of_one_job_names_the_parts_of_its_model(capsys):
    assert main(["check", "model.latent_dim=3", "init.freeze=[]"]) == 0
    about, *parts = capsys.readouterr().out.splitlines()
    columns = {part.split()[0]: part.split()[1:] for part in parts}
    assert columns["likelihood"] == ["Bernoulli"]
    assert columns["encoder"][0] == "ConvEncoder"
    numbers = [int(of[1].replace(",", "")) for of in columns.values() if len(of) > 1]
    assert f" {sum(numbers):,} parameters" in about


def test_cfg_prints_the_composed_configuration(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["train", "--cfg", "job", "--resolve", "paths.data_dir=somewhere"]) == 0
    out = capsys.readouterr().out
    assert "seed: 0\n" in out
    assert "root: somewhere\n" in out
    assert "hydra" not in out


@pytest.mark.parametrize(
    ("command", "words", "expected"),
    [
        ("evaluate", [], "run (conf/evaluate.yaml): a value is needed; give run=..."),
        ("sample", ["run=x", "n=abc"], "n (command line): expected int or null, got 'abc'"),
        ("sample", ["run=x", "sede=3"], "sede (command line): unknown key; did you mean seed? [conf/sample.yaml]"),
        ("evaluate", ["run=x", "-m"], "command line: unrecognized arguments: -m; see attelbo evaluate --help"),
        (
            "translate",
            ["run=x", "text=hello", "--map=a.png"],
            "command line: unrecognized arguments: --map=a.png; see attelbo translate --help; "
            "keys are written without dashes: map=...",
        ),
        ("train", ["-m", "seed=range(0)"], "command line: no job is left: a range of swept values is empty"),
        ("check", ["-m", "zip:seed=range(0)"], "command line: no job is left: a range of swept values is empty"),
        ("train", ["-m", "sweep.sampler=tpe", "seed=range(0)"], "seed (command line): range(0) has no value"),
        ("train", ["prior=maf"], "prior (command line): unknown key; did you mean model/prior=maf?"),
        (
            "train",
            ["--cfg", "job", "sweep=optimizer"],
            "sweep=optimizer (command line): a sweep is many runs: --cfg prints one configuration: leave it out",
        ),
        (
            "check",
            ["name=../evil"],
            "name='../evil': a run is written into the folder of this name in paths.output_dir",
        ),
        (
            "check",
            ["name=a/../../evil"],
            "name='a/../../evil': a run is written into the folder of this name in paths.output_dir",
        ),
        ("check", ["name=/evil"], "name='/evil': a run is written into the folder of this name in paths.output_dir"),
        (
            "check",
            ["ckpt=none.ckpt"],
            "ckpt: no such file: none.ckpt; ckpt=auto goes on with the interrupted run of this configuration",
        ),
        (
            "check",
            ["data.minibatches_per_block=0"],
            "data.minibatches_per_block must be at least 1 (0 is for a Trainer of your own)",
        ),
        ("train", ["name="], "name='': a run is written into the folder of this name in paths.output_dir"),
    ],
)
def test_what_is_wrong_is_one_line(command, words, expected, capsys):
    assert main([command, *words]) == 2
    assert capsys.readouterr().err == f"error: {expected}\n"


def test_sample_calls_what_its_root_file_names(monkeypatch):
    from attelbo.experiments import sampling

    calls = []

    def sample(run: str, n: int, seed: int, **rest: object) -> None:
        calls.append((run, n, seed))

    monkeypatch.setattr(sampling, "sample", sample)
    assert main(["sample", "run=outputs/x", "n=9"]) == 0
    assert calls == [("outputs/x", 9, 0)]


@pytest.mark.parametrize(
    "text",
    [
        "Ein Mann, der läuft.",
        "it's",
        "'tis so",
        "back\\slash",
        "end\\",
        "a\\'b",
        "${seed}",
        "\\${seed}",
        "a ${x:y} b",
        "[1, 2] {a: b}",
        "null",
        "7",
        " blanks ",
        "two\nlines",
        "x=y # ~ ! $",
        "$",
    ],
)
def test_a_text_is_taken_as_it_stands(monkeypatch, text):
    from attelbo.experiments import translating

    texts = []

    def translate(text: str, **rest: object) -> None:
        texts.append(text)

    monkeypatch.setattr(translating, "translate", translate)
    assert main(["translate", "run=outputs/x", f"text={text}"]) == 0
    assert texts == [text]


@pytest.mark.parametrize("name", ["runs/gr\u00f6\u00dfe", "gro\u0308\u00dfe 2", "\u6570\u5b57", "plain"])
@pytest.mark.parametrize("key", ["", "run="])
def test_a_folder_may_have_letters_of_any_alphabet(monkeypatch, name, key):
    from attelbo.experiments import translating

    runs = []
    monkeypatch.setattr(translating, "translate", lambda run, **rest: runs.append(run))
    assert main(["translate", f"{key}{name}", "text=a"]) == 0
    assert runs == [name]


@pytest.mark.parametrize(
    "name", ["it's", 'a "b"', "x=1", "a,b", "{c}", "[d]", "e;f", "#g", "~", "7", "null", "${seed}"]
)
@pytest.mark.parametrize("key", ["", "run="])
def test_a_folder_that_is_there_may_have_any_name(monkeypatch, tmp_path, name, key):
    from attelbo.experiments import translating

    runs = []
    monkeypatch.setattr(translating, "translate", lambda run, **rest: runs.append(run))
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).mkdir()
    assert main(["translate", f"{key}{name}", "text=a"]) == 0
    assert runs == [name]


def test_a_name_may_have_letters_of_any_alphabet(capsys):
    assert main(["check", "name=gr\u00f6\u00dfe", "paths.output_dir=/gro\u0308\u00dfe/a b"]) == 0
    assert capsys.readouterr().out.startswith("ok: gr\u00f6\u00dfe ")
