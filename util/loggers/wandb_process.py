"""The process between a run and Weights & Biases: `wandb_writer.py RUN_DIR NAME`, see wandb_view.py.

Reads pickled (images, values by name, uint8 images by name) from standard input until that ends.
"""

import json
import os
import pickle
import sys
from pathlib import Path

import wandb


def main() -> None:
    run_dir, name = sys.argv[1:]
    record = Path(run_dir) / "train_opt.json"
    options = json.loads(record.read_text()) if record.exists() else None
    project = os.environ.get("WANDB_PROJECT", "CUT")
    run = wandb.init(project=project, name=name, group=name, dir=run_dir, config=options)
    run.define_metric("images")
    run.define_metric("*", step_metric="images")
    while True:
        try:
            images, values, visuals = pickle.load(sys.stdin.buffer)
        except (EOFError, pickle.UnpicklingError):  # the run has ended, perhaps in the midst of a message
            break
        run.log({"images": images, **values, **{name: wandb.Image(pixels) for name, pixels in visuals.items()}})
    run.finish()


if __name__ == "__main__":
    main()
