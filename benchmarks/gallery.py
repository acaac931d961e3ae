"""The gallery: ``python -m benchmarks.gallery --data-dir DIR`` writes docs/gallery.md and the pictures beside it.

An exhibit is a few commands of ``attelbo``, which run as the page shows them, in a folder of their own: what has been
trained there is found, not trained again. What is shown is written by the last of them, or is in the run's ``media/``;
the numbers are those of its ``result.json``. The page keeps its sections of exhibits that have no runs there, such as
all others after ``--only strokes``.
"""

import argparse
import io
import json
import os
import re
import shlex
import sys
from collections.abc import Sequence
from contextlib import chdir
from pathlib import Path

from attelbo.cli import main as attelbo
from attelbo.errors import UserError
from attelbo.experiments.numbers import numbers_of
from attelbo.experiments.rundir import RunDirectory
from attelbo.files import write_atomically
from benchmarks.exhibits import EXHIBITS, Exhibit, Work
from benchmarks.machine import machine_in_short, made_on

PAGE = Path(__file__).parent.parent / "docs" / "gallery.md"
MOST_COLORS = 256
"""Of a picture on the page."""

TEXT = """\
# Gallery

What models of attelbo have learned in minutes on one CPU core. Written by `python -m benchmarks.gallery`; nothing is
typed in: each section has the commands that make it, what they drew, and the numbers of the run. What no command draws
is in the run's `media/`, as of every run of such a model. Short runs: they show what a model does, not what it can do.

One thread of {machine}; other programs may have shared it, so seconds (of training) are rough.

"""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gallery", description=__doc__)
    parser.add_argument("--data-dir", type=Path, default=Path("data"), help="where MNIST lies")
    parser.add_argument("--output-dir", type=Path, default=Path("outputs/gallery"), help="where the commands are given")
    parser.add_argument("--only", choices=[exhibit.name for exhibit in EXHIBITS], nargs="+", help="some exhibits")
    parser.add_argument("--write-only", action="store_true", help="run nothing: write what is there")
    options = parser.parse_args()
    folder = options.output_dir.absolute()
    if not options.write_only:
        os.environ["ATTELBO_DATA_DIR"] = str(options.data_dir.absolute())
        folder.mkdir(parents=True, exist_ok=True)
        wanted = [exhibit for exhibit in EXHIBITS if not options.only or exhibit.name in options.only]
        for command in dict.fromkeys(command for exhibit in wanted for command in exhibit.commands):
            give(command, folder)
    publish(EXHIBITS, folder, PAGE)
    sys.stdout.write(f"{PAGE}\n")


def give(command: str, folder: Path) -> None:
    """Run ``attelbo <command>`` in a folder, where what has been trained is found.

    Raises:
        SystemExit: it failed.
    """
    sys.stdout.write(f"--- attelbo {command}\n")
    sys.stdout.flush()
    words = shlex.split(command)
    with chdir(folder):
        code = attelbo([*words, "ckpt=auto"] if words[0] == "train" else words)
    if code:
        sys.exit(code)


def publish(exhibits: Sequence[Exhibit], folder: Path, page: Path) -> None:
    """Write the page, and its pictures into a folder of the same name. What it has of exhibits without runs is kept;
    pictures that it does not show any more are removed.

    Args:
        exhibits: the sections, in their order.
        folder: where the commands were given.
        page: the Markdown file.
    """
    before = page.read_text(encoding="utf-8") if page.is_file() else ""
    kept = {text.partition("\n")[0]: f"## {text.rstrip()}\n" for text in re.split(r"(?m)^## ", before)[1:]}
    pictures = page.with_suffix("")
    sections = [section(exhibit, folder, pictures) or kept.get(exhibit.title) for exhibit in exhibits]
    text = TEXT.format(machine=machine_in_short()) + "\n".join(filter(None, sections))
    write_atomically(page, text)
    for path in pictures.glob("*"):
        if f"({pictures.name}/{path.name})" not in text:
            path.unlink()


def section(exhibit: Exhibit, folder: Path, pictures: Path) -> str | None:
    """The section of an exhibit, whose pictures are copied; None unless all of its works are there."""
    made = [(work, run_of(work, folder)) for work in exhibit.works]
    files = [run and (run if work.file.startswith("media/") else folder) / work.file for work, run in made]
    if not all(file and file.is_file() for file in files):
        return None
    shown, told = [], {}
    for place, ((work, run), file) in enumerate(zip(made, files, strict=True), 1):
        assert run is not None
        assert file is not None
        told[run] = work.label, facts(run, work.metrics)
        if file.suffix == ".txt":
            text = file.read_text(encoding="utf-8").rstrip()
            shown.append("".join(f"    {line}".rstrip() + "\n" for line in text.split("\n")))
        else:
            name = f"{exhibit.name}{f'_{place}' * (len(files) > 1)}{file.suffix}"
            write_atomically(pictures / name, small(file))
            shown.append(f"![{work.label or exhibit.title}]({pictures.name}/{name})\n")
    if len(shown) > 1:
        rows = ([work.label for work, _ in made], ["---"] * len(shown), [each.rstrip() for each in shown])
        shown = ["".join(f"| {' | '.join(row)} |\n" for row in rows)]
    lines = [f"- {f'{label}: ' * (len(told) > 1)}{fact}" for label, fact in told.values()]
    commands = "".join(f"attelbo {command}\n" for command in exhibit.commands)
    parts = [f"## {exhibit.title}\n", f"```bash\n{commands}```\n", *shown, f"{exhibit.caption}\n", "\n".join(lines)]
    return "\n".join(parts) + "\n"


def run_of(work: Work, folder: Path) -> Path | None:
    """The newest run of a work; None if there is none that is done."""
    try:
        run = RunDirectory.find(folder / work.run)
    except UserError:
        return None
    return run.path if run.status()["state"] == "done" else None


def facts(run: Path, metrics: Sequence[str]) -> str:
    """Numbers of a run, its seconds of training, its day and its commit."""
    result = json.loads((run / "result.json").read_text(encoding="utf-8"))
    numbers = {
        measure.key: f"{measure.label} {value:z.{measure.digits}f}"
        + ("" if error is None else f" ± {error:.{measure.digits}f}")
        + f" {measure.unit}{f' ({measure.note})' * bool(measure.note)}"
        for measure, value, error in numbers_of(result, "test")
    }
    told = [*(numbers[key].strip() for key in metrics), f"{result['seconds']['train']:.0f} s of training"]
    return f"{'; '.join(told)}; {', '.join(filter(None, made_on(run)))}"


def small(file: Path) -> bytes:
    """A picture with a palette, as few bytes as that takes; an animation as it is."""
    from PIL import Image

    if file.suffix == ".gif":
        return file.read_bytes()
    picture = Image.open(file).convert("RGB")
    exact = picture.getcolors(MOST_COLORS) is not None
    buffer = io.BytesIO()
    # Of few colors all are found by the median cut, so that the pixels of images stay what they are.
    method = Image.Quantize.MEDIANCUT if exact else Image.Quantize.MAXCOVERAGE
    picture.quantize(MOST_COLORS, method, dither=Image.Dither.NONE).save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


if __name__ == "__main__":
    main()
