"""pythae (Chadebec, Vincent & Allassonniere 2022) in its own environment: its VAE, its pipeline, its BaseTrainer.

The networks are handed to it as its documentation says; loss, data set, loader and collation are its own. It is given
binary images that were drawn once, for it takes data as floats and has no place to draw them anew: the
draw, which the others do in every step, costs it nothing. A checkpoint after every epoch, as the others have.
"""

# pythae is not installed beside attelbo:
# pyright: reportMissingImports=false

import sys
import tempfile

import torch
from pythae.models import VAE, VAEConfig
from pythae.models.base.base_utils import ModelOutput
from pythae.models.nn import BaseDecoder, BaseEncoder
from pythae.pipelines import TrainingPipeline
from pythae.trainers import BaseTrainerConfig
from pythae.trainers.training_callbacks import TrainingCallback
from torch import Tensor, nn

from benchmarks.contestants.networks import PlainVAE, begin, gpu_memory, images_of, now, pixels
from benchmarks.task import Task
from benchmarks.turns import Lap, Track, arguments


class Encoder(BaseEncoder):
    """x (B, C, H, W) -> mean and log variance (B, Z)."""

    def __init__(self, layers: nn.Sequential) -> None:
        super().__init__()
        self.layers = layers

    def forward(self, x: Tensor) -> ModelOutput:
        mean, log_std = self.layers(x).chunk(2, 1)
        return ModelOutput(embedding=mean, log_covariance=2 * log_std)


class Decoder(BaseDecoder):
    """z (B, Z) -> pixels (B, C, H, W): probabilities where they are binary, as pythae's loss wants them."""

    def __init__(self, layers: nn.Sequential, binary: bool) -> None:
        super().__init__()
        self.layers = layers
        self.binary = binary

    def forward(self, z: Tensor) -> ModelOutput:
        eta = self.layers(z)
        return ModelOutput(reconstruction=eta.sigmoid() if self.binary else eta)


class Watch(TrainingCallback):
    """Takes the time of each epoch, and sleeps between two of them until it is our turn."""

    def __init__(self, task: Task, track: Track, plain: PlainVAE, validation: Tensor) -> None:
        self.task = task
        self.track = track
        self.plain = plain
        self.validation = validation

    def on_train_begin(self, training_config: BaseTrainerConfig, **named: object) -> None:
        self.track.ready({"threads": torch.get_num_threads()})

    def on_epoch_begin(self, training_config: BaseTrainerConfig, **named: object) -> None:
        self.track.wait()
        self.start = now(self.task)

    def on_eval_step_begin(self, training_config: BaseTrainerConfig, **named: object) -> None:
        self.train = now(self.task) - self.start

    def on_log(self, training_config: BaseTrainerConfig, logs: object, **named: object) -> None:
        whole = now(self.task) - self.start  # its checkpoint is written, its lines are printed
        elbo = self.plain.elbo(self.validation.to(self.task.device), self.task.eval_batch_size)
        self.track.report(Lap(self.task.train_size, self.train, whole, elbo, gpu_memory(self.task)))


def build(task: Task) -> tuple[VAE, PlainVAE]:
    """pythae's model, and the plain one that shares its networks."""
    plain = PlainVAE(task)
    config = VAEConfig(task.image, task.latent_dim, reconstruction_loss="bce" if plain.binary else "mse")
    return VAE(config, Encoder(plain.encoder), Decoder(plain.decoder, plain.binary)), plain


def main() -> int:
    track, text = arguments(sys.argv)
    task = Task.from_json(text)
    begin(task)
    images, validation = (pixels(part, task) for part in images_of(task))
    model, plain = build(task)
    with tempfile.TemporaryDirectory() as folder:
        config = BaseTrainerConfig(
            output_dir=folder,
            per_device_train_batch_size=task.batch_size,
            per_device_eval_batch_size=task.eval_batch_size,
            num_epochs=task.laps,
            learning_rate=task.lr,
            optimizer_cls="Adam",
            optimizer_params={"fused": True} if task.fused else None,
            steps_saving=1,
            no_cuda=task.device == "cpu",
        )
        watch = Watch(task, track, plain, validation)
        TrainingPipeline(model, config)(images, validation, callbacks=[watch])
        track.wait()
    return 0


if __name__ == "__main__":
    sys.exit(main())
