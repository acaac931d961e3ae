"""From the JSON of a benchmark to Markdown: every section in full, or in short for the README."""

from collections.abc import Sequence
from typing import Any

from benchmarks.startup import IMPORTS
from benchmarks.training import BARE, OURS

Result = dict[str, Any]


def markdown(result: Result) -> str:
    """Everything that was measured, a table for each section."""
    sections = result["sections"]
    parts = [_about(result)]
    if "training" in sections:
        parts += ["### Training: how fast in relation to the bare loop", ratios(sections["training"])]
        parts += ["### Training: the contestants", contestants(sections["training"]), _how(result)]
    for name, title, table in (
        ("data", "The data path alone", data_path),
        ("startup", "Start-up", startup),
        ("evaluation", "Evaluation: importance-sampled likelihood", evaluation),
        ("replicas", "Several seeds at once", replicas),
        ("language", "A language model", language),
        ("gpu", "On a GPU", gpu),
    ):
        if name in sections:
            parts += [f"### {title}", table(sections[name])]
    return "\n\n".join(parts)


def summary(result: Result) -> str:
    """The ratios of the training, and one line for each of the other figures."""
    sections = result["sections"]
    parts = [ratios(sections["training"])] if "training" in sections else []
    if rows := _rest(sections):
        parts.append(markdown_table(["what", "attelbo", "beside it", "ratio"], rows))
    if "gpu" in sections:
        parts.append(gpu(sections["gpu"]))
    how = _how(result) if set(sections) != {"gpu"} else f"{result['data']}; medians; {result['seconds']:.0f} s in all."
    return "\n\n".join([*parts, _about(result), how])


def ratios(heats: Sequence[Result]) -> str:
    """A row for each heat, a column for each contestant: samples/s over the bare loop's."""
    names = list(dict.fromkeys(name for heat in heats for name in heat["contestants"] if name != BARE))
    head = ["network", "batch", "threads", "bare loop, samples/s", *names, "attelbo with validation and checkpoints"]
    rows = []
    for heat in heats:
        own = heat["contestants"]
        cells = [_over(own[name]["train"]["ratio"]) if name in own else "" for name in names]
        rate = f"{own[BARE]['train']['rows_per_second']['median']:,.0f}"
        rows.append([*_task(heat), rate, *cells, _over(own[OURS]["whole"]["ratio"])])
    return "\n".join([markdown_table(head, rows), *_absent(heats)])


def _absent(heats: Sequence[Result]) -> list[str]:
    missing = {f"{name}: {reason}." for heat in heats for name, reason in heat["absent"].items()}
    return ["", *sorted(missing)] if missing else []


def contestants(heats: Sequence[Result]) -> str:
    """A row for each contestant of each heat."""
    head = ["network", "batch", "threads", "contestant", "rounds", "samples/s", "of the bare loop", "processor time"]
    head += ["attelbo is faster by", "first epoch costs more by, s", "peak memory, MiB", "GPU memory, MiB", "val ELBO"]
    rows = []
    for heat in heats:
        full = heat["contestants"][BARE]["rows"]
        for name, own in heat["contestants"].items():
            train = own["train"]
            rows.append(
                [
                    *_task(heat),
                    name,
                    str(own["rounds"]),
                    f"{train['rows_per_second']['median']:,.0f}",
                    _over(train["ratio"]),
                    _over(train["cpu_ratio"]),
                    _over(own["ours_is_faster"]),
                    f"{own['first_lap_extra_seconds']:.1f}",
                    _mebibytes(own["memory"]),
                    _mebibytes(own["gpu_memory"]),
                    f"{own['validation']:.1f}" if own["rows"] == full else f"(after {own['rows']:,} rows an epoch)",
                ]
            )
    return markdown_table(head, rows)


def _task(heat: Result) -> list[str]:
    task = heat["task"]
    where = "GPU" if task["device"] == "cuda" else str(task["threads"] or f"default ({heat['threads']})")
    return [task["name"], str(task["batch_size"]), where]


