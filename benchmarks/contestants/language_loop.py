"""The loop of nanoGPT (Karpathy 2022) as it is described, written anew: plain torch, eager, nothing in the way.

A step draws windows by random starts and stacks them one by one from a memory-mapped file, sets the learning rate,
clips the gradient, takes a step of AdamW that spares biases and norms, and reads the loss. On a CPU AdamW is not fused.

Shapes: B batch, T tokens, E features of a token, N heads, D = E / N, V vocabulary, L layers.
"""

import math
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.contestants.networks import gpu_memory, now
from benchmarks.task import LanguageTask
from benchmarks.turns import Lap, arguments


class Attention(nn.Module):
    """Causal self-attention."""

    def __init__(self, task: LanguageTask) -> None:
        super().__init__()
        self.heads = task.heads
        self.qkv = nn.Linear(task.dim, 3 * task.dim, bias=False)
        self.output = nn.Linear(task.dim, task.dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, dim = x.shape
        heads = [part.view(batch, length, self.heads, -1).transpose(1, 2) for part in self.qkv(x).split(dim, 2)]
        y = F.scaled_dot_product_attention(heads[0], heads[1], heads[2], is_causal=True)
        return self.output(y.transpose(1, 2).contiguous().view(batch, length, dim))


class Block(nn.Module):
    """Attention and two linear layers, norms first."""

    def __init__(self, task: LanguageTask) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(task.dim, bias=False)
        self.attention = Attention(task)
        self.feed_forward_norm = nn.LayerNorm(task.dim, bias=False)
        self.first = nn.Linear(task.dim, 4 * task.dim, bias=False)
        self.second = nn.Linear(4 * task.dim, task.dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.attention_norm(x))
        return x + self.second(F.gelu(self.first(self.feed_forward_norm(x))))


class PlainGPT(nn.Module):
    """Tokens (B, T) -> logits (B, T, V); embedding and last layer share their weights."""

    def __init__(self, task: LanguageTask, n_tokens: int) -> None:
        super().__init__()
        self.tokens = nn.Embedding(n_tokens, task.dim)
        self.places = nn.Embedding(task.context, task.dim)
        self.blocks = nn.ModuleList(Block(task) for _ in range(task.layers))
        self.norm = nn.LayerNorm(task.dim, bias=False)
        for name, parameter in self.named_parameters():
            if parameter.ndim == 2:
                added = name.endswith(("output.weight", "second.weight"))
                nn.init.normal_(parameter, std=0.02 / math.sqrt(2 * task.layers) if added else 0.02)

    def forward(self, x: Tensor) -> Tensor:
        h = self.tokens(x) + self.places(torch.arange(x.shape[1], device=x.device))
        for block in self.blocks:
            h = block(h)
        return F.linear(self.norm(h), self.tokens.weight)

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(self(x).flatten(0, 1), y.flatten())


def optimizer_for(model: nn.Module, task: LanguageTask) -> torch.optim.AdamW:
    """Weights of matrices decay."""
    parameters = list(model.parameters())
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": task.weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=task.lr, betas=task.betas, fused=task.device == "cuda")


def windows(file: Path, task: LanguageTask) -> tuple[Tensor, Tensor]:
    """A batch of x and y, each (B, T)."""
    stream = np.memmap(file, np.uint16, "r")
    starts = torch.randint(len(stream) - task.context, (task.batch_size,))
    x = torch.stack([torch.from_numpy(stream[i : i + task.context].astype(np.int64)) for i in starts])
    y = torch.stack([torch.from_numpy(stream[i + 1 : i + 1 + task.context].astype(np.int64)) for i in starts])
    return x.to(task.device), y.to(task.device)


def rate(step: int, task: LanguageTask) -> float:
    """Linear warm-up over 100 steps, then half a cosine down to a tenth."""
    if step < 100:
        return task.lr * (step + 1) / 100
    progress = (step - 100) / max(1, task.laps * task.steps - 100)
    return task.lr * (0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * min(1.0, progress))))


def train(model: PlainGPT, optimizer: torch.optim.Optimizer, file: Path, task: LanguageTask, first: int) -> None:
    """The steps of an epoch that begins with step ``first``."""
    for step in range(first, first + task.steps):
        for group in optimizer.param_groups:
            group["lr"] = rate(step, task)
        loss = model.loss(*windows(file, task))
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), task.clip_norm)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        loss.item()


@torch.no_grad()
def validate(model: PlainGPT, stream: Tensor, task: LanguageTask) -> float:
    """The log-likelihood of a token in the first windows of a stream."""
    rows = min(task.eval_batch_size, (len(stream) - 1) // task.context)
    x, y = (part[: rows * task.context].view(rows, -1).to(task.device) for part in (stream[:-1], stream[1:]))
    return -float(model.loss(x, y))


def main() -> int:
    track, words = arguments(sys.argv)
    task = LanguageTask.from_json(words)
    if task.threads is not None:
        torch.set_num_threads(task.threads)
    torch.manual_seed(0)
    text = Path(task.text).read_text(encoding="utf-8")
    kinds = {character: place for place, character in enumerate(sorted(set(text)))}
    stream = np.array([kinds[character] for character in text], np.uint16)
    cut = int(0.9 * len(stream))
    held_out = torch.from_numpy(stream[cut:].astype(np.int64))
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "train.bin")
        stream[:cut].tofile(file)
        model = PlainGPT(task, len(kinds)).to(task.device)
        optimizer = optimizer_for(model, task)
        track.ready({"threads": torch.get_num_threads()})
        for lap in range(task.laps):
            track.wait()
            start = now(task)
            train(model, optimizer, file, task, lap * task.steps)
            spent = now(task) - start
            validation = validate(model, held_out, task)
            rows = task.steps * task.batch_size
            track.report(Lap(rows, spent, now(task) - start, validation, gpu_memory(task)))
        track.wait()
    return 0


if __name__ == "__main__":
    sys.exit(main())
