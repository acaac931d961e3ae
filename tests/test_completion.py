"""What the shell is told may follow, asked as the shell asks."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from attelbo.cli import main
from attelbo.cli.completion import SCRIPTS, candidates
from attelbo.experiments.configuration import compose
from attelbo.experiments.listing import choices, config_folders

CHOICES = choices(config_folders())


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("attelbo tra", ["train", "translate", "traverse"]),
        ("attelbo train model/like", ["model/likelihood="]),
        ("attelbo train model/likelihood=", [f"model/likelihood={name}" for name in CHOICES["model/likelihood"]]),
        ("attelbo train experiment=mnist/vae", ["experiment=mnist/vae_mlp"]),
        ("attelbo train -m data=digits,mnist_p", ["data=digits,mnist_pixels"]),
        (
            "attelbo train model/attention@model.encoder.attention=gat",
            ["model/attention@model.encoder.attention=gated"],
        ),
        ("attelbo train +debug=o", ["+debug=overfit"]),
        ("attelbo train se", ["seed="]),
        ("attelbo train traine", ["trainer=", "trainer."]),
        ("attelbo train model=vamp_vae model.prior.", ["model.prior.n_components="]),
        ("attelbo train model=vamp_vae model.pri", ["model.prior."]),
        ("attelbo train -m seed=1,2 zip:model.latent_dim=2,4 model.latent", ["model.latent_dim="]),
        ("attelbo train model=vea model.prior.", []),  # Hydra cannot compose that
        ("attelbo train tags='[a, optimizer.", []),  # a quotation that goes on
        ("attelbo train evaluation.fid=", ["evaluation.fid=true", "evaluation.fid=false"]),
        ("attelbo train seed=", ["seed=0"]),
        ("attelbo train --re", ["--resolve"]),
        ("attelbo evaluate run=", []),  # the shell completes files
        ("attelbo evaluate run=outputs/digits check", ["checkpoint="]),
        ("attelbo fit-prior run=outputs/digits prior=real", ["prior=real_nvp"]),
        ("attelbo fit-prior prior=maf prior.hid", ["prior.hidden="]),
        ("attelbo sweep ", ["dry", "status"]),
        ("attelbo sweep dry model=vae_n", ["model=vae_nf"]),
        ("attelbo sweep status ", []),
        ("attelbo reproduce sort", ["sort_reverse"]),
        ("attelbo reproduce --budget smoke sort", ["sort_reverse"]),
        ("attelbo reproduce sort_reverse --bud", ["--budget"]),
        ("attelbo compare --ru", ["--runs"]),
        ("attelbo list model/posi", ["model/position"]),
        ("attelbo completion f", ["fish"]),
        ("attelbo nothing ", []),
    ],
)
def test_candidates(line, expected):
    assert candidates(line) == expected


def test_keys_are_those_of_the_composed_configuration():
    words = ["data=reference_text", "model=gpt"]
    config = compose("train", words).config
    for part in ("model", "data", "trainer", "evaluation"):
        offered = candidates(f"attelbo train {' '.join(words)} {part}.")
        assert {each.rstrip("=.") for each in offered} == {f"{part}.{key}" for key in config[part] if key != "_target_"}


def test_folders_of_ones_own_are_offered_too(tmp_path, monkeypatch):
    for folder in ("conf/model", "elsewhere/model"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / f"mine_in_{folder[:4]}.yaml").write_text("defaults: [vae]\n")
    monkeypatch.chdir(tmp_path)
    assert candidates("attelbo train model=mine") == ["model=mine_in_conf"]
    both = candidates("attelbo train --config-dir elsewhere model=mine")
    assert sorted(both) == ["model=mine_in_conf", "model=mine_in_else"]


def test_groups_and_choices_are_found_without_hydra():
    code = "import sys; from attelbo.cli import main; main(['completion', 'words', 'attelbo train model=v']); "
    code += "sys.exit('hydra' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "model=vae\n" in done.stdout


BASH = """
source <(attelbo completion bash)
compopt() { :; }
for line in "attelbo tra" "attelbo train model/likelihood=b" "attelbo train -m data=digits,mnist_p"; do
    COMP_LINE=$line COMP_POINT=${#line}
    _attelbo
    echo "${COMPREPLY[@]}"
done
"""


def test_bash_replaces_what_follows_the_last_break(tmp_path):
    """Bash breaks words at = and @ also: it must be given what follows these."""
    command = tmp_path / "attelbo"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m attelbo "$@"\n')
    command.chmod(0o755)
    found = f"{tmp_path}:/usr/bin:/bin"
    source = str(Path(__file__).parents[1] / "src")
    done = subprocess.run(
        ["bash", "-c", BASH],
        env={"PATH": found, "PYTHONPATH": source},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""
    assert done.stdout.splitlines() == ["train translate traverse", "bernoulli beta_binomial", "digits,mnist_pixels"]


@pytest.mark.parametrize("shell", SCRIPTS)
def test_the_shell_can_read_its_script(shell, capsys):
    assert main(["completion", shell]) == 0
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    done = subprocess.run([shell, "-n"], input=capsys.readouterr().out, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_another_shell_is_one_line(capsys):
    assert main(["completion", "bsh"]) == 2
    assert (
        capsys.readouterr().err
        == "error: completion bsh: no such shell; did you mean bash? (there are bash, zsh, fish)\n"
    )