def language(section: Result) -> str:
    """A row for each contestant."""
    batch = section["task"]["batch_size"]
    head = ["contestant", "rounds", "steps/s", "of the loop", "processor time", "nats per token after it"]
    rows = []
    for name, own in section["contestants"].items():
        train = own["train"]
        steps = f"{train['rows_per_second']['median'] / batch:.1f}"
        ratios = [_over(train["ratio"]), _over(train["cpu_ratio"])]
        rows.append([name, str(own["rounds"]), steps, *ratios, f"{-own['validation']:.3f}"])
    return f"{section['task']['name']}, batch {batch}:\n\n{markdown_table(head, rows)}"


def data_path(section: Result) -> str:
    """A row for each path."""
    rows = [
        [name, f"{own['rows_per_second']['median']:,.0f}", _over(own["ours_is_faster"], digits=1)]
        for name, own in section.items()
    ]
    return markdown_table(["path", "images/s", "attelbo is faster by"], rows)


def startup(section: Result) -> str:
    """A row for each program, then a job of a multirun."""
    rows = [
        [name, _over(own["seconds"]), _over(own["processor_seconds"]), _over(own["beyond_the_imports"])]
        for name, own in section["programs"].items()
    ]
    job = section["multirun"]
    rows.append(["one more job of a multirun", _over(job["job"]), "", ""])
    rows.append(["  of this, beside its training", _over(job["beyond_training"]), "", ""])
    rows.append(["  of this, evaluation", _over(job["evaluation"]), "", ""])
    return markdown_table(["program", "seconds", "processor seconds", "seconds beyond the imports alone"], rows)


def evaluation(section: Result) -> str:
    """Both and their ratio."""
    rows = [
        [name, f"{rate['median']:.1f}", _over(section["ratio"]) if name == OURS else "", f"{section['nll'][name]:.3f}"]
        for name, rate in section["images_per_second"].items()
    ]
    head = [f"{section['n_images']} images, {section['n_samples']:,} samples each", "images/s", "ratio", "NLL, nats"]
    return markdown_table(head, rows)


def replicas(section: Result) -> str:
    """Both ways."""
    measured = ("training_seconds", "whole_seconds", "processor_seconds")
    rows = [[way, *(_over(section[key][way]) for key in measured)] for way in section["training_seconds"]]
    rows.append(["faster by", _over(section["training_faster"]), _over(section["whole_faster"]), ""])
    head = [f"{section['seeds']} seeds, {section['epochs']} epochs", "training, s", "whole command, s", "processor, s"]
    table = markdown_table(head, rows)
    return f"{table}\n\nThe test ELBOs of a seed differ by {section['largest_difference']:.2g} nats at most."


def gpu(section: Result) -> str:
    """Steps by engine, epochs of the ordinary command, replicas, chunks of an evaluation: a table for each."""
    parts: list[str] = []
    if heats := [heat for heat in section["steps"] if len(heat) > 1]:
        ways = list(dict.fromkeys(way for heat in heats for way in heat if way != "network"))
        head = ["microseconds of a step, batch 128", *ways, "GPU busy in the graph"]
        rows = []
        for heat in heats:
            busy = heat["graph"]["gpu_us"] / heat["graph"]["us"] if "us" in heat.get("graph", {}) else None
            rows.append([heat["network"], *(_us(heat.get(way)) for way in ways), f"{busy:.0%}" if busy else ""])
        parts.append(markdown_table(head, rows))
    if epochs := {way: own for way, own in section["epochs"].items() if "s" in own}:
        rows = [[way, f"{own['s']:.3f}", f"{own['first']:.1f}"] for way, own in epochs.items()]
        parts.append(markdown_table(["the command, MLP 784-200-200-z50", "an epoch, s", "the first, s"], rows))
    if rows := [row for heat in section["replicas"] for row in _replicas_on_a_gpu(heat)]:
        head = ["N replicas", "N", "one after the other, us a step", "stacked", "faster by", "GPU memory, MiB"]
        parts.append(markdown_table(head, rows))
    if found := [own for own in section["chunks"] if own.get("by_chunk")]:
        chunks = sorted({chunk for own in found for chunk in own["by_chunk"]}, key=int)
        rates = [[f"{own['by_chunk'][c]['images_per_second']:,.0f}" if c in own["by_chunk"] else "" for c in chunks]
                 for own in found]  # fmt: skip
        rows = [[own["network"], *row] for own, row in zip(found, rates, strict=True)]
        parts.append(markdown_table(["NLL of 1,000 samples, images/s, by samples at a time", *chunks], rows))
    return "\n\n".join(parts)


