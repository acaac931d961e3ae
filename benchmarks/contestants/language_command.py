"""A language model by attelbo's own command, with everything that is on by default: see ``command``."""

import sys
import tempfile
from pathlib import Path

from benchmarks.contestants.command import run_by_the_watch
from benchmarks.task import LanguageTask
from benchmarks.turns import arguments


def words(task: LanguageTask, output_dir: Path) -> list[str]:
    """The command line for a task."""
    return [
        "train",
        "experiment=shakespeare/nano_gpt",
        "data=text",
        "data/tokenizer=characters",
        f"data.source.path={Path(task.text).name}",
        f"data.context={task.context}",
        f"data.batch_size={task.batch_size}",
        f"data.eval_batch_size={task.eval_batch_size}",
        f"data.windows_per_epoch={task.steps * task.batch_size}",
        f"model.dim={task.dim}",
        f"model.attention.heads={task.heads}",
        f"model.network.layers={task.layers}",
        f"optimizer.lr={task.lr}",
        f"optimizer.betas=[{task.betas[0]},{task.betas[1]}]",
        f"optimizer.weight_decay={task.weight_decay}",
        f"trainer={'cpu' if task.device == 'cpu' else 'gpu'}",
        f"trainer.clip_norm={task.clip_norm}",
        f"trainer.max_epochs={task.laps}",
        f"trainer.threads={'null' if task.threads is None else task.threads}",
        *(["trainer.precision=bf16-mixed"] if task.bf16 else []),
        "trainer.limit_val_batches=1",
        f"paths.data_dir={Path(task.text).parent}",
        f"paths.output_dir={output_dir}",
    ]


def main() -> int:
    track, text = arguments(sys.argv)
    task = LanguageTask.from_json(text)
    with tempfile.TemporaryDirectory() as folder:
        return run_by_the_watch(task, track, words(task, Path(folder)), Path(folder))


if __name__ == "__main__":
    sys.exit(main())
