"""A generator as a folder in the Hugging Face hub's layout: weights as safetensors, its options, and a model card.

`Translator.from_checkpoint` reads such a folder, whether it was written here or fetched from the hub.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from models.inference.checkpoint import HUB_OPTIONS, HUB_WEIGHTS, LoadedGenerator
from util.runtime.weights import write_safetensors

CARD = "README.md"
# Paths of a machine are nobody else's business.
NOT_PUBLISHED = ("checkpoints_dir", "dataroot", "display_server", "display_env", "gpu_ids", "results_dir")

TEMPLATE = """---
library_name: pytorch
pipeline_tag: image-to-image
tags: [image-to-image, unpaired, contrastive-unpaired-translation]
---
# {name}

A generator that translates images, trained with {method} ([paper](https://arxiv.org/abs/2007.15651)) on unpaired images
of two domains{data}.

```python
from models import Translator
translator = Translator.from_checkpoint("path/to/this/folder")
translation = translator(image)  # a PIL image, an array or a tensor
```

It takes {input_nc} channels, gives {output_nc}, and takes images of any size. Its values are images in [-1, 1].

## Figures

{figures}

## What it was built and trained with

{options}
"""


def write_hub_folder(loaded: LoadedGenerator, folder: Path, name: str, figures: Mapping[str, float]) -> None:
    """Writes model.safetensors, config.json and the card README.md into `folder`.

    `figures` are the last scores and losses of the training, by name; there need not be any.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_safetensors(loaded.network, folder / HUB_WEIGHTS)
    options = {**_published(loaded.record), **vars(loaded.options)}
    (folder / HUB_OPTIONS).write_text(json.dumps(options, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    (folder / CARD).write_text(model_card(loaded, name, figures), encoding="utf-8")


def model_card(loaded: LoadedGenerator, name: str, figures: Mapping[str, float]) -> str:
    """What was trained, on what, with which options, and the last figures; in the hub's Markdown."""
    record = loaded.record
    options = {**_published(record), **vars(loaded.options)}
    data = Path(str(record["dataroot"])).name if "dataroot" in record else ""
    return TEMPLATE.format(
        name=name,
        method=str(record.get("CUT_mode") or record.get("model") or "contrastive unpaired translation"),
        data=f" ({data}, {record.get('direction', 'AtoB')})" if data else "",
        input_nc=loaded.options.input_nc,
        output_nc=loaded.options.output_nc,
        figures=_table("figure", {key: f"{value:.4g}" for key, value in figures.items()}) or "None were recorded.",
        options=_table("option", options),
    )


def latest_metrics(reports: list[dict[str, Any]]) -> dict[str, float]:
    """The latest value of each number in the groups of a training's reports, as "losses G_GAN"."""
    figures: dict[str, float] = {}
    for report in reports:
        for group, values in report.items():
            if isinstance(values, dict):
                numbers = {key: value for key, value in values.items() if isinstance(value, int | float)}
                figures |= {f"{group} {key}": float(value) for key, value in numbers.items()}
    return figures


def _published(record: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in record.items() if key not in NOT_PUBLISHED}


def _table(heading: str, rows: Mapping[str, Any]) -> str:
    if not rows:
        return ""
    lines = [f"| {heading} | value |", "|---|---|", *(f"| {key} | {rows[key]} |" for key in sorted(rows))]
    return "\n".join(lines)
