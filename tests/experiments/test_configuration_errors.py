"""Whatever is wrong with a configuration gets one line that names file, key and remedy; nothing is written."""

from pathlib import Path

import pytest

from attelbo.cli import main

COMMAND_LINE = [
    # values of another kind, and words that are none
    ("model.encoder.channels={a:1}", "model.encoder.channels (command line): expected a list, got {a:1}"),
    ("evaluation=[1]", "evaluation (command line): expected a mapping, got [1]"),
    ("hydra.mode=X", "hydra.mode (command line): Invalid value 'X', expected one of [RUN, MULTIRUN]"),
    ("hydra/launcher=null", "hydra/launcher (command line): null is no choice; leave the word out"),
    (
        "model.encoder.channels='[8,16]'",
        "model.encoder.channels (command line): expected Sequence[int], got '[8,16]'; a list is written without quotes "
        "around it: [8,16]",
    ),
    ("=3", "'=3' (command line): not of the form key=value; no spaces stand around the ="),
    (
        "m\u043edel.latent_dim=4",  # looks like an o
        "'m\u043edel.latent_dim=4' (command line): not of the form key=value; keys are ASCII, and '\u043e' is CYRILLIC "
        "SMALL LETTER O",
    ),
    ("hydra.run.dir=/tmp/mine", "hydra.run.dir (command line): has no effect here: a run is written into ..."),
    ("hydra.output_subdir=x", "hydra.output_subdir (command line): has no effect here: a run is written into ..."),
    ("hydra.sweep.dir=", "hydra.sweep.dir is empty, as an unset variable is; left out, the folder is named by ..."),
    # what Hydra takes without a word, or ends in a traceback on
    ("hydra/launcher=[basic,joblib]", "hydra/launcher (command line): one is chosen, got [basic,joblib]"),
    ("+hydra.foo=1", "hydra.foo (command line): unknown key; known here: mode, searchpath, run, sweep, ..."),
    ("++hydra.job.nam=x", "hydra.job.nam (command line): unknown key; did you mean hydra.job.name?"),
    ("hydra.runtime.cwd=/x", "hydra.runtime.cwd (command line): is filled in by Hydra; leave the word out"),
    ("~hydra", "hydra (command line): Hydra's own keys cannot be taken away; leave the word out"),
    ("~hydra.launcher", "hydra.launcher (command line): Hydra's own keys cannot be taken away; leave the word out"),
    ("hydra.job.env_copy=[ATTELBO_NONE]", "hydra.job.env_copy (command line): there is no variable ATTELBO_NONE ..."),
    ("hydra.verbose=3.5", "hydra.verbose: expected true, false, or names of loggers, got 3.5"),
    ("hydra.launcher=3", "hydra.launcher: expected a mapping with _target_, got 3; hydra/launcher=NAME chooses one"),
    (
        "-m seed=1,2 hydra.sweeper=null",
        "hydra.sweeper: expected a mapping with _target_, got None; hydra/sweeper=NAME chooses one",
    ),
    (
        "-m seed=1,2 hydra.sweeper._target_=os.system",
        "hydra.sweeper._target_: no sweeper is called os.system; hydra/sweeper=NAME chooses one",
    ),
    ("-m seed=1,2 +hydra.launcher.foo=1", "hydra.launcher.foo: unknown key; known here: none"),
    (
        "-m seed=1,2 +hydra.sweeper.params.foo=1",
        "hydra.sweeper.params.foo (command line): hydra.sweeper.params is null; write hydra.sweeper.params={foo: ...}",
    ),
    (
        "+hydra.callbacks.mine.x=1",
        "hydra.callbacks.mine: expected a mapping with _target_, got {'x': 1}; that of a hydra.experimental...",
    ),
    (
        "+hydra.callbacks.mine._target_=os.getcwd",
        "hydra.callbacks.mine: _target_ 'os.getcwd' is outside the allowed packages: attelbo, ...",
    ),
    (
        "+hydra.callbacks.mine._target_=torch.nn.ReLU",
        "hydra.callbacks.mine: torch.nn.ReLU is no hydra.experimental.callback.Callback",
    ),
    (
        "+hydra.callbacks.mine={_target_:hydra.experimental.callbacks.PickleJobInfoCallback,a:1}",
        "hydra.callbacks.mine: Error in call to target 'hydra.experimental.callbacks.PickleJobInfoCallback': ...",
    ),
    (
        "+hydra.job_logging.handlers.x={class:nope} +hydra.job_logging.root.handlers=[x]",
        "hydra.job_logging or hydra.hydra_logging: Unable to configure handler 'x': ...",
    ),
    ("paths.output_dir=", "paths.output_dir is empty, as an unset variable is; . is the working directory"),
    ("init.run=", "init.run is empty, as an unset variable is; null begins without another run"),
    # parts that lack something, or are something else
    (
        "experiment=reference/gpt ~model.attention.heads",
        "model.attention.heads is missing: its file says how many, heads: 4",
    ),
    (
        "experiment=reference/gpt ~model.attention._target_",
        "model.attention._target_: its file names no class, only {'heads': 4, ...",
    ),
    (
        "experiment=reference/gpt model=linear_gpt model.attention.feature_map=favor",
        "model.attention.feature_map: expected a mapping with _target_, got 'favor'; model/attention=performer has one",
    ),
    (
        "data._target_=lightning.LightningDataModule",
        "data: lightning.LightningDataModule makes no attelbo.data.ResidentDataModule; images of one's own are an "
        "attelbo.data.sources.ImageSource, data.source",
    ),
    # numbers out of range
    (
        "experiment=reference/gpt model.network.dropout=nan",
        "model.network: dropout must be in [0, 1), got nan [attelbo.networks.Transformer]",
    ),
    (
        "experiment=reference/gpt model.network.hidden_dropout=1",
        "model.network: hidden_dropout must be in [0, 1), got 1.0 [attelbo.networks.Transformer]",
    ),
    (
        "experiment=digits/vit_vae model.encoder.dropout=nan",
        "model.encoder: dropout must be in [0, 1), got nan [attelbo.networks.ViTEncoder]",
    ),
    (
        "callbacks=[default,early_stopping] callbacks.early_stopping.min_delta=nan",
        "callbacks.early_stopping: min_delta must be finite and not negative, got nan...",
    ),
    (
        "callbacks.progress.refreshes_per_second=inf",
        "callbacks.progress: refreshes_per_second must be positive and finite, got inf...",
    ),
    (
        "experiment=reference/gpt model.attention.soft_cap=0",
        "model.attention: soft_cap must be positive and finite, got 0...",
    ),
    (
        "experiment=reference/gpt model.score.scale=nan",
        "model.score: scale must be positive and finite, got nan...",
    ),
    (
        "experiment=reference/gpt model/score=l2 model.score.scale=-1",
        "model.score: scale must be positive and finite, got -1.0...",
    ),
    (
        "experiment=reference/gpt model.position.std=-1",
        "model.position: std must be finite and not negative, got -1.0...",
    ),
    (
        "experiment=reference/gpt model/position=sinusoidal model.position.base=0",
        "model.position: base must be positive and finite, got 0.0...",
    ),
    ("experiment=digits/vit model.pooling.std=nan", "model.pooling: std must be finite and not negative, got nan..."),
    (
        "experiment=reference/gpt model/normalizer=sigmoid model.normalizer.bias=nan",
        "model.normalizer: bias must be finite, got nan...",
    ),
    ("model.objective.weight=1e300", "model.objective.weight (command line): is too large a number"),
    ("optimizer.lr=1e-300", "optimizer.lr (command line): is too small a number: it is rounded to zero"),
    ("optimizer.betas=[0.9,1e-300]", "optimizer.betas (command line): is too small a number: it is rounded to zero"),
    (f"model.encoder.channels=[{10**19}]", "model.encoder.channels (command line): is too large a number"),
    ("optimizer.lr=inf", "optimizer.lr must be finite, got inf"),
    ("optimizer=sgd optimizer.weight_decay=nan", "optimizer.weight_decay must be finite, got nan"),
    ("init.run=" + "x" * 300, "x" * 60 + "... cannot be reached: File name too long"),
    (
        "callbacks=default callbacks.best_checkpoint.filename=../best",
        "callbacks.best_checkpoint: filename must be a plain name, such as best, got '../best' [attelbo.training...",
    ),
    (
        "callbacks=default callbacks.best_checkpoint.filename=",
        "callbacks.best_checkpoint: filename must be a plain name, such as best, got ''...",
    ),
    # what would be built, or computed, for hours
    (
        "experiment=reference/gpt model.network.layers=1000000000",
        "model.network: layers must be at most 10,000, got 1,000,000,000 [attelbo.networks.Transformer]",
    ),
    ("model=draw model.strokes=100000", "model.strokes must be at most 10,000, got 100,000"),
    ("model=vdvae model.blocks=[100000]", "model.blocks must be at most 10,000, got 100,000"),
    (
        "model/posterior=hamiltonian model.posterior.n_leapfrog=100000",
        "model.posterior: n_leapfrog must be at most 10,000, got 100,000...",
    ),
    (
        "scheduler=growing_stages scheduler.stages=1000000000",
        "scheduler: stages must be at most 10,000, got 1,000,000,000 [attelbo.models.schedulers.GrowingStages]",
    ),
    # a part that is of another kind
    (
        "data=multi_digits data.source.digits._target_=torch.nn.ReLU",
        "data.source.digits must be an attelbo.data.sources.ImageSource, got {'_target_': 'torch.nn.ReLU'}",
    ),
    (
        "experiment=reference/gpt model/position=none model.position._target_=torch.nn.ReLU",
        "model.position: torch.nn.ReLU is no attelbo.attention.Position; a class of one's own is derived from it",
    ),
    (
        "experiment=digits/vit_vae model.encoder.normalizer._target_=torch.nn.ReLU",
        "model.encoder.normalizer: torch.nn.ReLU is no attelbo.attention.Normalizer; a class of one's own is ...",
    ),
    # unknown keys
    (
        "model.latnet_dim=3",
        "model.latnet_dim (command line): unknown key; did you mean model.latent_dim? [conf/model/vae.yaml]",
    ),
    (
        "+model.latnet_dim=3",
        "model.latnet_dim (command line): unknown key; did you mean model.latent_dim? [conf/model/vae.yaml]",
    ),
    (
        "++model.latnet_dim=3",
        "model.latnet_dim (command line): unknown key; did you mean model.latent_dim? [conf/model/vae.yaml]",
    ),
    ("model=VAE", "model=VAE (command line): no such choice; did you mean vae? (attelbo list model has all ..."),
    (
        "model=hvae model/objective=iwae",
        "model.objective.weight (conf/model/hvae.yaml): unknown key; known here: n_samples; "
        "~model.objective.weight leaves it out [conf/model/objective/iwae.yaml]",
    ),
    (
        "optimizer._target_=torch.optim.RMSprop",
        "optimizer.betas (conf/optimizer/adam.yaml): unknown key; known here: params, lr, alpha, eps, weight_decay, "
        "momentum, centered, capturable, foreach, maximize, differentiable; ~optimizer.betas ~optimizer.fused leave "
        "them out [command line]",
    ),
    ("data=sort model=draw", "model: DRAW is a model of images, and sort has tokens"),
    ("data=sort model=air", "model: AIR is a model of images, and sort has tokens"),
    ("data=sort model=vdvae", "model: a top-down hierarchy is a model of images, and sort has tokens"),
    ("objective=iwae", "objective (command line): unknown key; did you mean model/objective=iwae?"),
    ("tokenizer=bpe", "tokenizer (command line): unknown key; did you mean data/tokenizer=bpe?"),
    ("batch_size=8", "batch_size (command line): unknown key; did you mean data.batch_size? [conf/data/digits.yaml]"),
    ("epochs=3", "epochs (command line): unknown key; did you mean trainer.max_epochs? [conf/experiment/digits/..."),
    # what other projects call them
    (
        "model=beta_vae model.beta=3",
        "model.beta (command line): unknown key; did you mean model.objective.weight? [conf/model/beta_vae.yaml]",
    ),
    ("kld_weight=3", "kld_weight (command line): unknown key; did you mean model.objective.weight?..."),
    (
        "model.objective.beta=3",
        "model.objective.beta (command line): unknown key; did you mean model.objective.weight?...",
    ),
    ("model.z_dim=3", "model.z_dim (command line): unknown key; did you mean model.latent_dim? [conf/model/vae.yaml]"),
    ("model.hidden_dims=[3]", "model.hidden_dims (command line): unknown key; did you mean model.encoder.channels?..."),
    (
        "model/encoder=mlp model.hidden_dims=[3]",
        "model.hidden_dims (command line): unknown key; did you mean model.encoder.hidden? [conf/model/encoder/...",
    ),
    (
        "optimizer.learning_rate=1e-3",
        "optimizer.learning_rate (command line): unknown key; did you mean optimizer.lr? [conf/experiment/digits/...",
    ),
    (
        "trainer.gradient_clip_val=1",
        "trainer.gradient_clip_val (command line): unknown key; did you mean trainer.clip_...",
    ),
    ("latent_dim=3", "latent_dim (command line): unknown key; did you mean model.latent_dim? [conf/model/vae.yaml]"),
    (
        "modl.latent_dim=3",
        "modl.latent_dim (command line): unknown key; did you mean model.latent_dim? [conf/model/vae.yaml]",
    ),
    ("+typo=1", "typo (command line): unknown key; known here: name, seed, ckpt, tags, ..."),
    ("+sede=1", "sede (command line): unknown key; did you mean seed? [conf/train.yaml]"),
    ("seed.x=1", "seed.x (command line): unknown key; did you mean seed? [conf/train.yaml]"),
    (
        "paths.data_dri=x",
        "paths.data_dri (command line): unknown key; did you mean paths.data_dir? [conf/paths/default.yaml]",
    ),
    (
        "+evaluation.n_sampels=3",
        "evaluation.n_sampels (command line): unknown key; did you mean evaluation.n_samples? [conf/train.yaml]",
    ),
    (
        "+callbacks.mine={_target_:lightning.pytorch.callbacks.Timer,intervl:3}",
        "callbacks.mine.intervl (command line): unknown key; did you mean callbacks.mine.interval?",
    ),
    ("hydra.job.nam=x", "hydra.job.nam (command line): unknown key; did you mean hydra.job.name?"),
    ("~sed", "sed (command line): nothing to delete; did you mean seed? [conf/train.yaml]"),
    ("+seed=3", "seed (command line): is there already; write it without the +"),
    (
        "optimizer.amsgrad=true",
        "optimizer.amsgrad (command line): stands in no file; add it with +optimizer.amsgrad=true",
    ),
    # wrong values
    ("optimizer.lr=0.00025d", "optimizer.lr (command line): expected float, got '0.00025d'"),
    ("trainer.clip_norm=" + "9" * 400, "trainer.clip_norm (command line): is too large a number"),
    ("optimizer.betas=[0.9]", "optimizer.betas (command line): expected tuple[float, float], got [0.9]"),
    (
        "trainer.precision=64-true",  # the data would stay in float32, and so would every evaluation
        "trainer.precision (command line): expected '32-true' or 'bf16-mixed' or '16-mixed', got '64-true'...",
    ),
    ("seed=1.5", "seed (command line): expected int, got 1.5"),
    ("seed=true", "seed (command line): expected int, got True"),
    ("seed=null", "seed (command line): expected int, got None"),
    ("name=3", "name (command line): expected str, got 3; quote it to make it a string: \"'3'\""),
    ("tags=abc", "tags (command line): expected Sequence[str], got 'abc'; a list is written [abc]"),
    ("data.batch_size=x", "data.batch_size (command line): expected int, got 'x'"),
    (
        "data.binarize=dinamic",
        "data.binarize (command line): expected 'none' or 'threshold' or 'static' or 'dynamic', got 'dinamic'; "
        "did you mean dynamic?",
    ),
    ("callbacks.pictures=3", "callbacks.pictures (command line): expected a mapping with _target_, or null, got 3"),
    ("seed=???", "seed (conf/train.yaml): a value is needed; give seed=..."),
    (
        "name=${sede}",
        "name (command line): Interpolation key 'sede' not found; interpolations are ${key.from.the.root} ...",
    ),
    ("name=${oc.env:ATTELBO_NO_SUCH}", "name (command line): cannot resolve: ..."),
    # choices and groups
    ("model=vea", "model=vea (command line): no such choice; did you mean vae? (attelbo list model has all ..."),
    ("modle=vae", "modle (command line): unknown key; did you mean model?..."),
    (
        "model/encodr=mlp",
        "model/encodr (command line): no such group; did you mean model/encoder? (there are callbacks, ...",
    ),
    ("model/encoder=mpl", "model/encoder=mpl (command line): no such choice; did you mean mlp? (there are conv, ..."),
    (
        "model.encoder=mlp",
        "model.encoder (command line): expected Mapping[str, Any], got 'mlp'; choose with model/encoder=NAME",
    ),
    ("+model/encoder=mlp", "model/encoder (command line): is chosen already; write it without the +"),
    ("logger=null", "logger (command line): null is no choice; there are csv, many, none, tensorboard, wandb"),
    ("logger=[3]", "logger (command line): [3] is no choice; there are csv, many, none, tensorboard, wandb"),
    ("logger=[csv,[wandb]]", "logger (command line): ['csv', ['wandb']] is no choice; there are ..."),
    ("model/prior=null", "model/prior (command line): to choose none, write ~model/prior"),
    # what is taken away
    ("~data.seed", "data.seed (command line): is missing, and nothing goes without it; a ~ may have taken it away"),
    ("~trainer.max_epochs", "trainer.max_epochs (command line): is missing, and nothing goes without it; a ~ may ..."),
    ("~trainer.replicas", "trainer.replicas (command line): is missing, and nothing goes without it; a ~ may ..."),
    ("~init.run", "init.run (command line): is null as it is, and Hydra deletes no null; leave the word out"),
    ("data.n_labels=" + "9" * 30, "data.n_labels (command line): is too large a number"),
    ("~scheduler", "scheduler (conf): is missing, and nothing goes without it; a ~ may have taken it away"),
    ("~model", "model (conf): is missing, ..."),
    ("~evaluation.n_samples", "evaluation.n_samples (command line): is missing, ..."),
    (
        "~model/prior",
        "model.prior: attelbo.models.build_vae cannot do without, and no file and no word gives it",
    ),
    (
        "experiment=mnist/vae_mpl",
        "experiment=mnist/vae_mpl (command line): no such choice; did you mean mnist/vae_mlp? ...",
    ),
    (
        "hydra/launcher=basics",
        "hydra/launcher=basics (command line): no such choice; did you mean basic? "
        "(there are basic, joblib, slurm, submitit_local)",
    ),
    ("hydra.searchpath=[nowhere]", "hydra.searchpath (command line): no such folder: nowhere"),
    # code
    (
        "model.encoder._target_=os.system",
        "model.encoder._target_ (command line): _target_ 'os.system' is outside the allowed packages: attelbo, torch, "
        "torchvision, lightning, torchmetrics; ATTELBO_PACKAGES=os allows it too",
    ),
    (
        "model.encoder._target_=attelbo.networks.ConvEncodr",
        "model.encoder._target_ (command line): _target_ 'attelbo.networks.ConvEncodr' cannot be imported: "
        "module 'attelbo.networks' has no attribute 'ConvEncodr'; did you mean ConvEncoder?",
    ),
    (
        "model.encoder._target_=attelbo.networks.__name__",
        "model.encoder._target_ (command line): attelbo.networks.__name__ is not a class or function",
    ),
    # parts that do not fit together
    (
        "data=sprites data.pairs=random",
        "data.pairs=random: a VariationalAutoencoder does not learn from pairs; model=ada_gvae does, data.pairs=null "
        "is for those that do not",
    ),
    (
        "data.n_labels=100",
        "data.n_labels=100: a VariationalAutoencoder does not learn from few labels; model=m2 does, data.n_labels=null "
        "is for those that do not",
    ),
    (
        "model/posterior=vector_quantized model/prior=standard_normal",
        "model/prior: StandardNormal is no prior for the latents of VectorQuantizedPosterior, ...",
    ),
    (
        "model=fsq_vae model.latent_dim=4",
        "model.posterior: latent_dim must be a multiple of 3, the number of levels...",
    ),
    # the words themselves
    ("seed=1 seed=2", "seed (command line): given twice, as 'seed=1' and 'seed=2'; keep one"),
    ("seed=1 ++seed=2", "seed (command line): given twice, as 'seed=1' and '++seed=2'; keep one"),
    (
        "seed=1,2",
        "seed (command line): '1,2' is a sweep; add -m to run one job per value, or write seed=[...] for a list",
    ),
    ("seed=range(1,3)", "seed (command line): 'range(1,3)' is a sweep; add -m ..."),
    ("foo", "'foo' (command line): not of the form key=value; ..."),
    ("seed=[1", "'seed=[1' (command line): not of the form key=value; ..."),
    ("--config-dir nowhere", "--config-dir nowhere: no such folder"),
    (
        "--resolv",
        "command line: unrecognized arguments: --resolv; see attelbo train --help; did you mean --resolve?",
    ),
    (
        "model/network=bidirectional_gru",
        "model/network (command line): nothing to override here; the chosen model has no such part: another model, ...",
    ),
    # whose name is like that of another group, or of a group that this model has not
    (
        "model/normalizer=top_k",
        "model/normalizer (command line): nothing to override here; the chosen model has no such part: another model, "
        "another experiment=..., or none",
    ),
    (
        "model.network.norm=rms",
        "model.network.norm (command line): unknown key; the chosen model has no such part: another model, ...",
    ),
    ("data/tokenizer=bpe", "data/tokenizer (command line): nothing to override here; the chosen data have no such ..."),
    ("-m --cfg job seed=1,2", "command line: --cfg prints one configuration: leave out -m; see attelbo train --help"),
    ("-m seed=1,x", "seed (command line): expected int, got 'x'"),
    ("-m model.latent_dim=3,0", "model.latent_dim must be at least 1, got 0"),
    ("-m model/encoder=mlp,mpl", "model/encoder=mpl (command line): no such choice; did you mean mlp? ..."),
]

