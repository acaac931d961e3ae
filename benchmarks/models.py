"""The table of all models at one budget: ``python -m benchmarks.models --data-dir DIR``, written to docs/models.md.

Every file of conf/model is trained by ``attelbo train -m`` on the digits (three seeds) and on dynamically binarized
MNIST (one seed), with the same data, optimizer, schedule and number of epochs, and the networks of the experiment where
the model takes them. The runs are kept: the same command again trains what is missing. The page keeps its rows of
models that have no runs there, such as all others after ``--models rhvae``.
"""

import argparse
import json
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean

from attelbo.cli import main as attelbo
from attelbo.experiments.comparison import Estimate
from attelbo.experiments.configuration import compose
from attelbo.experiments.listing import choices, description, package_folder
from benchmarks.machine import machine_in_short, made_on

DOCS = Path(__file__).parent.parent / "docs" / "models.md"

RELU = ("model.encoder.activation=relu", "model.decoder.activation=relu")
"""Where the KL's weight begins at zero, z may grow until tanh units no longer learn."""

OWN_NETWORKS = {
    "air": (),
    "autoencoder_fsq": (),
    "autoencoder_kl": (),
    "autoencoder_rvq": (),
    "autoencoder_var": (),
    "autoencoder_vq": (),
    "deep_attentive_vae": (),
    "draw": (),
    "draw_no_attention": (),
    "fsq_vae": (),
    "hvamp_vae": RELU,
    "ladder_vae": RELU,
    "rvq_vae": (),
    "slot_autoencoder": (),
    "vdvae": (),
    "vq_vae": (),
}
"""Models that choose their networks or latents themselves: maps of codes, hierarchies; and words for them."""

LEFT_OUT = {"ada_gvae", "dfc_vae"}
"""Models that want what is not there: pairs of images whose factors are known, pretrained weights."""


