"""attelbo (attention x ELBO): a laboratory for variational autoencoders and attention models.

Importing this package costs nothing: no torch, no Lightning. Import what you need from its subpackages,
``attelbo.attention``, ``attelbo.latent``, ``attelbo.networks``, ``attelbo.models``, ``attelbo.data``; ``attelbo.train``
is the command of that name.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from attelbo.experiments.run import Outcome

__version__ = "0.1.0"


def train(*words: str) -> "Outcome":
    """Train, evaluate, draw pictures and write a run directory, as ``attelbo train`` does with the same words:
    ``attelbo.train("experiment=digits/draw", "seed=1")``.

    Returns:
        ``run_dir``, ``state`` and ``metrics``, such as ``metrics["test/nll"]``.

    Raises:
        UserError: one of the words, or something that they refer to, is wrong; the message is one line.
        TrainingDiverged: a term of the loss became NaN or infinite.
        Interrupted: a signal, such as Ctrl-C, stopped the run after its state was saved; ``ckpt=auto`` resumes it.
    """
    from attelbo.experiments.calling import train

    return train(*words)