# The first of each command is a key, the others are what it alone has.
COMMANDS = [
    (
        "evaluate run=",
        "run is empty, as an unset variable is; run=. is the newest run below the working directory",
    ),
    (
        "train -m seed=1,2 sweep=seeds sweep=latent",
        "sweep (command line): given twice, as 'sweep=seeds' and 'sweep=latent'; keep one",
    ),
    (
        "train -m sweep=seeds sweep.n_trials=3",
        "sweep.n_trials (command line): is for a search; add sweep.sampler=tpe, or leave it out",
    ),
    ("evaluate run=x qualty=true", "qualty (command line): unknown key; did you mean quality? [conf/evaluate.yaml]"),
    (
        "evaluate run=x checkpoint=bst",
        "checkpoint (command line): expected 'best' or 'last' or 'average' or epoch<n>, got 'bst'; did you mean best?",
    ),
    ("evaluate x run=y", "'x' (command line): not of the form key=value, and a run is named already"),
    ("sample run=x promt=a", "promt (command line): unknown key; did you mean prompt? [conf/sample.yaml]"),
    ("reconstruct run=x m=3", "m (command line): unknown key; known here: run, n, split, output, ..."),
    ("interpolate run=x step=4", "step (command line): unknown key; did you mean steps? [conf/interpolate.yaml]"),
    (
        "interpolate run=x path=sphericl",
        "path (command line): expected 'auto' or 'linear' or 'spherical', got 'sphericl'; did you mean spherical?",
    ),
    ("traverse run=x rwo=3", "rwo (command line): unknown key; did you mean row? [conf/traverse.yaml]"),
    ("embed run=x metod=tsne", "metod (command line): unknown key; did you mean method? [conf/embed.yaml]"),
    ("embed run=x model/prior=maf", "model/prior (command line): nothing to override here; known here: run, ..."),
    ("rerun run=x trainng=false", "trainng (command line): unknown key; did you mean training? [conf/rerun.yaml]"),
    (
        "rerun run=x training=flase",
        "training (command line): expected bool, got 'flase'; did you mean false?",
    ),
    ("translate run=x beem=3", "beem (command line): unknown key; did you mean beam? [conf/translate.yaml]"),
    ("fit-prior run=x epoch=3", "epoch (command line): unknown key; did you mean epochs? [conf/fit_prior.yaml]"),
    (
        "fit-prior run=x prior=transformer",
        "model/prior=transformer (command line): no such choice; did you mean diffusion_transformer? ...",
    ),
    (
        "fit-prior run=x prior=mixtures",
        "model/prior=mixtures (command line): no such choice; did you mean mixture_of_gaussians? ...",
    ),
    (
        "fit-prior run=x prior.n_component=3",
        "prior.n_component (command line): unknown key; "
        "did you mean prior.n_components? [conf/model/prior/mixture_of_gaussians.yaml]",
    ),
    ("fit-prior run=x model/prior=maf", "model/prior (command line): nothing to override here; did you mean prior?"),
    (
        "fit-prior experiment=digits/autoencoder_vq pryor=maf",
        "pryor (command line): unknown key; did you mean prior? [conf/fit_prior.yaml]",
    ),
    (
        "fit-prior experiment=digits/autoencoder_vq trainer.max_epoch=3",
        "trainer.max_epoch (command line): unknown key; did you mean trainer.max_epochs? ...",
    ),
    (
        "compare . --metrc",
        "command line: unrecognized arguments: --metrc; see attelbo compare --help; did you mean --metric?",
    ),
    ("reproduce sort_revers", "reproduce sort_revers: no such paper; did you mean sort_reverse? ..."),
    (
        "reproduce sort_reverse --budget smke",
        "command line: argument --budget: invalid choice: 'smke' ...",
    ),
    (
        "reproduce sort_reverse trainer.acelerator=gpu",
        "trainer.acelerator (command line): unknown key; did you mean trainer.accelerator? [conf/trainer/default.yaml]",
    ),
    ("sweep stats", "sweep stats: no such command; did you mean status? (there are dry, status)"),
    ("list priors", "list priors: no such group; did you mean model/prior? ..."),
    ("wandb snyc", "wandb snyc: no such command; did you mean sync? (there are sync, report)"),
]

