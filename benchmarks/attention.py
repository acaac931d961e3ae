"""Time and memory of attention kernels in training: `python -m benchmarks.attention`, an hour on one quiet core.

Forward and backward pass of 8 heads of 64, one row, float32, on one thread. The contestants take turns; a ratio is made
of two laps of one round. Times are those of the thread, which a busy machine disturbs less than those of the wall;
memory is what torch's allocator held at most beyond the inputs. *Hand-written* is what everybody writes: the
product, a dense mask, softmax, the product. Linear attention (elu + 1) is another operation, there to compare.

Writes JSON to benchmarks/results and, with --write, docs/attention.md.
"""

import argparse
import itertools
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from attelbo.attention import KERNELS, Causal, EluFeatures, Mask, Mechanism, ScaledDot, SlidingWindow
from attelbo.attention.linear.operation import causal_linear_attention, linear_attention
from benchmarks.machine import this_machine
from benchmarks.tables import markdown_table

RESULTS = Path(__file__).parent / "results"
PAGE = Path(__file__).parents[1] / "docs" / "attention.md"
HEADS, HEAD_DIM, WINDOW = 8, 64, 128
LENGTHS = (128, 256, 512, 1024, 2048, 4096, 8192, 16384)
LONGEST = {"eager": 1024, "hand-written": 4096, "auto": 4096, "sdpa": 8192}
"""Beyond, keeping all weights, or a dense mask, takes more memory and time than there is; auto is one of the others."""
MASKS: dict[str, Mask | None] = {
    "dense": None,
    "causal": Causal(),
    f"window of {WINDOW}, causal": Causal() & SlidingWindow(WINDOW),
}
Attend = Callable[[Tensor, Tensor, Tensor], Tensor]
Result = dict[str, Any]


def contestants(mask: Mask | None, length: int) -> dict[str, Attend]:
    """What can be measured at this length."""
    mechanism = Mechanism(ScaledDot(HEAD_DIM))
    found: dict[str, Attend] = {}
    for name in ("hand-written", "eager", "sdpa", "chunked", "auto"):
        if length > LONGEST.get(name, length):
            continue
        if name == "hand-written":
            found[name] = hand_written(mask, length)
        else:
            kernel = KERNELS[name]
            found[name] = lambda q, k, v, kernel=kernel: kernel(q, k, v, mechanism, mask=mask)
    features = EluFeatures()
    if mask is None:
        found["linear"] = lambda q, k, v: linear_attention(features(q)[0], features(k)[0], v)
    elif isinstance(mask, Causal):
        found["linear"] = lambda q, k, v: causal_linear_attention(features(q)[0], features(k)[0], v)[0]
    return found


def hand_written(mask: Mask | None, length: int) -> Attend:
    """The mask is made once, as a buffer would be."""
    hidden = None if mask is None else ~mask.dense(length, length, device=None)

    def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        scores = query @ key.transpose(-2, -1) * HEAD_DIM**-0.5
        if hidden is not None:
            scores = scores.masked_fill(hidden, float("-inf"))
        return torch.softmax(scores, -1) @ value

    return attend


def inputs(length: int) -> tuple[Tensor, list[Tensor], Tensor]:
    """Packed q, k and v, views of them for each head as a layer makes them, and a gradient for the output."""
    packed = torch.randn(1, length, 3 * HEADS * HEAD_DIM, requires_grad=True)
    parts = packed.split(HEADS * HEAD_DIM, -1)
    heads = [part.unflatten(-1, (HEADS, HEAD_DIM)).transpose(1, 2) for part in parts]
    return packed, heads, torch.randn(1, HEADS, length, HEAD_DIM)


def lap(attend: Attend, length: int, repeats: int = 1) -> float:
    """Seconds of a forward and backward pass."""
    packed, heads, gradient = inputs(length)
    began = time.thread_time()
    for _ in range(repeats):
        torch.autograd.grad(attend(*heads), packed, gradient, retain_graph=True)
    return (time.thread_time() - began) / repeats


def profiled(attend: Attend, length: int) -> tuple[int, float]:
    """The most bytes that torch's allocator held beyond those before, and the seconds, of one pass there and back."""
    packed, heads, gradient = inputs(length)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        began = time.thread_time()
        torch.autograd.grad(attend(*heads), packed, gradient)
        seconds = time.thread_time() - began
    profiler: Any = recorded.profiler  # whose events have other fields by their tag
    changes: list[tuple[int, int]] = []
    events = [*profiler.kineto_results.experimental_event_tree()]
    while events:
        event = events.pop()
        events += event.children
        if event.tag.name == "Allocation":
            changes.append((event.start_time_ns, event.extra_fields.alloc_size))
    held = most = 0
    for _, change in sorted(changes):
        held += change
        most = max(most, held)
    return most, seconds


