"""The help texts of the command line."""

from itertools import takewhile

from attelbo.experiments.listing import choices, config_folders, package_folder

HELP = """\
attelbo: variational autoencoders and attention models, composed from named parts

  attelbo train        [choices and values]    train, evaluate, draw pictures, write a run directory
  attelbo check        [choices and values]    compose and verify what `train` would run; run nothing
  attelbo list         [group]                 what can be chosen, one line on each

of a finished run, or of the newest one in a folder (DIR alone will do):
  attelbo evaluate     run=DIR [values]        its metrics, and more
  attelbo sample       run=DIR n=64 [values]   images from the prior, or texts: prompt="..."
  attelbo translate    run=DIR text="..."      a sentence, or each line of the standard input
  attelbo predict      run=DIR text="..."      classes of texts or images, or the cost of each token to a language
                                               model; for those in a file, path=..., or in split=test, as CSV
  attelbo reconstruct  run=DIR n=20 [values]   images and their reconstructions
  attelbo interpolate  run=DIR n=8 [values]    paths between images, a grid and a GIF, or texts: start="..." end="..."
  attelbo traverse     run=DIR row=0 [values]  one latent at a time, as a grid and as a GIF
  attelbo embed        run=DIR [values]        posterior means as coordinates and as a map
  attelbo fit-prior    run=DIR prior=maf       a prior fitted to its encodings: a run of its own; experiment=... in
                                               place of run= trains the first stage too, or finds it
  attelbo rerun        run=DIR                 repeats it: is the result the same, bit for bit?

of many runs:
  attelbo sweep        dry|status ...          the jobs of a sweep: those that a command would run, or those in a folder
  attelbo compare      DIR... [options]        settings side by side, mean and interval over seeds; an HTML page
  attelbo wandb        sync|report DIR...      runs logged offline sent to the server; a report on a sweep

of a paper:
  attelbo reproduce    PAPER [options]         its table, rebuilt, beside the published numbers (--list: which)

of the shell:
  attelbo completion   bash|zsh|fish           completes what you type: source <(attelbo completion bash)

choices and values (Hydra's words):
  experiment=mnist/vae_mlp  data=mnist  model/likelihood=normal  trainer=cpu  logger=wandb
  seed=0  model.latent_dim=20  trainer.max_epochs=1  +key=value  ~key

options of train, check and those of a finished run (-m: of train and check):
  -m, --multirun          one job for each combination of swept values: seed=1,2 data=digits,mnist
  --config-dir DIR        a folder that adds to the groups (as conf/ in the working folder does)
  --cfg job|hydra|all     print the composed configuration instead of running
  --resolve               with --cfg: interpolations resolved
  -h, --help              this page

`attelbo COMMAND --help` lists the keys of one command.
"""

COMPARE = """\
attelbo compare DIR... [options]        settings side by side, mean and interval over seeds; an HTML page

DIR: run directories, sweeps, any folder of runs, or globs of them. Runs that differ only in their seed are one setting.

options:
  --by KEY             tell settings apart by this key or group only: model, model.latent_dim, ...; may be repeated;
                       the runs of one seed that differ in other keys count as one, their mean
  --metric NAME        a column: nll, test/elbo, val/loss, ...; the first one sorts; may be repeated
  --pair A B           compare two rows of the printed table, by their numbers, seed by seed
  --udr KIND           a column for VAEs: how far the seeds of a setting agree in their latents, by lasso or spearman
  -o, --output FILE    write the table there too: .html (with curves and pictures), .csv, .md or .tex; may be repeated
  --runs               in a .csv one line for each run, for pandas and the like, instead of one for each setting
"""

SWEEP = """\
attelbo sweep        dry|status ...          the jobs of a sweep: those that a command would run, or those in a folder

  attelbo sweep dry [choices and values]     what `attelbo train -m` would run: each job, its state, what is left
  attelbo sweep status [DIR...]              the same of every sweep in these folders, or in outputs

Zipped lists go in step: zip:model.latent_dim=2,8 zip:optimizer.lr=1e-2,1e-3 are two jobs, not four. zip2: and so on
are further groups of such lists, combined with the others.

sweep=NAME stands for the words in a file of conf/sweep/ (attelbo list sweep). With sweep.sampler=tpe, random,
quasi_random or grid the jobs are chosen while the sweep runs, from the lists and intervals that are swept:

  attelbo train -m sweep.sampler=tpe 'optimizer.lr=tag(log,interval(1e-4,1e-2))' 'model.latent_dim=int(interval(2,32))'

  sweep.n_trials=20        jobs of the search; the same command with a larger number goes on with it
  sweep.pruner=median      stop a job that does worse than others did: median or successive_halving
  sweep.warmup=1           validations before that
  sweep.metric, direction  what is optimized, and which way; by default what the model is monitored by
  sweep.concurrent=1       jobs at a time, with a launcher that runs several
  sweep.seed=0             of the sampler
"""


REPRODUCE = """\
attelbo reproduce PAPER [options] [choices and values]     its table, rebuilt, beside the published numbers

Runs what is not done yet (the same command again goes on), prints the table and writes it beside the runs. Further
words, such as trainer.accelerator=gpu or paths.data_dir=..., apply to all runs.

options:
  --list                   the papers, one line on each
  --budget NAME            smoke (seconds), quick (minutes on a CPU) or full (as published); quick by default
  --seeds N                runs of each cell
  --cell NAME              run this cell only; may be repeated. The table shows what there is of the others
  -o, --output FILE        write the table there too: .md, .csv or .tex; may be repeated
  --config-dir DIR         a folder that adds to the groups and papers
"""

WANDB = """\
attelbo wandb        sync|report DIR...      runs logged offline sent to the server; a report on a sweep

  attelbo wandb sync DIR...                  send every run below these folders that was logged offline and not sent yet
  attelbo wandb report DIR [options]         a report on the runs of a sweep, which must have been sent: curves and bars
                                             by setting, parallel coordinates, what differs, pictures

The server is the one that `wandb login` knows, or WANDB_BASE_URL names.

options of report:
  --metric NAME        a bar: nll, test/elbo, val/loss, ...; may be repeated
  --dry                send nothing; write the report as wandb-report.json into the folder
"""


def help_of(command: str) -> str:
    """What ``attelbo COMMAND --help`` prints: its options, and its keys with what its root file says of them."""
    lines = HELP.splitlines()
    first = next(i for i, line in enumerate(lines) if line.startswith(f"  attelbo {command} "))
    rest = takewhile(lambda line: line.startswith("    "), lines[first + 1 :])  # its description may go on below
    usage = "\n".join(line.removeprefix("  ") for line in (lines[first], *rest))
    if command == "list":
        return f"{usage}\n\ngroups: {', '.join(choices(config_folders()))}\n"
    sweeps = command in ("train", "check")
    _, *given = HELP[HELP.index("options of") :].rpartition("\n\n")[0].splitlines()
    options = "\n".join(["options:", *(line for line in given if sweeps or "--multirun" not in line)])
    keys = (package_folder() / f"{root_of(command)}.yaml").read_text(encoding="utf-8")
    return f"{usage}\n\n{options}\n\nkeys and groups (`attelbo list GROUP` for the choices):\n\n{keys}"


def root_of(command: str) -> str:
    """The root file of a command."""
    return "train" if command == "check" else command.replace("-", "_")
