"""``attelbo evaluate``: a finished run, measured again."""

from collections.abc import Sequence
from pathlib import Path

from attelbo.errors import ConfigError
from attelbo.experiments.boards.telling import boards_of
from attelbo.experiments.evaluation.conditions import Conditions
from attelbo.experiments.evaluation.model import check_evaluation, evaluate_model, has_likelihood
from attelbo.experiments.evaluation.splits import SplitName, evaluated, split_key
from attelbo.experiments.rundir import RunDirectory
from attelbo.experiments.settings import Evaluation, Representation, Stretched
from attelbo.experiments.tables import print_result
from attelbo.experiments.trained import Accelerator, Trained, Which, print_written, refuse, writable
from attelbo.files import read_config
from attelbo.models import checkpoint_of
from attelbo.training.loggers import log_result
from attelbo.training.threads import use_threads

N_SAMPLES = 5000
"""Importance samples for each image, unless another number is asked for."""


def evaluate(
    run: str,
    split: SplitName,
    n_samples: int | None,
    n_images: int | None,
    batch_size: int,
    chunk: int | None,
    checkpoint: Which,
    seed: int,
    accelerator: Accelerator,
    data_dir: str | None = None,
    compress: bool = False,
    disentanglement: bool | None = None,
    representation: Representation = "published",
    quality: bool = False,
    probe: bool = False,
    fid: bool = False,
    gaps: bool = False,
    lengths: Sequence[int] | None = None,
    stretched: Stretched | None = None,
) -> None:
    """``attelbo evaluate``: measure a finished run again and print the table; writes ``evaluation-<split>.json``, and
    logs to the dashboards of the run, as a run of its own there.

    Args:
        run: the run directory, or a folder, for its newest run.
        split: validation, test or train, whose rows are then as an evaluation sees them: not moved, drawn once.
        n_samples: importance samples for each image, 5000 if None.
        n_images: so many of the split's images, spread evenly over it; all if None.
        batch_size: rows at a time.
        chunk: samples of each at a time; as many as suit the device if None.
        checkpoint: which weights.
        seed: of the noise.
        accelerator: where to compute.
        data_dir: where the data are now, if not where they were.
        compress: code the images by bits back, decode them and count the bits.
        disentanglement: scores of latents for factors; where y holds factors, of up to 64 latents, if None.
        representation: what these scores read: as each was published, means or samples.
        quality: similarity of reconstructions, and distances of samples in the features of a classifier.
        probe: accuracy of simple classifiers that learn labels from posterior means.
        fid: the Frechet Inception distance of samples.
        gaps: where the bound falls short of log p(x); see ``attelbo.experiments.evaluation.inference_gaps``.
        lengths: rows of these lengths too, of a model of tokens; see ``attelbo.experiments.evaluation.lengths``.
        stretched: what is stretched about rotary positions, where these rows are longer than those trained on.

    Raises:
        UserError: a number is out of range, not a run directory, it has no checkpoint, or something was asked for that
            this model, these data or this machine do not have.
    """
    try:
        settings = Evaluation(
            n_samples=N_SAMPLES if n_samples is None else n_samples,
            n_images=n_images,
            batch_size=batch_size,
            chunk=chunk,
            checkpoint=checkpoint,
            compress=compress,
            disentanglement=disentanglement,
            representation=representation,
            quality=quality,
            probe=probe,
            fid=fid,
            gaps=gaps,
            lengths=lengths,
            stretched=stretched,
        )
    except ValueError as error:
        raise ConfigError(str(error)) from error
    trained = Trained.of(run, checkpoint, accelerator, data_dir)
    model, data, device = trained.model, trained.data, trained.device
    if not has_likelihood(model):
        why = f"{trained.described}: no likelihood to estimate"
        refuse(why, n_samples=n_samples, n_images=n_images, chunk=chunk)
    config, rows = read_config(trained.run_dir), evaluated(split)
    check_evaluation(settings, model, data, trained.described, config, rows)
    if split == "train":
        refuse("split=train has the rows that these classifiers learn from", probe=probe)
    writable("run", trained.run_dir / f"evaluation-{split}.json", ".json")
    trained.with_data()
    run_dir = RunDirectory(trained.run_dir)
    use_threads(config["trainer"]["threads"])
    result = evaluate_model(
        model, data, Conditions(rows, settings, seed, device), Path(config["paths"]["output_dir"]), config
    )
    result |= {"checkpoint": checkpoint_of(trained.run_dir, checkpoint).stem, "seed": seed}
    drawn = result.pop("drawn")
    run_dir.write(f"evaluation-{split}.json", result)
    of_run = (run_dir.read("result.json") or {}).get("checkpoint")
    print_result(result, trained.run_dir, split_key(rows), works=of_run in (None, result["checkpoint"]))
    for name, write in drawn.items():
        how = f"-{stretched}" if stretched and name == "lengths" else ""
        path = trained.path(None, f"{name}-{split}{how}.png")
        write(path)
        print_written(name, path)
    with boards_of(run_dir, config, "evaluate", f"evaluate-{split}") as boards:
        log_result(boards, result)
