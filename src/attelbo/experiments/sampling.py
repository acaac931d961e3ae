"""``attelbo sample``: what a trained model makes by itself, images of latents from its prior.

Shapes: n images (n, C, H, W).
"""

from attelbo.experiments.drawing import TrainedOnImages
from attelbo.experiments.trained import Accelerator, Which, at_least, tell
from attelbo.training.media import image_grid, save_png


def sample(
    run: str,
    n: int,
    seed: int,
    output: str | None,
    accelerator: Accelerator,
    checkpoint: Which,
) -> None:
    """Draw n latents from the prior, decode them and write one PNG grid of E[x|z]; where a model knows labels, one
    class after the other.

    Args:
        run: the run directory, or a folder whose newest run is meant.
        n: how many images.
        seed: of the draw.
        output: the file; by default ``media/samples-n<n>-seed<seed>.png`` in the run directory.
        accelerator: where.
        checkpoint: whose weights.

    Raises:
        UserError: not a run directory, or it has no checkpoint.
        ConfigError: n is below 1.
    """
    at_least(1, n=n)
    trained = TrainedOnImages.of(run, checkpoint, accelerator)
    trained.seed(seed, "sample")
    file = trained.path(output, f"samples-n{n}-seed{seed}.png")
    tell(f"{n} samples", save_png(image_grid(trained.model.sample(n)), file))
