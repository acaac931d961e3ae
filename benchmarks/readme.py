"""Put measured numbers into README.md: `python -m benchmarks.readme --example DIR --mnist DIR --speed JSON --gpu JSON`.

What stands between two markers is replaced by what the program printed or recorded; nothing is typed in. Of several
JSON files the first that has a figure gives it: each has its table, with its date and version.
"""

import argparse
import io
import json
import re
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from benchmarks import tables

README = Path(__file__).parent.parent / "README.md"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.readme", description=__doc__)
    parser.add_argument("--example", type=Path, help="run directory of the default experiment")
    parser.add_argument("--mnist", type=Path, help="run directory of experiment=mnist/vae_mlp")
    parser.add_argument("--speed", type=Path, nargs="+", help="JSON files of `make bench`, newest first")
    parser.add_argument("--gpu", type=Path, nargs="+", help="the same, of `--accelerator gpu`")
    options = parser.parse_args()
    text = README.read_text(encoding="utf-8")
    if options.example:
        text = replace(text, "printed by the program", f"```console\n{printed(options.example)}```")
    if options.mnist and options.speed:
        title = "Speed (`make bench`; training as samples/s over those of the bare loop):"
        text = replace(text, "numbers", f"{mnist_row(options.mnist)}\n\n{title}\n\n{summaries(_json(options.speed))}")
    if options.gpu:
        text = replace(text, "numbers of a GPU", summaries(_json(options.gpu)))
    README.write_text(text, encoding="utf-8")


def _json(paths: Sequence[Path]) -> list[dict[str, Any]]:
    return [json.loads(path.read_text(encoding="utf-8")) for path in paths]


def summaries(results: Sequence[dict[str, Any]]) -> str:
    """The short tables of each result, without what stands in one before."""
    seen: set[str] = set()
    parts: list[str] = []
    for result in results:
        sections = result["sections"]
        if "training" in sections:
            heats = [heat for heat in sections["training"] if _name(heat["task"]) not in seen]
            seen |= {_name(heat["task"]) for heat in heats}
            sections = {**sections, "training": heats}
        others = {name for name in sections if name != "training"}
        parts.append(tables.summary({**result, "sections": {k: v for k, v in sections.items() if v and k not in seen}}))
        seen |= others
    return "\n\n".join(parts)


def _name(task: dict[str, Any]) -> str:
    return " ".join(str(task[key]) for key in ("name", "batch_size", "threads", "device"))


def replace(text: str, name: str, content: str) -> str:
    """The text with ``content`` between the two markers of that name."""
    begin, end = f"<!-- {name}: begin -->\n", f"<!-- {name}: end -->"
    replaced, count = re.subn(
        f"{re.escape(begin)}.*?{re.escape(end)}", lambda _: f"{begin}{content.rstrip()}\n{end}", text, flags=re.DOTALL
    )
    if count != 1:
        raise SystemExit(f"README.md: the markers of '{name}' stand there {count} times, not once")
    return replaced


def printed(run_dir: Path) -> str:
    """What a run prints at its end."""
    from attelbo.experiments.tables import print_result

    with redirect_stdout(io.StringIO()) as out:
        print_result(_read(run_dir, "result.json"), run_dir)
    return re.sub(r"[ ]+$", "", out.getvalue(), flags=re.MULTILINE)


def mnist_row(run_dir: Path) -> str:
    """The likelihood of a run as a table, with budget, seed, date and machine."""
    result, status, made = (_read(run_dir, name) for name in ("result.json", "status.json", "provenance.json"))
    metrics, seconds = result["metrics"], result["seconds"]
    return "\n".join(
        [
            "| run | test NLL, nats | ELBO | active units | budget | seconds: training, evaluation |",
            "|---|---|---|---|---|---|",
            f"| `{run_dir.parent.parent.name}/{run_dir.parent.name}`, seed {made['seed']} "
            f"| {metrics['test/nll']:.2f} ±{metrics['test/nll_std_error']:.2f} "
            f"({result['nll_samples']:,} samples, {result['nll_images']:,} images) "
            f"| {metrics['test/elbo']:.2f} | {metrics['test/active_units']:.0f} "
            f"| {result['epochs']} epochs, {result['steps']:,} steps "
            f"| {seconds['train']:.0f}, {seconds['evaluate']:.0f} |",
            "",
            f"{status['ended'][:10]}, {made['hardware']['cpu']}, {made['hardware']['threads']} thread(s), "
            f"torch {made['versions']['torch']}. The published 86.76 (Burda et al. 2016, Table 1, quoted) takes 3,280 "
            "epochs; at this budget the two are not to be compared.",
        ]
    )


def _read(run_dir: Path, name: str) -> dict[str, Any]:
    return json.loads((run_dir / name).read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
