"""What goes with a part in tests that try every file of conf/model by itself: words of the command line.

The digits are binarized unless a part wants grey levels; a posterior on a sphere wants a prior on it; a decoder that
waits would not move in a single step.
"""

COMPANIONS: dict[tuple[str, str], tuple[str, ...]] = {
    ("likelihood", "beta_binomial"): ("data.binarize=none",),
    ("likelihood", "categorical"): ("data.binarize=none",),
    ("likelihood", "continuous_bernoulli"): ("data.binarize=none",),
    ("likelihood", "discretized_logistic"): ("data.binarize=none",),
    ("likelihood", "laplace"): ("data.binarize=none",),
    ("likelihood", "logistic_mixture"): ("data.binarize=none",),
    ("likelihood", "normal"): ("data.binarize=none",),
    ("objective", "adversarial"): ("model/posterior=deterministic",),
    ("objective", "lagging"): ("model.objective.inner_steps=1",),
    ("objective", "rae"): ("model/posterior=deterministic",),
    ("posterior", "deterministic"): ("model/objective=rae",),
    ("posterior", "finite_scalar"): ("model/prior=uniform_codes", "model.latent_dim=4"),
    ("posterior", "gumbel_softmax"): ("model/prior=uniform_categorical",),
    ("posterior", "joint"): ("model/prior=joint",),
    ("posterior", "residual_vector_quantized"): ("model/prior=uniform_codes",),
    ("posterior", "vector_quantized"): ("model/prior=uniform_codes",),
    ("posterior", "von_mises_fisher"): ("model/prior=uniform_sphere",),
    ("posterior", "wrapped_normal"): ("model/prior=wrapped_normal",),
    ("prior", "autoregressive_convolutional"): ("model/posterior=vector_quantized", "model.posterior.pieces=2"),
    ("prior", "autoregressive_recurrent"): ("model/posterior=vector_quantized", "model.posterior.pieces=2"),
    ("prior", "class_conditional_normal"): ("model=cvae",),
    ("prior", "joint"): ("model/posterior=joint",),
    ("prior", "uniform_categorical"): ("model/posterior=gumbel_softmax",),
    ("prior", "uniform_codes"): ("model/posterior=vector_quantized",),
    ("prior", "uniform_sphere"): ("model/posterior=von_mises_fisher",),
    ("prior", "wrapped_normal"): ("model/posterior=wrapped_normal",),
}
"""(group, choice) -> words."""


def words_for(group: str, choice: str) -> tuple[str, ...]:
    """The words with which a part can be tried on the digits."""
    given = (f"model/{group}={choice}", *COMPANIONS.get((group, choice), ()))
    return given if any(word.startswith("data.binarize=") for word in given) else (*given, "data.binarize=dynamic")


NEEDS: dict[str, tuple[str, ...]] = {
    "data/tokenizer": ("~experiment", "data=reference_text"),
}
"""Groups that the default experiment has no place for -> words that make one."""


WITHOUT_ENCODER = {"vdvae"}
"""Models that the default experiment, which chooses an encoder, does not fit."""
