"""``attelbo embed``: where an encoder puts the images, texts or vectors of a split, as coordinates and as a picture.

Shapes: N images, D latent dimensions.
"""

from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from attelbo.checks import check_at_least
from attelbo.data.batch import Batch
from attelbo.data.loader import spread_rows
from attelbo.data.text.files import read_lines
from attelbo.errors import ConfigError, UserError
from attelbo.experiments.boards.projector import write_projector
from attelbo.experiments.drawing import TrainedOnRows
from attelbo.experiments.evaluation import SplitName
from attelbo.experiments.own_rows import own_rows
from attelbo.experiments.trained import Accelerator, Which, marks, print_written
from attelbo.experiments.vectors import numbers_as_csv
from attelbo.experiments.writing import typed_rows
from attelbo.files import write_atomically
from attelbo.training.media import latent_map, project_to_plane, save_png


def embed(
    run: str,
    split: SplitName,
    n: int | None,
    method: Literal["pca", "tsne"],
    factor: int,
    seed: int,
    output: str | None,
    accelerator: Accelerator,
    checkpoint: Which,
    data_dir: str | None = None,
    tensorboard: bool = False,
    path: str | None = None,
) -> None:
    """Write the posterior means of a split, or of rows of the user's own, as CSV (row, labels, x, y, z1 ... zD) and
    draw their map.

    Args:
        run: the run directory, or a folder, for its newest run.
        split: train, validation or test.
        n: so many images, spread evenly over the split; all if None.
        method: of the plane: ``pca``, the two principal components, or ``tsne`` (van der Maaten & Hinton 2008), which
            keeps neighbours together and distances not.
        factor: where data have several factors, the one that colors the map.
        seed: of t-SNE.
        output: the CSV file; by default ``media/embedding-<split>.csv`` in the run directory, with the other options in
            its name (``embedding-test-tsne-n500-seed1.csv``). The map is written beside it.
        accelerator: where to compute.
        checkpoint: which weights.
        data_dir: where the data are now, if not where they were.
        tensorboard: also for TensorBoard's projector, in a folder of that name in ``tensorboard/`` of the run.
        path: in place of a split, a picture, a folder of them, a file of arrays like that of the run, or one of texts,
            one a line; without labels.

    Raises:
        UserError: not a run directory, or it has no checkpoint.
        ConfigError: n below 1, no such factor, or too few images for t-SNE.
    """
    check_at_least(1, ConfigError, n=n)
    trained = TrainedOnRows.of(run, checkpoint, accelerator, data_dir)
    if path is None:
        trained.with_data()
        batch, of = trained.spread(split, n or trained.n_rows(split)), split
    else:
        batch, of = _own(trained, path, n), Path(path).stem
    index = batch.index.cpu().unsqueeze(1)
    labels = None if batch.y is None else batch.y.cpu().reshape(len(batch.x), -1)  # (N, F)
    if labels is not None and not 0 <= factor < labels.shape[1]:
        raise ConfigError(f"factor: {trained.data.spec.name} has {labels.shape[1]}, counted from 0; got {factor}")
    tsne = method == "tsne"
    asked = marks(path=path, n=n, factor=factor or None, seed=seed if tsne else None)
    file = trained.path(output, f"embedding-{of}{'-tsne' if tsne else ''}{asked}.csv")
    means = trained.encode(batch).double().cpu()
    plane = _tsne(means, seed) if tsne else project_to_plane(means)[0]
    head, rows = ["row", *_names(labels)], (index if labels is None else torch.cat([index, labels], 1)).tolist()
    columns = [*head, "x", "y", *(f"z{i}" for i in range(1, means.shape[1] + 1))]
    print_written(
        f"{len(means):,} rows", write_atomically(file, numbers_as_csv(columns, rows, torch.cat([plane, means], 1)))
    )
    what = trained.data.spec.row
    title = f"{'t-SNE of the p' if tsne else 'P'}osterior means, {len(means):,} {of} {what}s"
    colors = None if labels is None else labels[:, factor]
    title = f"{title} of {trained.data.spec.name}"
    points, axis = (plane, "t-SNE ") if tsne else (means, "z")
    picture = latent_map(points, colors, title, axis, trained.data.class_names)
    print_written("map", save_png(picture, file.with_suffix(".png")))
    if tensorboard:
        folder = trained.run_dir / "tensorboard" / file.stem
        images = trained.data.shown(batch.x).cpu() if what == "image" else None
        print_written("projector", write_projector(folder, head, rows, means, images))


def _own(trained: TrainedOnRows, path: str, n: int | None) -> Batch:
    """Rows of the user's own, without labels: ``n`` of them spread evenly, or all.

    Raises:
        ConfigError: no such file, or none that could be rows of the data.
        UserError: a text that the model cannot read, or an encoder that is given the label.
    """
    if trained.model.encodes_labels:
        raise UserError(f"{trained.described}: its encoder is given the label of each row, and path=... has none")
    x = typed_rows(trained, read_lines(Path(path))) if trained.writes else own_rows(trained, path)[1]
    index = spread_rows(n or len(x), len(x))
    return Batch(x[index].to(trained.device), None, index.to(trained.device))


def _tsne(means: Tensor, seed: int) -> Tensor:
    from sklearn.manifold import TSNE

    if len(means) < 5:
        raise ConfigError(f"method=tsne takes at least 5 images, there are {len(means)}; method=pca takes any number")
    perplexity = min(30.0, (len(means) - 1) / 3)
    start = "pca" if torch.linalg.matrix_rank(means - means.mean(0)) > 1 else "random"  # no plane in a line
    return torch.from_numpy(TSNE(random_state=seed, perplexity=perplexity, init=start).fit_transform(means.numpy()))


def _names(labels: Tensor | None) -> list[str]:
    if labels is None:
        return []
    return ["label"] if labels.shape[1] == 1 else [f"y{i}" for i in range(labels.shape[1])]
