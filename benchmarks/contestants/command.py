"""attelbo by its own command: ``attelbo train ...`` with everything that is on by default.

Progress bar, metrics.csv, learning rate, NaN guard, validation and both checkpoints are as a user has them; the
only stranger is a callback that holds the watch.
"""

import os
import sys
import tempfile
from pathlib import Path

from attelbo import cli
from attelbo.training.callbacks.base import stepper_of
from benchmarks.contestants.watch import Watch, joined
from benchmarks.data import BATCHES, TRAIN_BATCHES
from benchmarks.task import OnDevice, Task
from benchmarks.turns import Track, arguments


def words(task: Task, output_dir: Path) -> list[str]:
    """The command line for a task."""
    part = "hidden" if task.network == "mlp" else "channels"
    sizes, mirrored = (str(list(units)).replace(" ", "") for units in (task.hidden, task.hidden[::-1]))
    return [
        "train",
        "~experiment",
        f"name={task.data}/vae_{task.network}",
        f"data={task.data}",
        *(["data.binarize=dynamic"] if task.data == "mnist" else ["data.flip=false"]),
        f"data.batch_size={task.batch_size}",
        f"data.eval_batch_size={task.eval_batch_size}",
        f"data.validation_size={task.validation_size}",
        f"data.train_size={task.train_size}",
        f"model/encoder={task.network}",
        f"model/decoder={task.network}",
        f"model.latent_dim={task.latent_dim}",
        f"model.encoder.{part}={sizes}",
        f"model.decoder.{part}={mirrored}",
        f"model.encoder.activation={task.activation}",
        f"model.decoder.activation={task.activation}",
        *([] if task.data == "mnist" else ["model/likelihood=normal", "model.likelihood.calibration=fixed"]),
        f"optimizer.lr={task.lr}",
        f"optimizer.fused={str(task.fused).lower()}",
        "scheduler=constant",
        f"trainer={'cpu' if task.device == 'cpu' else 'gpu'}",
        f"trainer.max_epochs={task.laps}",
        f"trainer.threads={'null' if task.threads is None else task.threads}",
        *(["trainer.compile=true"] if task.compile else []),
        *(["trainer.precision=bf16-mixed"] if task.bf16 else []),
        "evaluation.n_images=100",  # after the last lap: nobody is waiting for it
        "evaluation.n_samples=1",
        f"paths.data_dir={task.data_dir}",
        f"paths.output_dir={output_dir}",
    ]


def accept_random_cifar10(task: Task) -> None:
    """Random images have not the MD5 sums of the real ones, which attelbo asks torchvision for."""
    from torchvision.datasets import CIFAR10

    if not (Path(task.data_dir) / BATCHES).is_symlink():
        CIFAR10.train_list = [[batch, None] for batch in TRAIN_BATCHES]
        CIFAR10.test_list = [["test_batch", None]]


def run_by_the_watch(task: OnDevice, track: Track, command: list[str], folder: Path) -> int:
    """Run a command that trains and writes below a folder; its exit code."""
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = f"{folder}/inductor"  # compiling costs what it costs the first time

    def about() -> dict[str, str]:
        (provenance,) = folder.rglob("provenance.json")
        return {"provenance": provenance.read_text(encoding="utf-8")}

    with joined(Watch(task, track, rows_seen=lambda module: stepper_of(module).rows_seen, about=about)):
        return cli.main(command)


def main() -> int:
    track, text = arguments(sys.argv)
    task = Task.from_json(text)
    if task.data == "cifar10":
        accept_random_cifar10(task)
    with tempfile.TemporaryDirectory() as folder:
        return run_by_the_watch(task, track, words(task, Path(folder)), Path(folder))


if __name__ == "__main__":
    sys.exit(main())
