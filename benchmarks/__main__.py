"""`python -m benchmarks`: measure, write ``benchmarks/results/bench-<time>.json``, print Markdown tables."""

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks import language, report, tables, training
from benchmarks.child import measured
from benchmarks.data import TITLES, Name, lay_out
from benchmarks.environments import Environment, environment
from benchmarks.machine import this_machine

RESULTS = Path(__file__).parent / "results"
SECTIONS = ("training", "data", "startup", "evaluation", "replicas", "language", "gpu")


def main() -> int:
    options = parsed()
    started, load = time.time(), os.getloadavg()
    needed = "training" in options.only
    pythae = environment("pythae", options.pythae, _tell) if needed else Environment("", {}, "not needed")
    with tempfile.TemporaryDirectory() as folder:
        names: list[Name] = ["mnist", "cifar10"] if {"training", "gpu"} & set(options.only) else ["mnist"]
        real: dict[Name, bool] = {name: lay_out(name, options.data_dir, Path(folder)) for name in names}
        sections = {name: section(name, options, Path(folder), pythae) for name in options.only}
    result = {
        "benchmark": "speed",
        "date": time.strftime("%Y-%m-%d %H:%M", time.gmtime(started)),
        "seconds": round(time.time() - started, 1),
        "quick": options.quick,
        "data": ", ".join(TITLES[name] if own else f"random images for {TITLES[name]}" for name, own in real.items()),
        "load_average": {"before": load, "after": os.getloadavg()},
        **this_machine(),
        "pythae": {"versions": pythae.versions, "missing": pythae.missing},
        "sections": sections,
    }
    print(tables.markdown(result))
    _tell(f"written: {report.save(result, options.results)}")
    return 0


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer tasks, rows and rounds: to see that it works")
    parser.add_argument("--only", type=_sections, help=f"of these, with commas: {','.join(SECTIONS)}; gpu needs one")
    parser.add_argument("--tasks", default="", help="training tasks whose name contains this")
    parser.add_argument("--accelerator", choices=["cpu", "gpu"], default="cpu")
    parser.add_argument("--rounds", type=int, help="rounds of training that count, if the patience lasts")
    parser.add_argument("--patience", type=float, default=1.0, help="times the patience of each training task")
    parser.add_argument("--pythae", metavar="PYTHON", help="an interpreter that has pythae; else it gets its own")
    parser.add_argument(
        "--data-dir",
        type=Path,
        default=Path(os.environ.get("ATTELBO_DATA_DIR", "data")),
        help="folder with MNIST/raw and cifar-10-batches-py; where one is missing, random images stand in",
    )
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder for the JSON file")
    options = parser.parse_args()
    if options.only is None:
        options.only = SECTIONS if options.accelerator == "gpu" else SECTIONS[:-1]
    if options.rounds is None:
        options.rounds = training.QUICK_ROUNDS if options.quick else training.ROUNDS[options.accelerator]
    if options.rounds < 1:
        parser.error(f"--rounds must be at least 1, got {options.rounds}")
    names = {heat.task.name for heat in training.heats(options.accelerator, options.quick, 1, Path())}
    if not any(options.tasks in name for name in names):
        parser.error(f"--tasks {options.tasks}: no such training task; there are {', '.join(sorted(names))}")
    return options


def _sections(text: str) -> tuple[str, ...]:
    names = tuple(text.split(","))
    if unknown := [name for name in names if name not in SECTIONS]:
        raise argparse.ArgumentTypeError(f"no such section: {', '.join(unknown)}; there are {', '.join(SECTIONS)}")
    return names


def section(name: str, options: argparse.Namespace, folder: Path, pythae: Environment) -> Any:
    """Measure one section on the data laid out in a folder."""
    quick = options.quick
    if name == "training":
        heats = training.heats(options.accelerator, quick, options.rounds, folder)
        chosen = [heat.with_patience(options.patience) for heat in heats if options.tasks in heat.task.name]
        return training.run(chosen, pythae, _tell)
    if name == "data":
        rounds, rows, slow_rows = (2, 20_000, 2_000) if quick else (5, 59_000, 6_000)
        found = measured("benchmarks.data_path", folder=str(folder), rounds=rounds, rows=rows, slow_rows=slow_rows)
        _tell(f"data path: {found['attelbo']['rows_per_second']['median']:,.0f} images/s")
        return found
    if name == "evaluation":
        rounds, samples, rows = (2, 500, 6_000) if quick else (4, 5_000, 59_600)
        device = "cuda" if options.accelerator == "gpu" else "cpu"
        found = measured(
            "benchmarks.evaluation",
            folder=str(folder),
            rounds=rounds,
            n_images=100,
            n_samples=samples,
            train_rows=rows,
            device=device,
        )
        _tell(f"evaluation: {found['ratio']['median']:.3f} of the bare loop")
        return found
    if name == "language":
        text = language.lay_out(options.data_dir, folder)
        device = "cuda" if options.accelerator == "gpu" else "cpu"
        task = language.task_for(text, options.rounds, 20 if quick else 60, device)
        return language.run(task, 30 if quick else 90, _tell)
    if name == "gpu":
        return measured("benchmarks.gpu", folder=str(folder), rows=12_000 if quick else 59_600)
    if name == "startup":
        from benchmarks import startup

        return startup.run(folder, rounds=1 if quick else 4, tell=_tell)
    from benchmarks import replicas

    return replicas.run(training.replicated(options.accelerator, quick, folder), rounds=1 if quick else 2, tell=_tell)


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
