"""The command that starts a new study, where a study cannot try a remedy itself."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from spaces.config_tree import ConfigTree
from spaces.loader import load_study, shipped_studies
from spaces.study import StudySpec
from spaces.yaml_values import format_assignment

STUDY_FILE = "STUDY.yaml"
"""Stands for the file of a study: the store has its content and not its path."""

MOST_CHANGES = 8
"""Changes of a shipped study that a command repeats at most."""

NAME_CHARACTERS = 80
"""Characters of a study's name that remain in the new one, whose length is limited."""


def make_new_study_command(spec: StudySpec, suffix: str, options: Sequence[str]) -> str:
    """Make the command that starts a study like another one, except for some options.

    A shipped study is named, with the changes that the other one was started with. The file of any
    other study is not known, so `STUDY_FILE` is in its place.

    Args:
        spec: of the other study.
        suffix: of the new study's name.
        options: words for `search run`, such as `["--epochs", "24"]`.
    """
    name = f"{spec.name[:NAME_CHARACTERS]}_{suffix}"
    changes = _find_shipped_changes(spec)
    source = [STUDY_FILE] if changes is None else [spec.name, *changes]
    return shlex.join(["search", "run", "--study", *source, "--name", name, *options])


def _find_shipped_changes(spec: StudySpec) -> list[str] | None:
    """The options that make the study of a shipped one; None where there are none."""
    if spec.name not in shipped_studies():
        return None
    shipped = ConfigTree(load_study(spec.name).definition())
    given = ConfigTree(spec.definition())
    changed = [path for path in given if shipped.get(path, ...) != given[path]]
    removed = [path for path in shipped if path not in given]
    # A condition has a dotted path of its own below that of its dimension.
    if removed or len(changed) > MOST_CHANGES or any(".when." in path for path in changed):
        return None
    words = []
    for path in changed:
        words += ["--set", format_assignment(path, given[path])]
    return words