@dataclass(frozen=True)
class Setting:
    """What all models of a table share."""

    data: str
    title: str
    words: tuple[str, ...]
    """Of the command line, where the experiment's networks serve."""
    own: tuple[str, ...]
    """Where the model has its own: the same data, optimizer, schedule and budget, spelled out."""
    seeds: tuple[int, ...]
    smaller: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Words for models that would take hours at their own size; the title says so."""


DIGITS = ("scheduler=cosine", "optimizer.lr=3e-3", "trainer.max_epochs=30", "evaluation.n_samples=200")

SETTINGS = (
    Setting(
        data="digits",
        title="Digits: 64-200-200-z16 ReLU, binarized at one half, 30 epochs, three seeds (mean ± 95 % interval)",
        words=("~experiment", "model/encoder=mlp", "model/decoder=mlp", *RELU, *DIGITS),
        own=("~experiment", *DIGITS),
        seeds=(0, 1, 2),
    ),
    Setting(
        data="mnist",
        title="MNIST: 784-200-200-z50 ReLU, binarized dynamically, 10 epochs, one seed (± error over 1,000 images); "
        "`vdvae` and `deep_attentive_vae` with 16 channels",
        words=("experiment=mnist/vae_mlp", *RELU, "trainer.max_epochs=10", "evaluation.n_samples=200"),
        own=(
            *("~experiment", "data=mnist", "data.binarize=dynamic", "data.batch_size=100", "data.validation_size=400"),
            *("scheduler=cosine", "optimizer.lr=3e-3", "trainer.max_epochs=10"),
            *("evaluation.n_samples=200", "evaluation.n_images=1000"),
        ),
        seeds=(0,),
        smaller=dict.fromkeys(("vdvae", "deep_attentive_vae"), ("model.channels=16",)),
    ),
)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.models", description=__doc__)
    parser.add_argument("--data", choices=[setting.data for setting in SETTINGS], nargs="*", help="some of the tables")
    parser.add_argument("--models", nargs="*", help="some of the models; the table shows all that have run")
    parser.add_argument("--data-dir", type=Path, default=Path("data"), help="where MNIST lies")
    parser.add_argument("--output-dir", type=Path, default=Path("outputs/models"), help="where the runs are kept")
    parser.add_argument("--write-only", action="store_true", help="train nothing")
    options = parser.parse_args()
    names = models_of_images()
    for setting in () if options.write_only else SETTINGS:
        if options.data is None or setting.data in options.data:
            for name in options.models or names:
                train(name, setting, options.output_dir, options.data_dir)
    before = DOCS.read_text(encoding="utf-8") if DOCS.is_file() else ""
    tables = [table(setting, names, options.output_dir, before) for setting in SETTINGS]
    DOCS.parent.mkdir(exist_ok=True)
    DOCS.write_text(page(tables), encoding="utf-8")
    sys.stdout.write(f"{DOCS}\n")


def models_of_images() -> list[str]:
    """Those of conf/model that have a likelihood."""
    names = [name for name in choices([package_folder()])["model"] if name not in LEFT_OUT]
    composed = {name: compose("train", ["~experiment", f"model={name}"]).config["model"] for name in names}
    return [name for name, model in composed.items() if "likelihood" in model]


def train(name: str, setting: Setting, output_dir: Path, data_dir: Path) -> None:
    """The runs of one model that are not done yet."""
    words = (*setting.own, *OWN_NETWORKS[name]) if name in OWN_NETWORKS else setting.words
    words = (*words, *setting.smaller.get(name, ()))
    seeds = ",".join(map(str, setting.seeds))
    fixed = (
        *("-m", f"model={name}", f"seed={seeds}", f"hydra.sweep.dir={output_dir / setting.data / name}"),
        *(f"paths.data_dir={data_dir}", "trainer.accelerator=cpu", "trainer.threads=1", "callbacks=checkpoint"),
    )
    sys.stdout.write(f"--- {setting.data}: {name}\n")
    sys.stdout.flush()
    code = attelbo(["train", *fixed, *words])
    if code > 128:
        sys.exit(code)


def table(setting: Setting, names: Sequence[str], output_dir: Path, before: str = "") -> str:
    """The results of all models that have run, the best log-likelihood first.

    Args:
        setting: what they share.
        names: of the models.
        output_dir: where their runs are.
        before: the page as it was; its rows of models that have no runs there are kept.
    """
    section = before.partition(f"## {setting.title}\n")[2].partition("\n## ")[0]
    kept = {row.name: row for row in map(Row.of_page, re.findall(r"^\| `.*$", section, re.MULTILINE))}
    found = {name: Row.of_runs(name, output_dir / setting.data / name, setting) for name in names}
    rows = sorted((found[name] or kept.get(name) or Row.missing(name) for name in names), key=lambda row: row.rank)
    head = "| model | NLL, nats | ELBO, nats | KL | reconstruction | bits/dim | active units | s | made | what it is |"
    lines = [
        f"## {setting.title}",
        "",
        *verdicts(rows, len(setting.seeds) > 1),
        "",
        head,
        "|" + "---|" * head.count(" |"),
    ]
    return "\n".join([*lines, *(row.line for row in rows)])


@dataclass(frozen=True)
class Row:
    """A model's row."""

    name: str
    nll: float | None
    """Nats, the mean over seeds."""
    line: str
    """In Markdown."""

    @classmethod
    def of_page(cls, line: str) -> "Row":
        """That of a page."""
        _, name, nll, *_ = (cell.strip(" `") for cell in line.split("|"))
        return cls(name, float(nll.split()[0]) if nll not in ("", "-") else None, line)

    @classmethod
    def missing(cls, name: str, problem: str = "not run") -> "Row":
        """Without numbers."""
        return cls(name, None, f"| `{name}` |{'  |' * 8} {_what(name)}: **{problem}** |")

    @classmethod
    def of_runs(cls, name: str, sweep: Path, setting: Setting) -> "Row | None":
        """The means over seeds that are done, with 95 % intervals, or of one seed with the error over images; None:
        there are no runs."""
        problems, done = [], []
        for path in sorted(sweep.glob("*/status.json")):
            status = json.loads(path.read_text(encoding="utf-8"))
            if status["state"] == "done":
                done.append(path.parent)
            else:
                problems.append(status.get("error", "not finished").strip().rpartition("\n")[2])
        if not done:
            return cls.missing(name, problems[0]) if problems else None
        results = [json.loads((run / "result.json").read_text(encoding="utf-8")) for run in done]

        def values(key: str) -> list[float]:
            return [result["metrics"][f"test/{key}"] for result in results if f"test/{key}" in result["metrics"]]

        def interval(key: str) -> str:
            return Estimate.of(values(key)).text() if values(key) else "-"

        nlls = values("nll")
        errors = values("nll_std_error")  # none of a single image
        nll = f"{nlls[0]:.2f} ± {errors[0]:.2f}" if len(results) == len(errors) == 1 else interval("nll")
        bits, units = values("bits_per_dim"), values("active_units")
        cells = [
            *(f"`{name}`", nll, interval("elbo"), interval("kl"), interval("reconstruction")),
            f"{mean(bits):.3f}" if bits else "-",
            f"{mean(units):.0f}" if units else "-",
            f"{mean(result['seconds']['train'] for result in results):.0f}",
            " ".join(filter(None, made_on(done[0]))),
        ]
        left = len(setting.seeds) - len(results)
        missing = f": **seeds done: {len(results)}; {(problems or ['not run'])[0]}**" if left else ""
        return cls(name, mean(nlls) if nlls else None, f"| {' | '.join(cells)} | {_what(name)}{missing} |")

    @property
    def margin(self) -> float:
        """Half of the interval of the NLL, as the row shows it; 0 where it shows none."""
        _, _, shown = self.line.split("|")[2].partition("±")
        return float(shown) if shown else 0.0

    @property
    def rank(self) -> tuple[bool, float, str]:
        """The best log-likelihood first, then models without, by name."""
        return self.nll is None, self.nll or 0.0, self.name


