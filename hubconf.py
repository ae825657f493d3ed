"""Entry points of torch.hub.

Example: `torch.hub.load("path/to/this/folder", "translator", checkpoint="checkpoints/RUN", source="local")`.
"""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from models import Translator

dependencies = ["torch", "numpy", "PIL", "psutil", "tqdm"]


def translator(checkpoint: str | Path, **settings: Any) -> "Translator":
    """Return a trained generator as a function of images.

    Args:
        checkpoint: weights file, run folder, or folder in the layout of the Hugging Face Hub.
        settings: further arguments of `Translator.from_checkpoint`, such as epoch, network, gpu_ids and bf16.
    Raises:
        ImportError: the process has imported another package named models, data or util.
        UserError: there is no such checkpoint or device.
    """
    root = Path(__file__).resolve().parent
    for name in ("models", "data", "util"):
        path = getattr(sys.modules.get(name), "__file__", None)
        if path is not None and root not in Path(path).resolve().parents:
            raise ImportError(
                f"hubconf: another package named {name} is imported already ({path}). Use `pip install {root}` and "
                "`from cut_translation import Translator` instead."
            )
    from models import Translator

    return Translator.from_checkpoint(checkpoint, **settings)
