"""What the contestants of one race must all do. Standard library only: a contestant may live in another environment."""

import json
from dataclasses import asdict, dataclass
from typing import Literal, Self


@dataclass(frozen=True, slots=True)
class Task:
    """A VAE with a diagonal normal posterior and a standard normal prior, trained with Adam."""

    name: str
    network: Literal["mlp", "conv"]
    hidden: tuple[int, ...]
    """Of the encoder, mirrored in the decoder: units of the hidden layers, or channels of the convolutions."""
    latent_dim: int
    activation: Literal["tanh", "relu"]
    threads: int | None
    """CPU threads of torch; None: its own choice."""
    laps: int
    """Epochs, the one for warming up counted."""
    train_size: int
    validation_size: int
    data_dir: str
    data: Literal["mnist", "cifar10"] = "mnist"
    """MNIST is binarized dynamically, with Bernoulli pixels; CIFAR-10 has normal ones with standard deviation 1."""
    batch_size: int = 100
    eval_batch_size: int = 1000
    lr: float = 1e-3
    fused: bool = True
    """Adam as one kernel, for everyone."""
    compile: bool = False
    """torch.compile, for those who have a switch for it."""
    channels_last: bool = False
    """Of the bare loop's images and weights; attelbo's convolutions always are."""
    device: Literal["cpu", "cuda"] = "cpu"

    @property
    def image(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        return (1, 28, 28) if self.data == "mnist" else (3, 32, 32)

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Self:
        fields = json.loads(text)
        return cls(**{**fields, "hidden": tuple(fields["hidden"])})
