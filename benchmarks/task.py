"""What the contestants of one race must all do. Standard library only: a contestant may live in another environment."""

import json
from dataclasses import asdict, dataclass
from typing import Literal, Protocol, Self

Device = Literal["cpu", "cuda"]


class OnDevice(Protocol):
    """Whatever is done somewhere."""

    @property
    def device(self) -> Device: ...


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
    bf16: bool = False
    """Mixed precision, for those who have a switch for it."""
    channels_last: bool = False
    """Of the bare loop's images and weights; attelbo's convolutions always are."""
    device: Device = "cpu"

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


@dataclass(frozen=True, slots=True)
class LanguageTask:
    """A causal transformer over characters, trained with AdamW: the setting that nanoGPT gives for a CPU."""

    name: str
    text: str
    """A file, of whose characters the last tenth is for validation."""
    threads: int | None
    """CPU threads of torch; None: its own choice."""
    laps: int
    """Epochs, the one for warming up counted."""
    steps: int
    """Of the optimizer in an epoch."""
    layers: int = 4
    heads: int = 4
    dim: int = 128
    context: int = 64
    batch_size: int = 12
    eval_batch_size: int = 100
    """Windows of the one batch that is for validation."""
    lr: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: float = 0.1
    clip_norm: float = 1.0
    bf16: bool = False
    """Mixed precision, for attelbo."""
    device: Device = "cpu"

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Self:
        fields = json.loads(text)
        return cls(**{**fields, "betas": tuple(fields["betas"])})
