"""Where data that was downloaded or prepared is kept."""

import os
from pathlib import Path

__all__ = ["cache_folder"]


def cache_folder(kind: str) -> Path:
    """``$HCROT_DATA/kind``, else ``$XDG_CACHE_HOME/hcrot/kind``, else ``~/.cache/hcrot/kind``. It is not made here."""
    if root := os.environ.get("HCROT_DATA"):
        return Path(root).expanduser() / kind
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "hcrot" / kind
