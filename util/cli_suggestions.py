"""Suggestions for unknown options: similar names, names of CycleGAN's repository, and options of other methods."""

import difflib
from collections.abc import Callable, Iterable, Sequence

# Options of the published CycleGAN code, in its PyTorch and Lua releases, that have another name here.
RENAMED = {
    "--niter": "--n_epochs",
    "--niter_decay": "--n_epochs_decay",
    "--batchSize": "--batch_size",
    "--loadSize": "--load_size",
    "--fineSize": "--crop_size",
    "--norm": "--normG and --normD",
    "--which_direction": "--direction",
    "--which_model_netG": "--netG",
    "--which_model_netD": "--netD",
    "--which_epoch": "--epoch",
    "--load_iter": "--epoch iter_<images>",
    "--nThreads": "--num_threads",
    "--resize_or_crop": "--preprocess",
    "--how_many": "--num_test",
    "--no_lsgan": "--gan_mode vanilla",
    "--identity": "--lambda_identity",
    "--display_single_pane_ncols": "--display_ncols",
    "--wandb_project_name": "the environment variable WANDB_PROJECT",
    "--use_dropout": "--no_dropout no",
    "--gpu": "--gpu_ids",
}


def suggest_options(
    unknown: Sequence[str], known: Iterable[str], find_elsewhere: Callable[[str], str | None] = lambda flag: None
) -> str:
    """Return a sentence for every unknown option that has a counterpart or is similar to a known one, or "".

    Args:
        unknown: arguments that the parser has left over.
        known: all flags of the parser.
        find_elsewhere: returns a command that has the option, such as "--model sincut", or None.
    """
    by_lower_case = {flag.lower(): flag for flag in known}
    flags = dict.fromkeys(argument.partition("=")[0] for argument in unknown if argument.startswith("--"))

    def suggest(flag: str) -> str:
        if flag in RENAMED:
            return f"Instead of {flag}, use {RENAMED[flag]}."
        if command := find_elsewhere(flag):
            return f"{flag} is an option of {command}."
        if similar := difflib.get_close_matches(flag.lower(), by_lower_case, n=1, cutoff=0.75):
            meant = by_lower_case[similar[0]]
            return f"Did you mean {meant}?" if len(flags) == 1 else f"Instead of {flag}, did you mean {meant}?"
        return ""

    return " ".join(filter(None, map(suggest, flags)))
