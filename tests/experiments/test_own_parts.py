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
    monkeypatch.setenv("ATTELBO_PACKAGES", "other")
    assert main(["train", *WORDS]) == 2
    assert "torchmetrics, other; ATTELBO_PACKAGES=other,its_lab allows it too" in capsys.readouterr().err


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


SLIPS = """
import torch
from torch import nn

from attelbo.attention import Mask, MultiHeadAttention
from attelbo.attention.scores import Score
from attelbo.data.sources import ImageSource
from attelbo.latent import DiagonalNormal, DiagonalNormalPosterior, Objective, Prior
from attelbo.latent.likelihoods import Normal
from attelbo.models import Model
from attelbo.networks import Decoder, Encoder


class Unfinished(Model):
    def losses(self, batch): ...


class Whole(Model):
    def __init__(self, data, optimizer, scheduler, width: int = 3):
        super().__init__(optimizer, scheduler)
        self.net = nn.Linear(64, 64)
        if width % 2 == 0:
            raise ValueError("width must be odd")

    def losses(self, batch):
        return self.net(batch.x.flatten(1)).mean()

    def evaluation_step(self, batch): ...

    def evaluation_results(self):
        return {"loss": torch.zeros(())}


class Rows(Whole):
    def losses(self, batch):
        return {"loss": self.net(batch.x.flatten(1)).mean(1), "more": torch.zeros(())}


class Nameless(Whole):
    def losses(self, batch):
        return {"mse": self.net(batch.x.flatten(1)).mean()}


class Float(Whole):
    def losses(self, batch):
        return {"loss": self.net(batch.x.flatten(1)).mean().item(), "parts": {}}


class Still(Whole):
    def losses(self, batch):
        return {"loss": batch.x.mean()}


def plain(data, optimizer, scheduler):
    return nn.Linear(1, 1)


class Countless(Objective):
    def forward(self, evidence):
        return -evidence.elbo.mean()


class Both(Normal):  # one number for all rows, which broadcasts
    def log_prob(self, eta, x):
        return super().log_prob(eta, x).sum()


class Wide(Normal):  # of two parameters, one too many
    n_parameters = 2


class Narrow(Encoder):  # gives half of what it says
    def __init__(self, in_shape, width: int = 8):
        super().__init__()
        self.in_shape, self.out_shape = tuple(in_shape), (2 * width,)
        self.net = nn.Linear(64, width)

    def forward(self, x):
        return self.net(x.flatten(1))


class Crossed(Narrow):
    def forward(self, x):
        raise RuntimeError("sizes\\ndiffer")


class Flat(Decoder):
    def __init__(self, in_shape, out_shape):
        super().__init__()
        self.in_shape, self.out_shape = tuple(in_shape), tuple(out_shape)
        self.output = nn.Linear(16, 64)

    def forward(self, z):
        return self.output(z)


class Transposed(Score):
    def compare(self, query, key):
        return key @ query.mT


class Silent(MultiHeadAttention):
    def __init__(self, dim, heads, **options):
        super().__init__(dim, heads, **options)


class Numbers(Mask):
    def allows(self, batch, query, key):
        return ((query - key) % 2 == 0).float()


class PerDimension(Prior):  # a number for each dimension of z
    def __init__(self, latent_shape):
        super().__init__()
        self.latent_shape = tuple(latent_shape)

    def log_prob(self, z):
        return -z.square()

    def sample(self, n):
        return torch.randn(n, *self.latent_shape)


class Total(PerDimension):  # one number for all rows
    def log_prob(self, z):
        return -z.square().sum()


class Lines(PerDimension):
    def sample(self, n):
        return torch.randn(n)


class Means(DiagonalNormalPosterior):
    def forward(self, h):
        return super().forward(h).mean


class Summed(DiagonalNormal):
    def rsample_with_log_prob(self, n):
        z, log_q = super().rsample_with_log_prob(n)
        return z, log_q.sum(1)


class OfAll(DiagonalNormalPosterior):
    distribution = Summed

    def forward(self, h):
        q = super().forward(h)
        return Summed(q.mean, q.log_std)


class Unread(ImageSource):
    shape = (1, 8, 8)


class NoCallback: ...
"""


@pytest.fixture
def slips(laboratory: Path) -> Path:
    (laboratory / "its_lab/slips.py").write_text(SLIPS)
    for group in ("", "attention", "encoder", "decoder", "objective", "score", "mask", "prior", "posterior"):
        (laboratory / "conf/model" / group).mkdir(exist_ok=True)
    sys.modules.pop("its_lab.slips", None)
    return laboratory


