"""The bare loop: the same VAE in plain torch, with no framework and nothing in the way. As fast as we know how.

The bytes are resident, a step gathers its rows, binarizes them and takes one fused Adam step; the loss is written
out. The draw of the pixels is attelbo's function, the fastest we know. Eager, and with images as torch lays them
out by itself, unless the task says otherwise. It prints nothing, logs nothing and saves no checkpoint.

Shapes: N rows, B batch, (C, H, W) image.
"""

import sys

import torch
from torch import Tensor

from attelbo.data.binarize import draw_bits
from benchmarks.contestants.networks import PlainVAE, begin, gpu_memory, images_of, now, pixels
from benchmarks.task import Task
from benchmarks.turns import Lap, arguments


def train_epoch(model: torch.nn.Module, optimizer: torch.optim.Optimizer, images: Tensor, task: Task) -> None:
    """One pass over images (N, C, H, W), uint8, in a new order."""
    for rows in torch.randperm(len(images)).to(images.device).split(task.batch_size):
        x = images.index_select(0, rows)
        x = draw_bits(x).float() if task.data == "mnist" else x.float().div_(255)
        if task.channels_last:
            x = x.contiguous(memory_format=torch.channels_last)
        optimizer.zero_grad()
        model(x).backward()
        optimizer.step()


def main() -> int:
    track, text = arguments(sys.argv)
    task = Task.from_json(text)
    begin(task)
    images, validation = (part.to(task.device) for part in images_of(task))
    validation = pixels(validation, task)
    model = PlainVAE(task).to(task.device)
    if task.channels_last:
        model = model.to(memory_format=torch.channels_last)
    if task.compile:
        model.compile()
    optimizer = torch.optim.Adam(model.parameters(), lr=task.lr, fused=task.fused)
    track.ready({"threads": torch.get_num_threads()})
    for _ in range(task.laps):
        track.wait()
        start = now(task)
        train_epoch(model, optimizer, images, task)
        train = now(task) - start
        elbo = model.elbo(validation, task.eval_batch_size)
        track.report(Lap(len(images), train, now(task) - start, elbo, gpu_memory(task)))
    track.wait()
    return 0


if __name__ == "__main__":
    sys.exit(main())
