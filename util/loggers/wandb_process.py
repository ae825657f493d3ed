"""Process between a run and Weights & Biases: `wandb_process.py RUN_DIR NAME`, started by wandb_logger.py.

Reads pickled (images, values by name, uint8 images by name) from standard input until its end.
"""

import json
import os
import pickle
import sys
from pathlib import Path

import wandb


def main() -> None:
    run_dir, name = sys.argv[1:]
    saved_options = Path(run_dir) / "train_opt.json"
    config = json.loads(saved_options.read_text()) if saved_options.exists() else None
    project = os.environ.get("WANDB_PROJECT", "CUT")
    run = wandb.init(project=project, name=name, group=name, dir=run_dir, config=config)
    run.define_metric("images")
    run.define_metric("*", step_metric="images")
    while True:
        try:
            images, values, visuals = pickle.load(sys.stdin.buffer)
        except (EOFError, pickle.UnpicklingError):  # training has ended, perhaps in the middle of a message
            break
        run.log({"images": images, **values, **{name: wandb.Image(pixels) for name, pixels in visuals.items()}})
    run.finish()


if __name__ == "__main__":
    main()
