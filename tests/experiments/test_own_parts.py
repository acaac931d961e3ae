"""A repository of a user's own: its package and its ``conf/`` add to attelbo's, where the user allows it."""

import sys
from pathlib import Path

import pytest

from attelbo.cli import main

CODE = '''
"""Parts of one's own."""

from collections.abc import Sequence

from torch import Tensor

from attelbo.latent.likelihoods import Bernoulli


class Flipped(Bernoulli):
    """Bernoulli with the logits' sign changed.

    Args:
        data_shape: of x.
        scale: of the logits.
    """

    def __init__(self, data_shape: Sequence[int], scale: float = 1.0) -> None:
        super().__init__(data_shape)
        self.scale = scale

    def log_prob(self, eta: Tensor, x: Tensor) -> Tensor:
        return super().log_prob(-self.scale * eta, x)

    def mean(self, eta: Tensor) -> Tensor:
        return super().mean(-self.scale * eta)
'''
YAML = """# Bernoulli the other way round
_target_: its_lab.likelihoods.Flipped
scale: 1.0
"""
WORDS = ("model/likelihood=flipped", "trainer.max_epochs=1", "data.train_size=100", "evaluation.n_samples=2")


@pytest.fixture
def laboratory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    package, choices = tmp_path / "its_lab", tmp_path / "conf" / "model" / "likelihood"
    package.mkdir()
    choices.mkdir(parents=True)
    (package / "likelihoods.py").write_text(CODE)
    (choices / "flipped.yaml").write_text(YAML)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("ATTELBO_PACKAGES", "its_lab")
    return tmp_path


def test_a_part_is_listed_trained_and_evaluated(laboratory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "model/likelihood"]) == 0
    assert "Bernoulli the other way round" in capsys.readouterr().out
    assert main(["train", *WORDS, "model.likelihood.scale=2.0"]) == 0
    (run,) = (laboratory / "outputs").glob("*/*/*/config.yaml")
    assert "its_lab.likelihoods.Flipped" in run.read_text()
    assert main(["evaluate", f"run={run.parent}", "n_samples=2", "n_images=5"]) == 0
    assert main(["train", *WORDS, "model.likelihood.scal=2.0"]) == 2
    assert "did you mean model.likelihood.scale?" in capsys.readouterr().err


@pytest.mark.usefixtures("laboratory")
def test_no_file_starts_what_the_user_did_not_allow(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("ATTELBO_PACKAGES")
    assert main(["train", *WORDS]) == 2
    problem = capsys.readouterr().err
    assert "'its_lab.likelihoods.Flipped' is outside the allowed packages: attelbo, torch," in problem
    assert "; ATTELBO_PACKAGES=its_lab allows it too" in problem


def test_a_module_with_a_slip_is_told_by_its_line(laboratory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (laboratory / "its_lab/unfinished.py").write_text("class Flipped(:\n")
    file = laboratory / "conf/model/likelihood/flipped.yaml"
    file.write_text(YAML.replace("likelihoods.", "unfinished."))
    assert main(["check", "model/likelihood=flipped"]) == 2
    said = "'its_lab.unfinished.Flipped' cannot be imported: invalid syntax (unfinished.py, line 1)"
    assert f"(conf/model/likelihood/flipped.yaml): _target_ {said}\n" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["likelihood", "prior", "decoder"])
def test_a_class_that_is_no_such_part_is_told(kind: str, laboratory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (laboratory / "its_lab/likelihoods.py").write_text("class Flipped:\n    pass\n")
    (laboratory / f"conf/model/{kind}").mkdir(exist_ok=True)
    (laboratory / f"conf/model/{kind}/mine.yaml").write_text("# Mine\n_target_: its_lab.likelihoods.Flipped\n")
    sys.modules.pop("its_lab.likelihoods", None)
    assert main(["check", f"model/{kind}=mine", "~experiment"]) == 2
    base = {"decoder": "networks.Decoder", "prior": "latent.Prior", "likelihood": "latent.Likelihood"}[kind]
    said = f"its_lab.likelihoods.Flipped is no attelbo.{base}; a class of one's own is derived from it"
    assert capsys.readouterr().err == f"error: model.{kind}: {said}\n"


def test_a_file_without_a_class_is_told_by_its_key(laboratory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (laboratory / "conf/model/likelihood/flipped.yaml").write_text("# Bernoulli the other way round\nscale: 1.0\n")
    assert main(["check", "model/likelihood=flipped"]) == 2
    said = "error: model.likelihood._target_: its file names no class, only {'scale': 1.0}; add _target_ to it\n"
    assert capsys.readouterr().err == said
