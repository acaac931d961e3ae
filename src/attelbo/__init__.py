"""attelbo (attention x ELBO): a laboratory for variational autoencoders and attention models.

Importing this package costs nothing: no torch, no Lightning. Import what you need from its rooms,
``attelbo.attention``, ``attelbo.latent``, ``attelbo.networks``, ``attelbo.models``, ``attelbo.data``; ``attelbo.train``
is the command of that name.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from attelbo.experiments.run import Outcome

__version__ = "0.1.0"


def train(*words: str) -> "Outcome":
    """Train, evaluate, draw pictures and write a run directory: what ``attelbo train`` does with these words, such as
    ``attelbo.train("experiment=digits/draw", "seed=1")``.

    Returns:
        ``run_dir``, ``state`` and ``metrics``, such as ``metrics["test/nll"]``.

    Raises:
        UserError: a word or something else that was given is wrong, in one line.
        TrainingDiverged: a term of the loss was no longer finite.
        Interrupted: by a signal, such as Ctrl-C, after the state was saved; ``ckpt=auto`` goes on.
    """
    from attelbo.experiments.calling import train

    return train(*words)
