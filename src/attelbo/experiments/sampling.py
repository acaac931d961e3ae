"""``attelbo sample``: samples of a trained model: images or vectors with latents from its prior, functions, or texts.

Shapes: n images (n, C, H, W), n texts of T tokens.
"""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from attelbo.checks import check_at_least
from attelbo.data import FunctionDataModule, PixelDataModule
from attelbo.data.tasks import GaussianProcess
from attelbo.errors import ConfigError, UserError
from attelbo.experiments.sampled import GROUP, in_groups, sampled_images, write_array, write_folder
from attelbo.experiments.trained import Accelerator, Trained, Which, marks, print_written, refuse
from attelbo.experiments.vectors import write_vectors
from attelbo.experiments.writing import write_samples
from attelbo.files import write_atomically
from attelbo.models import DRAW, LanguageModel, LatentVariableModel, NeuralProcess, TextVAE
from attelbo.training.callbacks.functions import draw_choices, draw_curves, predict_curves
from attelbo.training.callbacks.strokes import painting
from attelbo.training.callbacks.texts import first_tokens, joined
from attelbo.training.media import Picture, class_columns, image_grid, save_gif, save_png

N_IMAGES, N_TEXTS, N_FUNCTIONS, LENGTH = 64, 1, 8, 500


def sample(
    run: str,
    n: int | None,
    seed: int,
    output: str | None,
    accelerator: Accelerator,
    checkpoint: Which,
    prompt: str | None = None,
    length: int | None = None,
    temperature: float | None = None,
    top_k: int | None = None,
    top_p: float | None = None,
    min_p: float | None = None,
    typical_p: float | None = None,
    truncate: bool = False,
    y: int | None = None,
    data_dir: str | None = None,
) -> None:
    """Draw images or texts from a model with latent variables, or let a language model write texts.

    Images are a PNG grid of E[x|z], z from the prior; where a model knows labels, one class after the other. Those of a
    model that paints in strokes are also a GIF, and some of them a strip. For other programs, such as those that
    measure an FID, they are an NPZ file or a folder of PNG files. Vectors are rows of CSV in the units of the data,
    x ~ p(x|z). Samples of a neural process are functions, given the known points of some curves or images.
    Texts are printed and written to a file.

    100 images or texts are drawn at a time: the same n and seed give the same on every machine of a kind.

    Args:
        run: the run directory, or a folder, for its newest run.
        n: how many; if None 64 images or vectors, ten texts of latents or one of a language model, 8 functions for each
            context.
        seed: of the draw.
        output: the file; by default ``media/samples-n<n>-seed<seed>[-y<y>].png`` in the run directory, or
            ``.csv``, or ``.txt`` with a mark for each option that is given. Of images also ``.npz``, or a name without
            an ending: a new folder (``experiments.sampled``).
        accelerator: where to compute.
        checkpoint: which weights.
        prompt: the beginning of a text; a line break if None, or nothing where the model has learned how texts begin.
        length: tokens after the prompt; if None 500, or as many as fit into the model's context.
        temperature: divides the logits, 1 if None; 0: always the likeliest token.
        top_k: only one of the k likeliest tokens.
        top_p: only one of the likeliest tokens that together have this probability.
        min_p: only one of the tokens that have this share of the likeliest one's probability, or more.
        typical_p: only one of the tokens that together have this probability, the most typical ones first.
        truncate: whether the beginning may be dropped where a text is longer than the model's context.
        y: the class of all images, of a model that knows labels; if None one after the other, in columns.
        data_dir: where the images are now that a neural process completes, if not where they were.

    Raises:
        UserError: not a run directory, no checkpoint in it, nothing that this model could draw, or a prompt that is not
            of its vocabulary.
        ConfigError: a number is out of range, or an option is for another kind of model.
    """
    check_at_least(1, ConfigError, n=n, length=length)
    trained = Trained.of(run, checkpoint, accelerator, data_dir)
    _check_class(trained, y)
    trained.seed(seed, "sample")
    drawn = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "min_p": min_p, "typical_p": typical_p}
    options = {**drawn, "truncate": truncate}
    if isinstance(trained.model, TextVAE):
        write_samples(trained, n, seed, output, {"prompt": prompt, "length": length, **options})
    elif isinstance(trained.model, LanguageModel):
        n = N_TEXTS if n is None else n
        file = trained.path(output, f"samples-n{n}-seed{seed}{marks(prompt=prompt, length=length, **options)}.txt")
        text = joined(_texts(trained.model, trained.data, n, prompt, length, options))
        sys.stdout.write(text)
        print_written(f"{n} samples", write_atomically(file, text))
    elif isinstance(trained.model, LatentVariableModel):
        refuse(f"{trained.described}: it writes no text", prompt=prompt, length=length, **options)
        n = N_IMAGES if n is None else n
        if trained.data.spec.row == "row":
            labels = None if y is None else torch.full((n,), y, device=trained.device)
            write_vectors(trained, trained.model.draw(n, labels), output, f"samples-n{n}-seed{seed}{marks(y=y)}.csv")
        else:
            _images(trained, trained.model, n, seed, output, y)
    elif isinstance(trained.model, NeuralProcess):
        refuse(f"{trained.described}: it writes no text", prompt=prompt, length=length, **options)
        n = N_FUNCTIONS if n is None else n
        file = trained.path(output, f"samples-n{n}-seed{seed}.png")
        print_written(f"{n} samples for each context", save_png(_functions(trained, n), file))
    else:
        raise UserError(f"{trained.described}: nothing that could be sampled")


