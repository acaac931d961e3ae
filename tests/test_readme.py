"""Every command in the README runs, made small by words that are added to it; what it shows of output is true."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import attelbo
from attelbo.cli import main
from attelbo.data import image
from attelbo.data.sources.base import Images, ImageSource, Splits, checked
from attelbo.training.trainer import bf16_is_fast

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
SMALL = {
    "data.train_size": "64",
    "trainer.max_epochs": "1",
    "trainer.limit_val_batches": "1",
    "evaluation.n_samples": "2",
    "evaluation.n_images": "4",
}
SMALL_TEXTS = {"data.windows_per_epoch": "64", "model.dim": "16", "model.network.layers": "1"}
SMALL_SPRITES = {"data.source.test_size": "200"}
SMALL_SCENES = {"data.source.n_train": "100", "data.source.n_test": "40", "data.validation_size": "20"}
SMALL_OF = {
    "experiment=reference/gpt": SMALL_TEXTS,
    "experiment=reference/masked": SMALL_TEXTS,
    "experiment=digits/air": SMALL_SCENES,
    "experiment=digits/anp": {"model.dim": "16"},
    "experiment=digits/slots": SMALL_SCENES,
    "experiment=dates/bahdanau": {
        **{"data.source.n_train": "400", "data.source.n_validation": "50", "data.source.n_test": "50"},
        "model.hidden": "32",
    },
    "data=sprites": SMALL_SPRITES,
    "experiment=sprites/beta_vae": SMALL_SPRITES,
    "prior=autoregressive_transformer": {"epochs": "1", "prior.dim": "16", "prior.layers": "1"},
    "prior=diffusion": {"epochs": "1", "prior.dim": "16", "prior.layers": "1", "prior.steps": "4"},
}
"""Word of a command -> what else makes it small."""
FEWER_STEPS = {
    "trainer.steps_per_epoch=250": "trainer.steps_per_epoch=25",
    "trainer.max_steps=500": "trainer.max_steps=50",
}
TRAINED_BEFORE = {
    "run=outputs/dates": "experiment=dates/bahdanau",
    "run=outputs/reference": "experiment=reference/gpt",
    "init.run=outputs/reference": "experiment=reference/gpt",
    "run=outputs/reference_sentences": "experiment=reference/text_vae",
    "run=outputs/digits/vit": "experiment=digits/vit",
}
"""What a command needs a run of, and how that is made; of digits there is always one."""
SHARED = ROOT.parent / "shared" / "data"


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)


COMMANDS = [line.partition("#")[0].strip() for block in blocks("bash") for line in block.splitlines() if line.strip()]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("readme")


@pytest.fixture
def here(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with one run in it, where the commands are given."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv("ATTELBO_DATA_DIR", os.environ.get("ATTELBO_DATA_DIR", str(SHARED)))
    monkeypatch.setattr(image, "checked", with_few_test_rows)
    if not list(folder.glob("outputs/digits/*/*/result.json")):
        assert main(small(["train"])) == 0
    return folder


def with_few_test_rows(source: ImageSource, root: Path) -> Splits:
    """What a source loads, of which every row is evaluated: not ten thousand of them."""
    train, test = checked(source, root)
    x, *others = test
    return Splits(train, Images(x[:400], *(None if part is None else part[:400] for part in others)))


def small(words: list[str]) -> list[str]:
    """The words of a command, and what makes it small."""
    if words[0] == "train" or (words[0] == "fit-prior" and not any(word.startswith("run=") for word in words)):
        more = SMALL | {key: value for word in words for key, value in SMALL_OF.get(word, {}).items()}
        words = [FEWER_STEPS.get(word, word) for word in words]
        return words + [f"{key}={value}" for key, value in more.items() if not any(w.startswith(key) for w in words)]
    return [re.sub("(n_samples|n_images|epochs)=.*", r"\1=3", word) for word in words]


def without_pictures(words: list[str]) -> list[str]:
    """The plain VAE of the digits draws its pictures in the run that is always there, not for each of its parts."""
    others = ("callbacks", "ckpt=", "data=", "debug=", "experiment=", "logger=", "model=")
    plain = words[0] == "train" and not any(word.startswith(others) for word in words)
    return [*words, "callbacks=checkpoint"] if plain else words


def needs_files(command: str) -> str | None:
    named = {"experiment=mnist": "MNIST", "data=mnist": "MNIST", "data=fashion_mnist": "FashionMNIST"}
    return next((name for word, name in named.items() if word in command), None)


def test_there_is_about_a_dozen_of_them():
    assert len(COMMANDS) >= 12
    assert all(command.startswith("attelbo ") for command in COMMANDS)


def test_what_a_command_needs_a_run_of_is_trained_by_one_above():
    for place, command in enumerate(COMMANDS):
        for word in command.split():
            if word.removeprefix("init.").startswith("run=outputs/") and word != "run=outputs/digits":
                assert any(TRAINED_BEFORE[word] in above.split() for above in COMMANDS[:place]), command


@pytest.mark.parametrize(
    "command",
    # Two processes that begin from nothing; test_run.py has two that are forked.
    [pytest.param(line, marks=pytest.mark.slow) if "trainer=ddp_cpu" in line else line for line in COMMANDS],
)
def test_command(command: str, here: Path):
    files = needs_files(command)
    if files is not None and not (Path(os.environ["ATTELBO_DATA_DIR"]) / files / "raw").is_dir():
        pytest.skip(f"{files} is not in {os.environ['ATTELBO_DATA_DIR']}")
    if "bf16" in command and not bf16_is_fast("cpu"):
        pytest.skip("this CPU has no bf16 arithmetic")
    words = small(shlex.split(command)[1:])
    for word in TRAINED_BEFORE.keys() & set(words):
        if not list(here.glob(f"{word.partition('=')[2]}/**/result.json")):
            assert main(small(["train", TRAINED_BEFORE[word]])) == 0
    if "trainer=ddp_cpu" in words:  # Lightning starts the same command again for the second process
        environment = os.environ | {"CUDA_VISIBLE_DEVICES": ""}
        subprocess.run([sys.executable, "-m", "attelbo", *words], env=environment, check=True, timeout=300)
    else:
        assert main(without_pictures(words)) == 0


def test_make_targets_exist():
    for line in (line for block in blocks("console") for line in block.splitlines() if line.startswith("make ")):
        words = shlex.split(line.partition("#")[0])
        subprocess.run([*words, "--dry-run"], cwd=ROOT, check=True, capture_output=True)


def test_the_typo_is_answered_as_shown(capsys: pytest.CaptureFixture[str]):
    (shown,) = re.findall(r"^\$ attelbo (.*)\n(.*)$", README, flags=re.MULTILINE)
    assert main(shlex.split(shown[0])) == 2
    assert capsys.readouterr().err.strip() == shown[1]


def test_python_of_the_readme(here: Path, monkeypatch: pytest.MonkeyPatch):
    train = attelbo.train
    monkeypatch.setattr(attelbo, "train", lambda *words: train(*small(["train", *words])[1:]))
    scope: dict[str, Any] = {}
    exec("\n".join(blocks("python")), scope)
    assert scope["images"].shape == (16, 1, 8, 8)
    assert scope["text"].startswith("The ")
    assert len(scope["text"]) == len("The ") + 20
    assert scope["layer"](torch.randn(2, 5, 64)).shape == (2, 5, 64)


def test_files_that_it_links_to_exist():
    for target in re.findall(r"\]\(([^)]+)\)", README):
        assert (ROOT / target).exists(), target
