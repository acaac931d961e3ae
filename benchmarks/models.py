"""The table of all models at one budget: ``python -m benchmarks.models --data-dir DIR``, written to docs/models.md.

Every file of conf/model is trained by ``attelbo train -m`` on the digits (three seeds) and on dynamically binarized
MNIST (one seed), with the same data, optimizer, schedule and number of epochs, and the networks of the experiment where
the model takes them. The runs are kept: the same command again trains what is missing, then writes the table anew.
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from statistics import mean
from typing import Any

from attelbo.cli import main as attelbo
from attelbo.experiments.comparison import Estimate
from attelbo.experiments.configuration import compose
from attelbo.experiments.listing import choices, description, package_folder
from benchmarks.machine import this_machine

DOCS = Path(__file__).parent.parent / "docs" / "models.md"

RELU = ("model.encoder.activation=relu", "model.decoder.activation=relu")
"""Where the KL's weight begins at zero, z may grow until tanh units no longer learn."""

OWN_NETWORKS = {
    "air": (),
    "autoencoder_fsq": (),
    "autoencoder_kl": (),
    "autoencoder_rvq": (),
    "autoencoder_vq": (),
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

OF_OTHER_DATA = {"ada_gvae"}
"""Models that learn from what neither data set has: pairs of images whose factors are known."""


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
        "`vdvae` with 16 channels",
        words=("experiment=mnist/vae_mlp", *RELU, "trainer.max_epochs=10", "evaluation.n_samples=200"),
        own=(
            *("~experiment", "data=mnist", "data.binarize=dynamic", "data.batch_size=100", "data.validation_size=400"),
            *("scheduler=cosine", "optimizer.lr=3e-3", "trainer.max_epochs=10"),
            *("evaluation.n_samples=200", "evaluation.n_images=1000"),
        ),
        seeds=(0,),
        smaller={"vdvae": ("model.channels=16",)},
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
    tables = [table(setting, names, options.output_dir) for setting in SETTINGS]
    DOCS.parent.mkdir(exist_ok=True)
    DOCS.write_text(page(tables), encoding="utf-8")
    sys.stdout.write(f"{DOCS}\n")


def models_of_images() -> list[str]:
    """Those of conf/model that have a likelihood."""
    names = [name for name in choices([package_folder()])["model"] if name not in OF_OTHER_DATA]
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


def table(setting: Setting, names: Sequence[str], output_dir: Path) -> str:
    """The results of all models that have run, the best log-likelihood first."""
    rows = [Row.read(name, output_dir / setting.data / name, setting) for name in names]
    rows.sort(key=lambda row: row.rank)
    head = "| model | NLL, nats | ELBO, nats | KL | reconstruction | bits/dim | active units | s | what it is |"
    lines = [f"## {setting.title}", "", *verdicts(rows), "", head, "|---|---|---|---|---|---|---|---|---|"]
    return "\n".join([*lines, *(row.line() for row in rows)])


@dataclass(frozen=True)
class Row:
    """One model's results, one for each seed that is done."""

    name: str
    what: str
    results: tuple[dict[str, Any], ...]
    problem: str

    @classmethod
    def read(cls, name: str, sweep: Path, setting: Setting) -> "Row":
        """From the directories of its runs."""
        results, problems = [], []
        for status in sorted(sweep.glob("*/status.json")):
            if json.loads(status.read_text(encoding="utf-8"))["state"] == "done":
                results.append(json.loads((status.parent / "result.json").read_text(encoding="utf-8")))
            else:
                error = json.loads(status.read_text(encoding="utf-8")).get("error", "not finished")
                problems.append(error.strip().rpartition("\n")[2])
        if len(results) < len(setting.seeds) and not problems:
            problems.append("not run")
        file = choices([package_folder()])["model"][name]
        what = description(file).replace("|", "\\|")
        return cls(name, what, tuple(results), problems[0] if problems else "")

    def values(self, key: str) -> list[float]:
        """Of each seed."""
        return [result["metrics"][f"test/{key}"] for result in self.results if f"test/{key}" in result["metrics"]]

    def interval(self, key: str) -> str:
        """Mean and 95 % interval over seeds."""
        values = self.values(key)
        return Estimate.of(values).text() if values else "-"

    @property
    def nll(self) -> float | None:
        """The mean over seeds."""
        values = self.values("nll")
        return mean(values) if values else None

    @property
    def rank(self) -> tuple[bool, float, str]:
        """The best log-likelihood first, then models without, by name."""
        return self.nll is None, self.nll or 0.0, self.name

    def line(self) -> str:
        """In Markdown."""
        if not self.results:
            return f"| `{self.name}` |  |  |  |  |  |  |  | {self.what}: **{self.problem}** |"
        several = len(self.results) > 1
        nll = self.interval("nll") if several else _with_error(self)
        cells = [self.interval(key) for key in ("elbo", "kl", "reconstruction")]
        bits, units = self.values("bits_per_dim"), self.values("active_units")
        seconds = mean(result["seconds"]["train"] for result in self.results)
        shown = [nll, *cells, f"{mean(bits):.3f}" if bits else "-", f"{mean(units):.0f}" if units else "-"]
        missing = f": **seeds done: {len(self.results)}; {self.problem}**" if self.problem else ""
        return f"| `{self.name}` | {' | '.join(shown)} | {seconds:.0f} | {self.what}{missing} |"


def _with_error(row: Row) -> str:
    values, errors = row.values("nll"), row.values("nll_std_error")
    return f"{values[0]:.2f} ± {errors[0]:.2f}" if values else "-"


COMPARED = {
    "VampPrior": ("vamp_vae", "hvamp_vae"),
    "IWAE": ("iwae",),
    "a flow as prior": ("vae_maf_prior", "vae_real_nvp_prior"),
    "a flow in the posterior": ("vae_iaf", "vae_nf", "vae_sylvester"),
}


def verdicts(rows: Sequence[Row]) -> list[str]:
    """Whether what should beat the plain VAE in NLL does, at this budget."""
    by_name = {row.name: row for row in rows}
    plain = by_name["vae"].nll if "vae" in by_name else None
    if plain is None:
        return []
    lines: list[str] = []
    for what, names in COMPARED.items():
        better = {name: nll for name in names if name in by_name and (nll := by_name[name].nll) is not None}
        if better:
            best = min(better, key=lambda name: better[name])
            gain = plain - better[best]
            word = "better than" if gain > 0 else "not better than"
            lines.append(
                f"- {what} (`{best}`): {better[best]:.2f} nats, {word} the plain VAE's {plain:.2f} at this budget."
            )
    return lines


def where() -> str:
    """The machine and the versions, in a line."""
    made = this_machine()
    version = f"; attelbo {made['git']['sha'][:7]}{'+' * made['git']['changed']}" if made["git"] else ""
    return f"{made['hardware']['cpu']}, {made['hardware']['cores']} cores, torch {made['versions']['torch']}{version}"


PAGE = """\
# All models at one budget

Written by `python -m benchmarks.models`; nothing is typed in. NLL: 200 importance samples, of hierarchies, codes and
models that know labels too (of `cvae`, that of x given its label). Where q(z|x) is a point there is no bound, and no
NLL. Short runs: they say which method gets where at this budget, not what it can do. Weights of the KL other than 1,
and warm-ups, are those of the models' files.

{tables}

{when}, {where}. One thread; other programs may have shared the machine, so seconds (of training) are rough.
"""


def page(tables: Sequence[str]) -> str:
    """docs/models.md, whole."""
    return PAGE.format(tables="\n\n".join(tables), when=f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC", where=where())


if __name__ == "__main__":
    main()
