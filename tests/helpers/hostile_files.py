"""File names, weights and pickles that a program must not trust."""

import os
from pathlib import Path
from typing import Any

import torch
from torch import nn

# Names that break out of HTML, URLs, shells or text encodings.
HOSTILE_NAMES = [
    "<script>alert(1)</script>.png",
    '"><img src=x onerror=alert(1)>.jpg',
    "' onmouseover='alert(1).jpg",
    "&lt;b&gt; &amp.jpg",
    "100%.jpg",
    "100%25.jpg",
    "a#b.jpg",
    "what?.jpg",
    "a;b:c|d*e.jpg",
    "back\\slash.jpg",
    "line\nbreak\r\ttab.jpg",
    "javascript:alert(1).jpg",
    "..jpg",
    "...png",
    "\u202egpj.exe.jpg",
    "Grüße 猫 🐈.jpg",
    os.fsdecode(b"latin1-\xe9.jpg"),
    " spaces .jpg",
    "-rf.jpg",
    ".hidden.jpg",
    "x" * 251 + ".jpg",
    "猫" * 83 + ".jpg",
    "no_extension",
]


class Payload:
    """Creates a folder if it is unpickled without protection."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.mkdir, (self.folder,)


def small_network(norm: type[nn.Module] = nn.BatchNorm2d, width: int = 3, seed: int = 0) -> nn.Sequential:
    """Return a small network with random weights and running statistics."""
    net = nn.Sequential(nn.Conv2d(2, width, 3), norm(width), nn.Conv2d(width, 1, 1))
    generator = torch.Generator().manual_seed(seed)
    for tensor in net.state_dict().values():
        tensor.copy_(torch.randint(1, 99, tensor.shape, generator=generator))
    return net
