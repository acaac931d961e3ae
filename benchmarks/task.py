"""What the contestants of one race must all do. Standard library only: a contestant may live in another environment."""

import json
from dataclasses import asdict, dataclass
from typing import Literal, Self


@dataclass(frozen=True, slots=True)
class Task:
    """A VAE of fully connected layers, trained on dynamically binarized MNIST with Adam."""

    name: str
    hidden: tuple[int, ...]
    """Units of the encoder's hidden layers, and of the decoder's."""
    latent_dim: int
    activation: Literal["tanh", "relu"]
    threads: int | None
    """CPU threads of torch; None: its own choice."""
    laps: int
    """Epochs, the one for warming up counted."""
    train_size: int
    validation_size: int
    data_dir: str
    batch_size: int = 100
    eval_batch_size: int = 1000
    lr: float = 1e-3

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Self:
        fields = json.loads(text)
        return cls(**{**fields, "hidden": tuple(fields["hidden"])})