def _images(trained: Trained, model: LatentVariableModel, n: int, seed: int, output: str | None, y: int | None) -> None:
    """n images: a grid, or what other programs read."""
    form = Path(output).suffix.lower() if output else ".png"
    if form not in (".png", ".npz", ""):
        raise ConfigError(f"output={output}: a grid of images ends in .png, data in .npz, a folder of them in nothing")
    groups = ((trained.data.shown(images), labels) for images, labels in sampled_images(model, n, y))
    if form == "":
        print_written(f"{n:,} samples", write_folder(groups, Path(str(output))))
        return
    file = trained.path(output, f"samples-n{n}-seed{seed}{marks(y=y)}{form}")
    if form == ".npz":
        print_written(f"{n:,} samples", write_array(groups, file))
        return
    columns = class_columns(n, model.known_classes) if y is None else None
    print_written(f"{n} samples", save_png(image_grid(torch.cat([images for images, _ in groups]), columns), file))
    if isinstance(model, DRAW):
        trained.seed(seed, "sample")
        painted = painting(model, min(n, GROUP))
        print_written("their strokes", save_gif(painted.frames, file.with_suffix(".gif")))
        print_written("some of them", save_png(painted.still, file.with_name(f"{file.stem}-strokes.png")))


@torch.no_grad()
def _functions(trained: Trained, n: int) -> Picture:
    """n functions E[y | x, z, C], z from q(z|C), for each of some contexts C."""
    model, data = trained.model, trained.data
    assert isinstance(model, NeuralProcess)
    if not model.n_latent:
        raise UserError(
            f"{trained.described}: without a latent variable there is one answer for each context, and nothing to "
            "sample; media/ has its mean and band"
        )
    if isinstance(data, PixelDataModule):
        trained.with_data()
        return draw_choices(model, data.images(torch.arange(3, device=model.device), "test"), n)
    if isinstance(data, FunctionDataModule) and isinstance(data.task, GaussianProcess):
        return draw_curves(predict_curves(model, data.task, n), lines=n)
    raise UserError(f"{trained.described}: nothing that could be drawn")


def _check_class(trained: Trained, y: int | None) -> None:
    """Raise ConfigError if a class is asked for that the model does not have."""
    classes = trained.model.known_classes if isinstance(trained.model, LatentVariableModel) else None
    if classes is None:
        refuse(f"{trained.described}: it knows no labels", y=y)
    elif y is not None and not 0 <= y < classes:
        raise ConfigError(f"y must be in 0..{classes - 1}, got {y}")


def _texts(
    model: LanguageModel, data: Any, n: int, prompt: str | None, length: int | None, options: Mapping[str, Any]
) -> list[str]:
    """n texts with the same prompt."""
    if not hasattr(data, "tokenizer"):
        raise UserError(f"{data.spec.name} has tokens without letters: there is no text to sample")
    first = first_tokens(data.tokenizer, prompt)
    if length is None:  # as many as it can see, the last of which it does not look at
        limit = None if options["truncate"] else model.limit
        length = LENGTH if limit is None else max(1, min(LENGTH, limit + 1 - len(first)))
    given = {name: value for name, value in options.items() if value is not None}
    written = []
    for places in in_groups(n):
        tokens = torch.tensor([first] * len(places), device=model.device)
        written += model.generate(tokens, length, **given).tolist()
    return [data.tokenizer.decode(row) for row in written]