@pytest.mark.parametrize(
    ("group", "name", "words", "said"),
    [
        ("model", "Unfinished", [], "model: Can't instantiate abstract class Unfinished"),
        ("model", "plain", [], "model: its_lab.slips.plain makes no attelbo.models.Model; a class of one's own"),
        ("model", "Whole", ["+model.width=2"], "model: width must be odd [its_lab.slips.Whole, slips.py line 23]\n"),
        (
            *("model/objective", "Countless", ["~experiment"]),
            "model.objective: its_lab.slips.Countless lacks n_samples, which every attelbo.latent.Objective has\n",
        ),
        (
            *("model/likelihood", "Both", ["data.binarize=none"]),
            "model.likelihood: Both.log_prob must give (n, B), summed over x, here (1, 2), got ()\n",
        ),
        (
            *("model/likelihood", "Wide", ["data.binarize=none"]),
            "model.likelihood: Wide.sample must give an x for each eta, here (2, 1, 8, 8), got (2, 2, 8, 8)\n",
        ),
        (
            *("model/prior", "PerDimension", []),
            "model.prior: PerDimension.log_prob must give (n, B), summed over z, here (1, 2), got (1, 2, 16)\n",
        ),
        (
            *("model/prior", "Total", []),
            "model.prior: Total.log_prob must give (n, B), summed over z, here (1, 2), got ()\n",
        ),
        (
            *("model/prior", "Lines", ["~experiment", "model=ladder_vae"]),
            "model.prior: Lines.sample must give (n, *E), here (2, 4), got (2,)\n",
        ),
        (
            *("model/prior", "Total", ["experiment=reference/text_vae"]),
            "model.prior: Total.log_prob must give (n, B), summed over z, here (1, 2), got ()\n",
        ),
        (
            *("model/posterior", "Means", []),
            "model.posterior: Means.forward must give an attelbo.latent.Distribution [its_lab.slips.Means]\n",
        ),
        (
            *("model/posterior", "OfAll", []),
            "model.posterior: Summed.log_prob must give (n, B), summed over z, here (1, 2), got (1,)\n",
        ),
        (
            *("model/encoder", "Narrow", []),
            "model.encoder: Narrow.forward must give (B, *out_shape), here (2, 16), got (2, 8)\n",
        ),
        (
            *("model/encoder", "Crossed", []),
            "model.encoder: sizes differ [its_lab.slips.Crossed, slips.py line 84]\n",
        ),
        (
            *("model/decoder", "Flat", []),
            "model.decoder: Flat.forward must give (B, *out_shape), here (2, 1, 8, 8), got (2, 64)\n",
        ),
        (
            *("model/score", "Transposed", ["experiment=reference/gpt"]),
            "model.score: Transposed.compare must give (B, N, T, S), a number for each query and key, here (1, 4, 1, 2)"
            ", got (1, 4, 2, 1)\n",
        ),
        (
            *("model/attention", "Silent", ["experiment=reference/gpt", "+model.attention.heads=4"]),
            "model/score: its_lab.slips.Silent takes none; where it passes it on, **options: "
            "Unpack[attelbo.attention.AttentionOptions] says so; ~model/score does without\n",
        ),
        (
            *("model/mask", "Numbers", ["experiment=reference/gpt"]),
            "model.mask: Numbers.allows must give bools in a tensor, True = may attend, got float32; did you mean a "
            "bias on the scores? that is a Position\n",
        ),
    ],
)
def test_what_a_class_of_ones_own_lacks_is_told_in_a_line(
    group: str, name: str, words: list[str], said: str, slips: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (slips / f"conf/{group}/mine.yaml").write_text(f"# Mine\n_target_: its_lab.slips.{name}\n")
    assert main(["check", f"{group}=mine", *words]) == 2
    told = capsys.readouterr().err
    assert told.startswith(f"error: {said}")
    assert told.count("\n") == 1


@pytest.mark.usefixtures("slips")
def test_a_source_without_load_is_told_by_its_key(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "data.source._target_=its_lab.slips.Unread"]) == 2
    assert capsys.readouterr().err.startswith("error: data.source: Can't instantiate abstract class Unread ")


MUST = "must be scalars by their names, means over the batch, and 'loss', which is minimized, one of them; they are"


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("Whole", "a Tensor"),
        ("Rows", "loss of shape (32,), more of shape ()"),
        ("Nameless", "mse of shape ()"),
        ("Float", "loss, a float, parts, a dict"),
        ("Still", "a loss that depends on nothing that is trained"),
    ],
)
def test_losses_that_are_none_are_told_in_a_line(
    name: str, found: str, slips: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (slips / "conf/model/mine.yaml").write_text(f"# Mine\n_target_: its_lab.slips.{name}\n")
    assert main(["train", "model=mine", "data.train_size=64", "callbacks=none", "logger=none"]) == 2
    assert capsys.readouterr().err == f"error: model: losses of a {name} {MUST} {found}\n"


@pytest.mark.parametrize(
    ("target", "words", "said"),
    [
        ("its_lab.slips.NoCallback", [], "a NoCallback is no lightning.pytorch.Callback"),
        (
            *("lightning.pytorch.callbacks.StochasticWeightAveraging", ["+callbacks.mine.swa_lrs=0.1"]),
            "a StochasticWeightAveraging is for steps that Lightning takes; callbacks=average keeps a mean of the "
            "weights",
        ),
        (
            *("lightning.pytorch.callbacks.EMAWeightAveraging", []),
            "a WeightAveraging is for steps that Lightning takes; callbacks=average keeps a mean of the weights",
        ),
        (
            *("lightning.pytorch.callbacks.GradientAccumulationScheduler", ["+callbacks.mine.scheduling={0:2}"]),
            "a GradientAccumulationScheduler is for steps that Lightning takes; trainer.micro_batches=4 has parts of "
            "data.batch_size",
        ),
    ],
)
@pytest.mark.usefixtures("slips")
def test_a_callback_that_cannot_work_is_told_by_its_key(
    target: str, words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check", f"+callbacks.mine._target_={target}", *words]) == 2
    assert capsys.readouterr().err == f"error: callbacks.mine: {said}\n"
