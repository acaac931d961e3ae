"""What goes with a part in tests that try every file of conf/model by itself: words of the command line.

A group of parts is tried in one model, small and on embedded data; a further model, or a part that wants others beside
it, is a line here. The digits are binarized unless a part wants grey levels; a posterior on a sphere wants a prior on
it; a decoder that waits would not move in a single step.
"""

from collections.abc import Sequence

SMALL_TRANSFORMER = ("data=sort", "model.dim=8", "model.attention.heads=2", "model.network.layers=1")

FUNCTIONS = ("data=gp_rbf", "data.test_size=40", "model.dim=8", "model.n_predictions=2")

SMALL_MODELS: dict[str, tuple[str, ...]] = {
    "vae": (
        *("model/encoder=mlp", "model/decoder=mlp", "model.encoder.hidden=[8]", "model.decoder.hidden=[8]"),
        *("model.latent_dim=2", "data.binarize=dynamic"),
    ),
    "anp": (*FUNCTIONS, "model.heads=2", "model.latent_dim=2"),
    "autoencoder_kl": (
        *("model.encoder.channels=[8,8]", "model.encoder.groups=2", "model.latent_dim=2"),
        *("model.decoder.channels=[8,8]", "model.decoder.groups=2", "data.binarize=dynamic"),
    ),
    "canp": (*FUNCTIONS, "model.heads=2"),
    "cnp": FUNCTIONS,
    "conv_classifier": ("model.encoder.channels=[4,8]", "model.encoder.heads=1", "data.binarize=none"),
    "draw": ("model.latent_dim=2", "model.hidden=8", "model.strokes=2", "data.binarize=dynamic"),
    "deep_attentive_vae": ("model.channels=8", "model.dim=8", "model.attention.heads=2", "data.binarize=dynamic"),
    "deep_sets": ("data=max_of_set", "data.test_size=40", "model.network.encoder=[8]", "model.network.decoder=[8]"),
    "gpt": SMALL_TRANSFORMER,
    "linear_gpt": SMALL_TRANSFORMER,
    "np": (*FUNCTIONS, "model.latent_dim=2"),
    "slot_autoencoder": ("model.encoder.channels=[4]", "model.encoder.dim=8", "model.latent_dim=2"),
    "set_transformer": (
        *("data=max_of_set", "data.test_size=40"),
        *("model.network.dim=8", "model.network.heads=2", "model.network.layers=1"),
    ),
    "text_classifier": ("data=unicode_names", "model.dim=8", "model.attention.heads=2", "model.network.layers=1"),
    "text_vae": ("data=reference_sentences", "model.embedding=8", "model.hidden=8", "model.latent_dim=2"),
    "transformer_text_vae": (
        *("data=reference_sentences", "model.dim=8", "model.attention.heads=2", "model.network.layers=1"),
        "model.latent_dim=2",
    ),
    "vit": ("model.patch=4", "model.dim=8", "model.attention.heads=2", "model.network.layers=1"),
}
"""Model -> the data that it is tried on, and what makes it small; those that are not here are VAEs."""

OF_GIVEN_SPLITS = {"text_classifier", "text_vae", "transformer_text_vae"}
"""Those of them that are tried on data which say themselves how many validation rows there are."""

MODEL_OF: dict[str, str] = {
    **dict.fromkeys(("attention", "mask", "network", "normalizer", "position", "score"), "gpt"),
    "head": "set_transformer",
    "pooling": "vit",
    "text_encoder": "transformer_text_vae",
}
"""Group of parts -> the model that its files are tried in, if it is no VAE."""

