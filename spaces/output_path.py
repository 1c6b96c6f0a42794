"""Check that an output file can be written, before the work that produces it begins."""

from __future__ import annotations

import os
from pathlib import Path


def find_obstacle(path: Path, option: str) -> tuple[str, str] | None:
    """Return why no file can be written to `path` and what to do, or None; no folder is created.

    Args:
        path: of the file, which may exist.
        option: by which it was given.
    """
    folder = path.parent
    elsewhere = f"choose another path with {option}"
    if path.is_dir():
        return "a folder", f"name a file in it: {option} {path / 'NAME'}"
    if not folder.exists():
        return f"there is no folder {folder}", f"`mkdir -p {folder}`, or {elsewhere}"
    if not folder.is_dir():
        return f"{folder} is not a folder", elsewhere
    if not os.access(folder, os.W_OK) or (path.exists() and not os.access(path, os.W_OK)):
        return "no permission to write", elsewhere
    return None
