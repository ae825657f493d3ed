"""Contrastive unpaired translation, installed as one package: `from cut_translation import Translator`."""

from typing import Any

__all__ = ["Translator"]


def __getattr__(name: str) -> Any:
    """Import `Translator` on first use, because it imports torch."""
    if name in __all__:
        from models import Translator

        return Translator
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