HEAD = "# @package _global_\n"
FILES = [
    ("sed: 3\n", "sed (conf/experiment/mine.yaml): unknown key; did you mean seed? [conf/train.yaml]"),
    (
        "model:\n  latnet_dim: 3\n",
        "model.latnet_dim (conf/experiment/mine.yaml): unknown key; "
        "did you mean model.latent_dim? [conf/model/vae.yaml]",
    ),
    ("optimizer:\n  lr: 0.00025d\n", "optimizer.lr (conf/experiment/mine.yaml): expected float, got '0.00025d'"),
    ("trainer: 3\n", "trainer (conf/experiment/mine.yaml): expected a mapping with _target_, got 3"),
    ("name: ${sede}\n", "name (conf/experiment/mine.yaml): Interpolation key 'sede' not found; ..."),
    ("seed: 1\n b: 2\n", "conf/experiment/mine.yaml, line 3: mapping values are not allowed here; mend the YAML"),
    ("seed: 1\nseed: 2\n", "conf/experiment/mine.yaml, line 3: found duplicate key seed; mend the YAML"),
    ("- a\n", "conf/experiment/mine.yaml: a mapping is expected at the top; mend the YAML"),
    ('name: "${"\n', "conf/experiment/mine.yaml: no viable alternative at input '${'; mend the YAML"),
    (
        "defaults:\n  - override /model/encoder: mpl\n",
        "model/encoder=mpl (conf/experiment/mine.yaml): no such choice; did you mean mlp? ...",
    ),
    (
        "defaults:\n  - override /model/encodr: mlp\n",
        "model/encodr (conf/experiment/mine.yaml): no such group; did you mean model/encoder? ...",
    ),
    ("callbacks: [x]\n", "callbacks (conf/experiment/mine.yaml): expected a mapping, got ['x']"),
    ("tags: {a: 1}\n", "tags (conf/experiment/mine.yaml): expected a list, got {'a': 1}"),
    # the list of defaults itself
    ("defaults: [3]\n", "defaults (conf/experiment/mine.yaml): 3 is no choice; write - GROUP: CHOICE"),
    (
        "defaults: [override /logger: 3]\n",
        "defaults (conf/experiment/mine.yaml): {'override /logger': 3} is no choice; write - GROUP: CHOICE",
    ),
    (
        "defaults: [override /logger: [csv, null]]\n",
        "defaults (conf/experiment/mine.yaml): {'override /logger': ['csv', None]} is no choice; write - GROUP: CHOICE",
    ),
    (
        "defaults: digits\n",
        "defaults (conf/experiment/mine.yaml): a list is expected, - GROUP: CHOICE in each line",
    ),
    (
        "defaults:\n  override /data: digits\n",
        "defaults (conf/experiment/mine.yaml): a list is expected, - GROUP: CHOICE in each line",
    ),
    ("defaults:\n  - mine\n", "defaults (conf/experiment/mine.yaml): mine is the file itself; leave it out"),
    (
        "defaults:\n  - override /data: digits\n  - /model/encoder: conv\n",
        "model/encoder (conf/experiment/mine.yaml): stands below an override; write: override /model/encoder: conv",
    ),
    (
        "defaults:\n  - /data: mnist\n",
        "data (conf/experiment/mine.yaml): is chosen already; write: override /data: mnist",
    ),
    (
        "defaults:\n  - overwrite /data: mnist\n",
        "data (conf/experiment/mine.yaml): is chosen already; write: override /data: mnist",
    ),
    (
        "defaults:\n  - data: digits\n",
        "data (conf/experiment/mine.yaml): groups are named from the root here; write: override /data: digits",
    ),
    (
        "defaults:\n  - override model/encoder: mlp\n",
        "model/encoder (conf/experiment/mine.yaml): groups are named from the root here; "
        "write: override /model/encoder",
    ),
    (
        "defaults:\n  - override /data:digits\n",
        "defaults (conf/experiment/mine.yaml): override /data:digits: a colon and a blank come before the choice, "
        "- override /GROUP: CHOICE",
    ),
    (
        "defaults:\n  - mnist/vae_mpl\n",
        "experiment=mnist/vae_mpl (conf/experiment/mine.yaml): no such choice; did you mean mnist/vae_mlp? ...",
    ),
]


