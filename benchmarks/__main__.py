"""`python -m benchmarks`: measure, write ``benchmarks/results/<time>.json``, print a Markdown table."""

import argparse
import os
import sys
from pathlib import Path

from benchmarks import report, training

RESULTS = Path(__file__).parent / "results"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=training.__doc__)
    parser.add_argument("--quick", action="store_true", help="one thread, fewer rows and rounds: to see that it works")
    parser.add_argument("--rounds", type=int, help="laps of each contestant that count")
    parser.add_argument("--only", help="tasks whose name contains this", default="")
    parser.add_argument(
        "--data-dir",
        type=Path,
        default=Path(os.environ.get("ATTELBO_DATA_DIR", "data")),
        help="folder with MNIST/raw; without it, random images of the same shape are used",
    )
    options = parser.parse_args()
    if options.rounds is not None and options.rounds < 1:
        parser.error(f"--rounds must be at least 1, got {options.rounds}")

    result = training.run(options.data_dir, options.quick, options.rounds, options.only, tell=_tell)
    print(report.markdown(result))
    path = report.save(result, RESULTS)
    _tell(f"written: {path}")
    return 0


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