def _replicas_on_a_gpu(heat: Result) -> list[list[str]]:
    rows = []
    for way, own in heat.items():
        if way.endswith(", stacked, graph") and "us" in own:
            n = int(way.partition(",")[0])
            alone = n * heat["one"]["us"]
            faster = f"{alone / own['us']:.2f}"
            rows.append([heat["network"], str(n), f"{alone:,.0f}", _us(own), faster, _mebibytes(own.get("memory"))])
    return rows


def _us(own: Result | None) -> str:
    return f"{own['us']:,.0f}" if own and "us" in own else ""


def _rest(sections: Result) -> list[list[str]]:
    """What stands beside the training in the README: what, ours, the other's, ratio."""
    rows = []
    if "training" in sections:
        heat = sections["training"][0]["contestants"]
        others = [f"{_mebibytes(heat[name]['memory'])} ({name})" for name in heat if name != OURS]
        rows.append(["peak memory of the first of these, MiB", _mebibytes(heat[OURS]["memory"]), ", ".join(others), ""])
    if "data" in sections:
        data = sections["data"]
        rate = f"{data[OURS]['rows_per_second']['median']:,.0f}"
        for name in [name for name in data if name.startswith("torchvision")]:
            theirs = f"{data[name]['rows_per_second']['median']:,.0f} ({name})"
            rows.append(["data path alone, images/s", rate, theirs, _over(data[name]["ours_is_faster"], digits=0)])
    if "startup" in sections:
        programs = sections["startup"]["programs"]
        imports = programs[IMPORTS]["seconds"]["median"]
        for name in [name for name in programs if name != IMPORTS]:
            seconds = programs[name]["seconds"]["median"]
            other = f"{imports:.2f} (`import torch, lightning.pytorch`)"
            rows.append([f"{name}, s", f"{seconds:.2f}", other, f"{seconds / imports:.2f}"])
        job = sections["startup"]["multirun"]["beyond_training"]
        rows.append(["a job of a multirun beside its training, s", f"{job['median']:.2f}", "", ""])
    if "evaluation" in sections:
        section = sections["evaluation"]
        ours, bare = (f"{section['images_per_second'][name]['median']:.1f}" for name in (OURS, BARE))
        what = f"NLL with {section['n_samples']:,} samples, images/s"
        rows.append([what, ours, f"{bare} (bare loop)", _over(section["ratio"])])
    if "replicas" in sections:
        section = sections["replicas"]
        alone, together = (own["median"] for own in section["training_seconds"].values())
        what = f"training of {section['seeds']} seeds, s"
        rows.append([what, f"{together:.1f} (replicas)", f"{alone:.1f} (in turn)", _over(section["training_faster"])])
    return rows


def _about(result: Result) -> str:
    hardware, versions, git = result["hardware"], result["versions"], result["git"]
    before, after = (f"{result['load_average'][at][0]:.1f}" for at in ("before", "after"))
    names = [name for name in ("python", "torch", "lightning", "hydra-core") if name in versions]
    pythae = result["pythae"]["versions"]
    others = f"; pythae {pythae['pythae']} with torch {pythae['torch']}" if pythae else ""
    return (
        f"{result['date']} UTC, {', '.join([hardware['cpu'], *hardware['gpus']])}, {hardware['cores']} cores, "
        f"load average {before} before and {after} after; "
        + ", ".join(f"{name} {versions[name]}" for name in names)
        + f"; attelbo {git['sha'][:7] + ('+' if git['changed'] else '') if git else versions['attelbo']}{others}."
    )


def _how(result: Result) -> str:
    return (
        f"{result['data']}. Medians over rounds (smallest-largest), ratios within a round, above 1 is faster, the "
        f"first round left out; everyone with the same network, batch and fused Adam; {result['seconds']:.0f} s in all."
    )


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of GitHub's kind."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _over(values: dict[str, float], digits: int = 2) -> str:
    return f"{values['median']:.{digits}f} ({values['min']:.{digits}f}-{values['max']:.{digits}f})"


def _mebibytes(n: int | None) -> str:
    return "" if n is None else f"{n / 2**20:,.0f}"