COMPANIONS: dict[tuple[str, str], tuple[str, ...]] = {
    ("attention", "linear"): ("model=linear_gpt",),
    ("attention", "performer"): ("model=linear_gpt",),
    ("likelihood", "beta_binomial"): ("data.binarize=none",),
    ("likelihood", "categorical"): ("data.binarize=none",),
    ("likelihood", "continuous_bernoulli"): ("data.binarize=none",),
    ("likelihood", "discretized_logistic"): ("data.binarize=none",),
    ("likelihood", "heteroscedastic_normal"): ("data.binarize=none",),
    ("likelihood", "hyperbolic_secant"): ("data.binarize=none",),
    ("likelihood", "laplace"): ("data.binarize=none",),
    ("likelihood", "logistic_mixture"): ("data.binarize=none",),
    ("likelihood", "normal"): ("data.binarize=none",),
    **{
        (part, "vit"): (
            *(f"model.{part}.dim=8", f"model.{part}.attention.heads=2", f"model.{part}.network.layers=1"),
            f"model.{part}.patch=2",
        )
        for part in ("encoder", "decoder")
    },
    ("head", "clustering"): ("data=mixtures",),
    ("network", "bidirectional_gru"): ("model=text_classifier",),
    ("network", "deep_sets"): ("model=deep_sets",),
    ("network", "set_transformer"): ("model=set_transformer",),
    ("objective", "adversarial"): ("model/posterior=deterministic",),
    ("objective", "lagging"): ("model.objective.inner_steps=1",),
    ("objective", "rae"): ("model/posterior=deterministic",),
    ("position", "axial_rope"): ("model=vit", "data=digits", "model.patch=2"),
    ("position", "sinusoidal_2d"): ("model=vit", "data=digits", "model.patch=2"),
    ("posterior", "deterministic"): ("model/objective=rae",),
    ("posterior", "finite_scalar"): ("model/prior=uniform_codes", "model.latent_dim=4"),
    ("posterior", "gamma"): ("model/prior=gamma",),
    ("posterior", "gumbel_softmax"): ("model/prior=uniform_categorical",),
    ("posterior", "joint"): ("model/prior=joint",),
    ("posterior", "multi_scale_vector_quantized"): ("model/prior=uniform_codes",),
    ("posterior", "residual_vector_quantized"): ("model/prior=uniform_codes",),
    ("posterior", "vector_quantized"): ("model/prior=uniform_codes",),
    ("posterior", "von_mises_fisher"): ("model/prior=uniform_sphere",),
    ("posterior", "wrapped_normal"): ("model/prior=wrapped_normal",),
    ("prior", "autoregressive_convolutional"): ("model/posterior=vector_quantized", "model.posterior.pieces=2"),
    ("prior", "autoregressive_recurrent"): ("model/posterior=vector_quantized", "model.posterior.pieces=2"),
    ("prior", "autoregressive_transformer"): (
        *("model/posterior=vector_quantized", "model.posterior.pieces=2"),
        *("model.prior.dim=8", "model.prior.heads=2", "model.prior.layers=1"),
    ),
    ("prior", "class_conditional_normal"): ("model=cvae",),
    ("prior", "diffusion"): ("model.prior.dim=8", "model.prior.layers=1"),
    ("prior", "diffusion_transformer"): (
        *("model=autoencoder_kl", "model.prior.dim=8", "model.prior.heads=2", "model.prior.layers=1"),
    ),
    ("prior", "gamma"): ("model/posterior=gamma",),
    ("prior", "joint"): ("model/posterior=joint",),
    ("prior", "next_scale_transformer"): (
        *("model=autoencoder_var", "model.prior.dim=8", "model.prior.heads=2", "model.prior.layers=1"),
    ),
    ("prior", "uniform_categorical"): ("model/posterior=gumbel_softmax",),
    ("prior", "uniform_codes"): ("model/posterior=vector_quantized",),
    ("prior", "uniform_sphere"): ("model/posterior=von_mises_fisher",),
    ("prior", "wrapped_normal"): ("model/posterior=wrapped_normal",),
}
"""(group, choice) -> words."""


def model_of(group: str, choice: str) -> str | None:
    """The model that a part is tried in; None: a VAE that its companions may name."""
    own = [word for word in COMPANIONS.get((group, choice), ()) if word.startswith("model=")]
    return own[0].removeprefix("model=") if own else MODEL_OF.get(group)


def words_for(group: str, choice: str) -> tuple[str, ...]:
    """The words with which a part can be tried in a small model."""
    given = (f"model/{group}={choice}", *COMPANIONS.get((group, choice), ()))
    if group in MODEL_OF:
        return (f"model={model_of(group, choice)}", *given)
    return given if any(word.startswith("data.binarize=") for word in given) else (*given, "data.binarize=dynamic")


def small_words(words: Sequence[str]) -> tuple[str, ...]:
    """What makes the model small that is named in the words of a command line."""
    names = [word.removeprefix("model=") for word in words if word.startswith("model=")]
    name = names[-1] if names and names[-1] in SMALL_MODELS else "vae"
    return SMALL_MODELS[name] if name in OF_GIVEN_SPLITS else ("data.validation_size=40", *SMALL_MODELS[name])


NEEDS: dict[str, tuple[str, ...]] = {
    "data/tokenizer": ("~experiment", "data=reference_text"),
}
"""Groups that the default experiment has no place for -> words that make one."""


