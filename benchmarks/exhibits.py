"""The exhibits of the gallery, ``benchmarks.gallery``."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Work:
    """A picture or a text, and where it comes from."""

    run: str
    """The folder of the run, ``outputs/<name>``."""
    file: str
    """``media/<file>`` of the run, or what one of the commands writes; a text ends in ``.txt``."""
    metrics: tuple[str, ...] = ("nll",)
    """Numbers of the run that are told, as its ``result.json`` calls them."""
    label: str = ""
    """What it is, where there are several works."""


@dataclass(frozen=True)
class Exhibit:
    """A section of the page."""

    name: str
    """Of its pictures."""
    title: str
    commands: tuple[str, ...]
    """The words after ``attelbo``: what trains, then what draws."""
    works: tuple[Work, ...]
    caption: str
    """What is to be seen."""


_RELU = "model.encoder.activation=relu model.decoder.activation=relu"

EXHIBITS = (
    Exhibit(
        "strokes",
        "DRAW paints stroke by stroke",
        ("train experiment=digits/draw", "sample run=outputs/digits/draw n=12 output=strokes.png"),
        (Work("outputs/digits/draw", "strokes.gif"),),
        "Twelve samples as they are painted (Gregor et al. 2015). Each stroke adds to the canvas within the red "
        "window; the digits get sharper from stroke to stroke.",
    ),
    Exhibit(
        "objects",
        "AIR counts and finds the objects of a scene",
        ("train experiment=digits/air",),
        (Work("outputs/digits/air", "media/objects.png", ("count_accuracy", "nll")),),
        "Scenes of no, one or two digits, and below each what the model paints (Eslami et al. 2016). How many there "
        "are and where is learned from pixels alone: the first object found is red, the second green. What they look "
        "like comes later in training than where they are.",
    ),
    Exhibit(
        "slots",
        "Slot attention divides an image among its objects",
        ("train experiment=digits/slots",),
        (Work("outputs/digits/slots", "media/segments.png", ("adjusted_rand_index", "nll")),),
        "Three slots compete for the pixels of two digits (Locatello et al. 2020); no masks are given. `owners` has "
        "each pixel in the color of its slot; below is what each slot paints.",
    ),
    Exhibit(
        "alignment",
        "A translator shows what it reads",
        (
            "train experiment=dates/bahdanau",
            'translate run=outputs/dates/bahdanau text="Tuesday, 3 May 2041" map=alignment.png',
        ),
        (Work("outputs/dates/bahdanau", "alignment.png", ("exact",)),),
        "Each character of the answer, a row, looks back at the date (Bahdanau et al. 2015): the year is read at its "
        "end, the month in its letters, and the day of the week hardly.",
    ),
    Exhibit(
        "class_token",
        "Where the class token of a vision transformer looks",
        ("train experiment=digits/vit",),
        (
            Work("outputs/digits/vit", "media/attention_body_network_blocks_0.png", ("accuracy",), "first layer"),
            Work("outputs/digits/vit", "media/attention_body_network_blocks_3.png", ("accuracy",), "last layer"),
        ),
        "The yellower a patch, the more the head looks at it (Dosovitskiy et al. 2021). In the first layer a head "
        "picks a few patches that tell digits apart; in the last most of the image counts.",
    ),
    Exhibit(
        "self_attention",
        "Self-attention inside a convolutional VAE",
        ("train",),
        (
            Work("outputs/digits/conv_attention", "media/attention_encoder_layers_2.png", label="encoder"),
            Work("outputs/digits/conv_attention", "media/attention_decoder_layers_6.png", label="decoder"),
        ),
        "The default experiment. In each column the green cell of the feature map asks, and the yellower a cell, the "
        "more it is looked at: in the encoder all over the image, in the decoder at one or two places.",
    ),
    Exhibit(
        "priors",
        "Samples: a normal prior and a VampPrior",
        (
            f"train experiment=mnist/vae_mlp {_RELU} trainer.max_epochs=10 evaluation.n_samples=500 name=mnist/vae",
            f"train experiment=mnist/vae_mlp {_RELU} trainer.max_epochs=10 evaluation.n_samples=500 model=vamp_vae "
            "name=mnist/vamp_vae",
            "sample run=outputs/mnist/vae n=36 output=normal.png",
            "sample run=outputs/mnist/vamp_vae n=36 output=vamp.png",
        ),
        (
            Work("outputs/mnist/vae", "normal.png", label="standard normal prior"),
            Work("outputs/mnist/vamp_vae", "vamp.png", label="VampPrior"),
        ),
        "Digits drawn from two VAEs that differ in the prior and its warm-up alone (Tomczak and Welling 2018). Under "
        "the normal prior many lie between digits; a mixture of posteriors puts its mass where the encoder does.",
    ),
    Exhibit(
        "map",
        "A map of what the encoder knows",
        (
            "train experiment=mnist/vae_mlp",
            "embed run=outputs/mnist/vae_mlp n=3000 method=tsne output=map.csv",
        ),
        (Work("outputs/mnist/vae_mlp", "map.png", ("nll", "active_units")),),
        "Posterior means of digits that were not trained on, in the plane of t-SNE. No label was used; the colors are "
        "added afterwards.",
    ),
    Exhibit(
        "traversals",
        "Traversals: what each latent stands for",
        (
            "train experiment=sprites/vae model=beta_tc_vae model.objective.beta=6 name=sprites/beta_tc_vae",
            "traverse run=outputs/sprites/beta_tc_vae row=2304 n=6 steps=9 limit=2 output=traversals.png",
        ),
        (Work("outputs/sprites/beta_tc_vae", "traversals.png", ("mig", "nll")),),
        "One latent is varied in each row, the others stay (Chen et al. 2018): z6 moves the shape down, z10 to the "
        "right, and z5 makes it larger. Which shape it is, a heart, is lost at this weight of the total correlation.",
    ),
    Exhibit(
        "completions",
        "A neural process with attention completes images",
        ("train experiment=digits/anp",),
        (Work("outputs/digits/anp", "media/completions.png", ("target_ll", "nll")),),
        "From a few known pixels the process predicts all others, and how sure it is of each: the whiter a deviation, "
        "the less (Kim et al. 2019). With more of them the digit appears, and what is still open is at its edges.",
    ),
    Exhibit(
        "latent_diffusion",
        "A second stage: diffusion in the latent space",
        (
            "train experiment=digits/autoencoder_kl model.objective.weight=0.05",
            "fit-prior run=outputs/digits/autoencoder_kl prior=diffusion",
            "sample run=outputs/digits/autoencoder_kl n=36 output=first_stage.png",
            "sample run=outputs/digits/autoencoder_kl-diffusion n=36 output=second_stage.png",
        ),
        (
            Work("outputs/digits/autoencoder_kl", "first_stage.png", label="first stage, standard normal prior"),
            Work("outputs/digits/autoencoder_kl-diffusion", "second_stage.png", label="second stage, diffusion"),
        ),
        "An autoencoder with little weight on the KL reconstructs well, but few of the latents that its prior draws "
        "are those of a digit (Rombach et al. 2022). A diffusion model fitted to its encodings draws through the same "
        "decoder.",
    ),
    Exhibit(
        "sentences",
        "Sentences of a text VAE",
        (
            "train experiment=reference/text_vae",
            "sample run=outputs/reference_sentences/text_vae n=8 temperature=0.8 output=sentences.txt",
        ),
        (Work("outputs/reference_sentences/text_vae", "sentences.txt", ("nll", "kl")),),
        "Drawn from the prior, after a minute with the reference manual that ships with Python (Bowman et al. 2016). "
        "They sound like it and mean nothing; the small KL says that most of each is the decoder's own.",
    ),
    Exhibit(
        "language",
        "Text of a small GPT",
        (
            "train experiment=reference/gpt data/tokenizer=bpe data.tokenizer.size=1000 trainer.max_epochs=10 "
            "name=reference/gpt_bpe",
            'sample run=outputs/reference/gpt_bpe prompt="The " length=60 temperature=0.6 n=3 output=language.txt',
        ),
        (Work("outputs/reference/gpt_bpe", "language.txt", ("bits_per_character",)),),
        "Three texts that begin with `The`, written in byte pairs of the same manual: headings, signatures and quotes "
        "are where they belong, what is said is not.",
    ),
)