def measure(mask_name: str, length: int, rounds: int) -> Result:
    """One mask at one length: the peak memory of each contestant, and laps in turns."""
    attends = contestants(MASKS[mask_name], length)
    memory: dict[str, int] = {}
    laps: dict[str, list[float]] = {}
    for name, attend in attends.items():
        memory[name], seconds = profiled(attend, length)  # where passes are short, this one does not count
        laps[name] = [seconds] if length > LONGEST["hand-written"] else []
    repeats = min(max(1, 500_000 // length**2), 20)
    while not all(laps.values()) or (len(laps["chunked"]) < rounds and length <= LONGEST["hand-written"]):
        for name, attend in attends.items():
            laps[name].append(lap(attend, length, repeats))
    return {"mask": mask_name, "length": length, "laps": laps, "peak_bytes": memory}


def markdown(result: Result) -> str:
    """The page: a table of times and one of memory for each mask."""
    about = result["hardware"]
    parts = [
        "# Attention: time and memory by kernel",
        "Written by `python -m benchmarks.attention --write`; nothing is typed in. Forward and backward pass of "
        f"{HEADS} heads of {HEAD_DIM}, one row, float32, one thread; medians of interleaved rounds, milliseconds of "
        "the thread's own time. *Hand-written*: product, dense mask, softmax, product. *auto / best*: the median over "
        "the rounds of auto's time over that of the kernel with the best median. *Linear* (elu + 1) computes "
        "something else.",
        f"{result['date']}, {about['cpu']}, torch {result['versions']['torch']}; load average "
        f"{result['load_average']['before'][0]:.1f} at the start, {result['load_average']['after'][0]:.1f} at the end.",
    ]
    for mask in dict.fromkeys(row["mask"] for row in result["rows"]):
        rows = [row for row in result["rows"] if row["mask"] == mask]
        names = list(dict.fromkeys(name for row in rows for name in row["laps"]))
        parts += [f"## {mask.capitalize()}: milliseconds"]
        head = ["L", "rounds", *names, "auto / best", "hand-written / auto"]
        parts += [markdown_table(head, [_times(row, names) for row in rows])]
        parts += [f"## {mask.capitalize()}: peak memory, MB"]
        parts += [markdown_table(["L", *names], [_memory(row, names) for row in rows])]
    return "\n\n".join(parts) + "\n"


def _times(row: Result, names: list[str]) -> list[str]:
    laps = row["laps"]
    medians = {name: statistics.median(own) for name, own in laps.items()}
    best = min((name for name in medians if name in KERNELS and name != "auto"), key=lambda name: medians[name])
    auto = f"{_ratio(laps['auto'], laps[best]):.2f} ({best})" if "auto" in laps else "-"
    cells = [f"{1e3 * medians[name]:,.1f}" if name in medians else "-" for name in names]
    by_hand = f"{_ratio(laps['hand-written'], laps['auto']):.1f}" if "hand-written" in laps else "-"
    return [f"{row['length']:,}", str(len(laps["chunked"])), *cells, auto, by_hand]


def _ratio(own: list[float], other: list[float]) -> float:
    return statistics.median(a / b for a, b in zip(own, other, strict=True))


def _memory(row: Result, names: list[str]) -> list[str]:
    cells = [f"{row['peak_bytes'][name] / 1e6:,.0f}" if name in row["peak_bytes"] else "-" for name in names]
    return [f"{row['length']:,}", *cells]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.attention", description=__doc__)
    parser.add_argument("--lengths", default=",".join(map(str, LENGTHS)), help="tokens, with commas")
    parser.add_argument("--rounds", type=int, default=5, help="of turns; beyond 4,096 tokens, one")
    parser.add_argument("--write", action="store_true", help="write docs/attention.md")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder for the JSON file")
    options = parser.parse_args()
    torch.set_num_threads(1)
    result: Result = {
        "benchmark": "attention",
        "date": time.strftime("%Y-%m-%d %H:%M", time.gmtime()),
        "load_average": {"before": os.getloadavg()},
        **this_machine(),
        "rows": [],
    }
    options.results.mkdir(parents=True, exist_ok=True)
    path = options.results / f"attention-{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}.json"
    for length, mask in itertools.product(map(int, options.lengths.split(",")), MASKS):
        row = measure(mask, length, options.rounds)
        print(f"{mask}, {length} tokens: {_times(row, list(row['laps']))}", file=sys.stderr, flush=True)
        result["rows"].append(row)
        result["load_average"]["after"] = os.getloadavg()
        # After every row: an hour is long enough to be interrupted.
        path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        if options.write:
            PAGE.write_text(markdown(result), encoding="utf-8")
    print(markdown(result))
    print(f"written: {path}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
