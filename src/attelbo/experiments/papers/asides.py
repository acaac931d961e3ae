"""The notes below a table: further metrics, pairs of cells, numbers that mean less than they seem to, the cost of each
cell's model, the software used."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from attelbo.data.batch import Batch
from attelbo.experiments.assembly import Config, assemble
from attelbo.experiments.comparison.runs import Run
from attelbo.experiments.comparison.statistics import Estimate, paired
from attelbo.experiments.comparison.table import by_seed
from attelbo.experiments.numbers import remarks
from attelbo.experiments.papers.specification import Paper
from attelbo.experiments.provenance import in_short
from attelbo.models import Model, count_parameters

ROWS = 2


class Cost(NamedTuple):
    """Of a model on its data."""

    parameters: int
    """Trainable numbers."""
    flops: int
    """Floating-point operations of one row in training, forward and backward: those of convolutions and matrix
    products, two for each multiplication with its addition."""


def cost_of(model: Model, batch: Batch) -> Cost:
    """Count them for all players of a model, on the rows of a batch."""
    # torch's counter knows no formula for the fused attention of a CPU: the plain one does the same products.
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        for player in model.players():
            torch.autograd.grad(player.losses(batch)["loss"], player.parameters, allow_unused=True)
    return Cost(count_parameters(model), round(counter.get_total_flops() / len(batch.x)))


def cost_of_run(config: Config) -> Cost:
    """The cost of a configuration's model, on black images; no data file is read."""
    model, data = assemble(config)
    index = torch.arange(ROWS)
    return cost_of(model, Batch(torch.zeros(ROWS, *data.spec.shape), torch.zeros_like(index), index))


def asides(paper: Paper, done: Mapping[str, Sequence[Run]], costs: Mapping[str, Cost]) -> Iterator[str]:
    """A line for each.

    Args:
        paper: its table.
        done: the runs of each cell that are done.
        costs: of the cells, if the paper's table has them.
    """
    for key in paper.also:
        values = {cell: list(by_seed(runs, key).values()) for cell, runs in done.items()}
        told = [f"{paper.title_of(cell)} {Estimate.of(of).text()}" for cell, of in values.items() if of]
        if told:
            yield f"{key}: {'; '.join(told)}"
    for a, b in paper.pairs:
        for key in (paper.metric_of(a), *paper.also):
            if found := paired(by_seed(done[a], key), by_seed(done[b], key)):
                yield f"{key}: {found.statement(paper.title_of(a), paper.title_of(b))}"
    yield from _remarks_on(paper, done)
    for cell, cost in costs.items():
        operations = f"{cost.flops / 1e6:.1f} MFLOP for a row in training"
        yield f"{paper.title_of(cell)}: {cost.parameters:,} parameters, {operations}"
    if made := {in_short(run.provenance) for runs in done.values() for run in runs if run.provenance}:
        yield f"made with {'; '.join(sorted(made))}"


def _remarks_on(paper: Paper, done: Mapping[str, Sequence[Run]]) -> Iterator[str]:
    """Those on the first run of a cell that has any; once, where cells share their runs."""
    told: set[Path] = set()
    for cell, runs in done.items():
        remarked = [(run, told_of) for run in runs if (told_of := list(remarks(run.result, "test")))]
        if remarked and (first := remarked[0][0].path) not in told:
            told.add(first)
            how_many = f" (in {len(remarked)} of {len(runs)} runs)" if len(runs) > 1 else ""
            for remark in remarked[0][1]:
                yield f"{paper.title_of(cell)}: {remark}{how_many}"