WITHOUT_ENCODER = {
    *("anp", "bahdanau", "canp", "cnp", "conv_classifier", "deep_attentive_vae", "deep_sets", "draw"),
    *("draw_no_attention", "gpt", "gru_seq2seq", "linear_gpt", "lstm_seq2seq", "luong", "np"),
    *("annealed_text_vae", "bn_text_vae", "cyclical_text_vae", "free_bits_text_vae", "lagging_text_vae", "text_vae"),
    "transformer_text_vae",
    *("set_transformer", "text_classifier", "transformer", "vdvae", "vit"),
}
"""Models that the default experiment, which chooses an encoder and a decoder, does not fit."""

EXPERIMENT_DATA: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(
        ("sst2/gru", "sst2/transformer", "trec/gru", "trec/transformer", "unicode_names/transformer"),
        ("data=unicode_names",),
    ),
    **dict.fromkeys(
        ("gp/anp", "gp/canp", "gp/cnp", "gp/np"),
        ("data.validation_size=20", "data.test_size=20", "model.dim=16", "model.n_predictions=2"),
    ),
    **dict.fromkeys(
        ("digits/anp", "mnist/anp"),
        ("data=digits_pixels", "model.dim=8", "model.latent_dim=2", "model.n_predictions=2"),
    ),
    **dict.fromkeys(
        ("max_of_set/deep_sets", "max_of_set/set_transformer", "mixtures/deep_sets", "mixtures/set_transformer"),
        ("data.validation_size=20", "data.test_size=20"),
    ),
    **dict.fromkeys(
        (
            *("dates/bahdanau", "dates/transformer"),
            *("multi30k/attention", "multi30k/gru", "multi30k/lstm", "multi30k/tiny", "multi30k/transformer"),
        ),
        ("data=dates", "data.source.n_train=100", "data.source.n_validation=10", "data.source.n_test=10"),
    ),
    **dict.fromkeys(
        ("digits/draw", "mnist/draw", "mnist/draw_64"), ("data=digits", "model.hidden=8", "model.strokes=2")
    ),
    **dict.fromkeys(
        ("cifar10/autoencoder_kl", "fashion_mnist/autoencoder_kl"),
        (
            *("data=digits", "data.binarize=none", "model.encoder.attention_at=[4]", "model.decoder.attention_at=[4]"),
            *("model.encoder.channels=[16,16]", "model.decoder.channels=[16,16]"),
        ),
    ),
    **dict.fromkeys(
        ("ptb/text_vae_gru", "ptb/text_vae_lstm", "reference/text_vae", "reference/text_vae_perceiver"),
        ("data=reference_sentences", "model.embedding=8", "model.hidden=8"),
    ),
    "sprites/ada_gvae": ("data=sprites", "data.source.test_size=100", "evaluation.disentanglement=false"),
    "ptb/text_vae_transformer": ("data=reference_sentences", "model.dim=8", "model.network.layers=1"),
    **dict.fromkeys(
        ("digits/air", "digits/slots", "mnist/air", "mnist/slots"),
        ("data=multi_digits", "data.source.n_train=100", "data.source.n_test=10", "data.validation_size=10"),
    ),
    **dict.fromkeys(
        ("cifar10/autoencoder_rvq", "fashion_mnist/autoencoder_fsq"),
        (
            *("data=digits", "data.binarize=none"),
            *("model.encoder.channels=[16,16]", "model.decoder.channels=[16,16]"),
        ),
    ),
    **dict.fromkeys(
        ("reference/gpt", "reference/masked"),
        ("data.windows_per_epoch=10", "model.dim=16", "model.network.layers=1"),
    ),
    **dict.fromkeys(
        ("recall/attention", "reverse/transformer", "sort/min_gpt"), ("data.validation_size=20", "data.test_size=20")
    ),
    **dict.fromkeys(
        ("shakespeare/nano_gpt", "shakespeare/nano_gpt_gpu"),
        ("data=reference_text", "data.windows_per_epoch=10", "model.dim=48", "model.network.layers=1"),
    ),
}
"""Experiment -> the embedded data that it is tried on; those that are not here are of images, and tried on digits."""

DECIDED = ("model", "data.validation_size", "data.binarize", "~experiment", "name")
"""What an experiment decides itself, as words of the command line begin."""


def words_for_experiment(experiment: str, words: Sequence[str]) -> list[str]:
    """Those with which an experiment can be tried on embedded data; of the given ones, all that it leaves open."""
    data = EXPERIMENT_DATA.get(experiment, ("data=digits", "data.binarize=dynamic"))
    return [f"experiment={experiment}", *data, *(word for word in words if not word.startswith(DECIDED))]