def _what(name: str) -> str:
    return description(choices([package_folder()])["model"][name]).replace("|", "\\|")


COMPARED = {
    "VampPrior": (("vamp_vae", "hvamp_vae"), "warm_up_vae"),
    "IWAE": (("iwae",), "vae"),
    "a flow as prior": (("vae_maf_prior", "vae_real_nvp_prior"), "vae"),
    "a flow in the posterior": (("vae_iaf", "vae_nf", "vae_sylvester"), "warm_up_vae"),
    "attention across layers": (("deep_attentive_vae",), "vdvae"),
}
"""What -> the models that have it, and the plain one that they should beat: it has a warm-up where they have."""


def verdicts(rows: Sequence[Row], over_seeds: bool) -> list[str]:
    """Whether what should beat a plain VAE in NLL does, at this budget; where intervals over seeds leave it open, they
    say so. Errors over images say nothing of it, since they are those of the same images."""
    known = {row.name: row.nll for row in rows if row.nll is not None}
    margins = {row.name: row.margin for row in rows}
    lines: list[str] = []
    for what, (names, plain) in COMPARED.items():
        if plain in known and (found := [name for name in names if name in known]):
            best = min(found, key=lambda name: known[name])
            word = "better than" if known[best] < known[plain] else "not better than"
            overlap = over_seeds and abs(known[best] - known[plain]) < margins[best] + margins[plain]
            lines.append(
                f"- {what} (`{best}`): {known[best]:.2f} nats, {word} {known[plain]:.2f} of `{plain}` at this budget"
                f"{'; their intervals overlap' if overlap else ''}."
            )
    return lines


PAGE = """\
# All models at one budget

Written by `python -m benchmarks.models`; nothing is typed in. NLL: 200 importance samples, of hierarchies, codes and
models that know labels too (of `cvae`, that of x given its label). Where q(z|x) is a point there is no bound, and no
NLL. Short runs: they say which method gets where at this budget, not what it can do. Weights of the KL other than 1,
and warm-ups, are those of the models' files.

{tables}

Made: the day, and the commit of attelbo.
One thread of {machine}; other programs may have shared it, so seconds (of training) are rough.
"""


def page(tables: Sequence[str]) -> str:
    """docs/models.md, whole."""
    return PAGE.format(tables="\n\n".join(tables), machine=machine_in_short())


if __name__ == "__main__":
    main()
