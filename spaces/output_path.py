"""Whether a file can be written somewhere, asked before the work begins whose result it is to hold."""

from __future__ import annotations

import os
from pathlib import Path


def obstacle(path: Path, option: str) -> tuple[str, str] | None:
    """Why no file can be written at `path`, and what to do; None where one can. No folder is ever made for it.

    Args:
        path: of the file, which may be there already.
        option: that named it.
    """
    folder, elsewhere = path.parent, f"name another place with {option}"
    if path.is_dir():
        return "a folder", f"name a file in it: {option} {path / 'NAME'}"
    if not folder.exists():
        return f"there is no folder {folder}", f"`mkdir -p {folder}`, or {elsewhere}"
    if not folder.is_dir():
        return f"{folder} is no folder", elsewhere
    if not os.access(folder, os.W_OK) or (path.exists() and not os.access(path, os.W_OK)):
        return "no right to write", elsewhere
    return None