def told(capsys: pytest.CaptureFixture[str], folder: Path, words: list[str], expected: str) -> None:
    """The command gives the one expected line (``...``: anything), exit code 2, and leaves no trace."""
    before = sorted(folder.rglob("*"))
    assert main(words) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    if expected.endswith("..."):
        assert err.startswith(f"error: {expected[:-3]}")
    else:
        assert err == f"error: {expected}\n"
    assert sorted(folder.rglob("*")) == before


@pytest.mark.parametrize(("words", "expected"), COMMAND_LINE, ids=[words for words, _ in COMMAND_LINE])
def test_wrong_word_on_the_command_line(words, expected, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    told(capsys, tmp_path, ["train", *words.split()], expected)


@pytest.mark.parametrize(("words", "expected"), COMMANDS, ids=[words for words, _ in COMMANDS])
def test_wrong_word_of_another_command(words, expected, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    told(capsys, tmp_path, words.split(), expected)


@pytest.mark.parametrize(("content", "expected"), FILES, ids=[content for content, _ in FILES])
def test_wrong_file_of_the_user(content, expected, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "conf/experiment/mine.yaml"
    file.parent.mkdir(parents=True)
    file.write_text(HEAD + content)
    told(capsys, tmp_path, ["train", "experiment=mine"], expected)


def test_a_mark_before_the_package_of_a_file(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "conf/experiment/mine.yaml"
    file.parent.mkdir(parents=True)
    file.write_text(f"{HEAD}seed: 1\n", encoding="utf-8-sig")
    said = "conf/experiment/mine.yaml: it begins with a byte order mark; save it as UTF-8 without one"
    told(capsys, tmp_path, ["train", "experiment=mine"], said)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("words: [seed=1]\nwords: []\n", "line 2: found duplicate key words"),
        ("words:\n\t- seed=1\n", "line 2: found character '\\t' that cannot start any token"),
    ],
)
@pytest.mark.parametrize(
    ("file", "words"), [("sweep/mine.yaml", "sweep dry sweep=mine"), ("paper/mine/paper.yaml", "reproduce mine")]
)
def test_wrong_yaml_that_hydra_does_not_read(content, problem, file, words, capsys, tmp_path, monkeypatch):
    """Of a key that stood twice the last was taken, and a tab got four lines in one."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "conf" / file
    path.parent.mkdir(parents=True)
    path.write_text(content)
    told(capsys, tmp_path, words.split(), f"conf/{file}, {problem}; mend the YAML")


@pytest.mark.parametrize(
    ("defaults", "expected"),
    [
        (
            "[vae, override /model/objective: iwae, _self_]",
            "model/objective (conf/model/mine.yaml): nothing to override here; in a file of model/ write: "
            "override objective",
        ),
        (
            "[vae, objective: iwae, _self_]",
            "model/objective (conf/model/mine.yaml): is chosen already; write: override objective: iwae",
        ),
        ("[vea, _self_]", "model=vea (conf/model/mine.yaml): no such choice; did you mean vae? ..."),
    ],
)
def test_wrong_defaults_of_a_model_of_ones_own(defaults, expected, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "conf/model/mine.yaml"
    file.parent.mkdir(parents=True)
    file.write_text(f"defaults: {defaults}\n")
    told(capsys, tmp_path, ["train", "model=mine"], expected)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (
            b"seed: 3\n",
            "experiment (conf/experiment/mine.yaml): not a key; begin the file with the line: " + HEAD.strip(),
        ),
        (
            b"defaults:\n  - override /data: mnist\n",
            "data (conf/experiment/mine.yaml): nothing to override here; begin the file with the line: " + HEAD.strip(),
        ),
        (b"name: caf\xe9\n", "conf/experiment/mine.yaml: 'utf-8' codec can't decode byte 0xe9 ..."),
    ],
)
def test_file_without_its_header_or_encoding(content, expected, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "conf/experiment/mine.yaml"
    file.parent.mkdir(parents=True)
    file.write_bytes(content)
    told(capsys, tmp_path, ["train", "experiment=mine"], expected)


def test_a_file_that_would_be_ignored_is_an_error(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "conf/optimizer/adam.yaml"
    file.parent.mkdir(parents=True)
    file.write_text("_target_: torch.optim.Adam\nlr: 1.0\n")
    told(
        capsys,
        tmp_path,
        ["train"],
        "conf/optimizer/adam.yaml: hidden by attelbo's own optimizer=adam; give the file another name",
    )


def test_an_error_that_is_no_complaint_keeps_its_traceback(monkeypatch):
    import attelbo.experiments.configuration as configuration

    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("a defect of ours")

    monkeypatch.setattr(configuration, "check_node", broken)
    with pytest.raises(ZeroDivisionError, match="a defect of ours"):
        main(["check"])


@pytest.mark.parametrize("levels", [600, 100_000])
def test_a_file_that_is_nested_too_deeply(levels, capsys, tmp_path, monkeypatch):
    """libyaml ended the process, Python's parser in a traceback."""
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "conf/experiment/mine.yaml"
    file.parent.mkdir(parents=True)
    file.write_text(HEAD + "tags: " + "[" * levels + "]" * levels)
    said = "conf/experiment/mine.yaml: it is nested too deeply; mend the YAML"
    told(capsys, tmp_path, ["train", "experiment=mine"], said)
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.yaml").write_text("tags: " + "[" * levels + "]" * levels)
    told(capsys, tmp_path, ["evaluate", "run"], "run/config.yaml cannot be read: it is nested too deeply")
