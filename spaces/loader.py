"""YAML in, checked models out. Every complaint names the file, the line, the path, what was found and what is allowed."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from spaces.errors import InputError, StudyError, nearest
from spaces.paths import nested, overlay
from spaces.study import StudySpec
from spaces.thresholds import FORMER_SIGNALS

SHIPPED = Path(__file__).parent / "studies"

UNION_TAGS = {
    "float",
    "int",
    "choice",
    "digits",
    "folder",
    "bool",
    "docstrings",
    "csv",
    "jsonl",
    "parquet",
    "datasets",
}
"""What pydantic puts into the place of an error for the branch of a union that it took; nothing that stands in the file."""

NO_YAML = (yaml.YAMLError, ValueError, RecursionError)
"""What the reader raises: its own errors, and those of a date that is none and of brackets without end."""

PREFIX = re.compile(r"^(Value error|Assertion failed), ")
"""What pydantic puts before the words of a check of one's own."""

Model = TypeVar("Model", bound=BaseModel)


class _Loader(yaml.SafeLoader):
    """Safe YAML that refuses a key given twice, where plain YAML lets the last one win in silence."""


def _mapping_without_repeats(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen: set[str] = set()
    for key, _ in node.value:
        if not isinstance(key, yaml.ScalarNode):
            raise yaml.constructor.ConstructorError(
                None, None, "a key must be plain text, not a list or a mapping", key.start_mark
            )
        if key.value in seen:
            raise yaml.constructor.ConstructorError(
                None, None, f"the key {key.value!r} stands twice", key.start_mark
            )
        seen.add(key.value)
    return loader.construct_mapping(node, deep=True)


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping_without_repeats)


class Dumper(yaml.SafeDumper):
    """Writes what `Document` reads back as it was: text that would read as a number is quoted."""


# YAML 1.1 takes 1e-3 for text because it has no dot; everybody who writes a learning rate means the number.
_FLOAT = re.compile(r"[-+]?[0-9][0-9_]*(\.[0-9_]*)?[eE][-+]?[0-9]+$")
for _reader_or_writer in (_Loader, Dumper):
    _reader_or_writer.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+0123456789"))


class Document:
    """A YAML file read once: its data, and the line of every path in it."""

    def __init__(self, path: Path, error: type[InputError] = StudyError) -> None:
        self.path = path
        self.overrides: tuple[str, ...] = ()
        """Dotted paths whose values came from the command line and not from the file."""
        self.options: tuple[str, ...] = ()
        """Those of them that came from an option of their own, such as --epochs, and not from --set."""
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as problem:
            reason = problem.strerror if isinstance(problem, OSError) else "not UTF-8 text"
            raise error(
                f"cannot read {path}",
                where=str(path),
                found=str(reason),
                next_step="check the path and its rights",
            ) from None
        try:
            self.data: Any = yaml.load(text, Loader=_Loader)  # noqa: S506 - a SafeLoader
            self._root = yaml.compose(text, Loader=yaml.SafeLoader)
        except NO_YAML as problem:
            mark = getattr(problem, "problem_mark", None)
            place = f"{path}, line {mark.line + 1}" if mark else str(path)
            raise error(
                f"{path.name} is not valid YAML",
                where=place,
                found=str(getattr(problem, "problem", problem))[:200],
                next_step="mend the syntax",
            ) from None
        if not isinstance(self.data, dict):
            raise error(
                f"{path.name} holds no mapping",
                where=str(path),
                found="nothing" if self.data is None else type(self.data).__name__,
                allowed="keys and values, such as `name: my_study`",
                next_step="start from a shipped study; `search list` names them",
            )

    def line(self, place: Sequence[str | int]) -> int | None:
        """The line of the deepest step of `place` that stands in the file."""
        node, line = self._root, None
        for step in place:
            child = _child(node, step)
            if child is None:
                break
            node, line = child
        return line

    def where(self, place: Sequence[str | int]) -> str:
        """`study.yaml, line 12, space → loss.gamma → low`."""
        line = self.line(place)
        stands = (
            f"{self.path}"
            + (f", line {line}" if line else "")
            + (", " + " → ".join(str(step) for step in place) if place else "")
        )
        option = option_of(".".join(str(step) for step in place), self.overrides)
        if option is None:
            return stands
        told = f"--{option}" if option in self.options else f"--set {option}"
        return (
            f"{told}, over {stands}"
            if self._holds(place) and option != ".".join(map(str, place))
            else told
        )

    def _holds(self, place: Sequence[str | int]) -> bool:
        """Whether something stands there in the file."""
        node = self._root
        for step in place:
            child = _child(node, step)
            if child is None:
                return False
            node = child[0]
        return True


def option_of(place: str, changed: Iterable[str]) -> str | None:
    """The dotted path that the command line changed and that a complaint about `place` is about: there, above, or within it."""
    steps = _current_steps(place)
    for path in changed:
        other = _current_steps(path)
        shared = min(len(steps), len(other))
        if steps[:shared] == other[:shared]:
            return path
    return None


def _current_steps(path: str) -> list[str]:
    """The steps of a dotted path, with the names that signals have now."""
    return [FORMER_SIGNALS.get(step, step) for step in path.split(".")]


def _child(node: yaml.Node | None, step: str | int) -> tuple[yaml.Node, int] | None:
    if isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
        return node.value[step], node.value[step].start_mark.line + 1
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if FORMER_SIGNALS.get(key.value, key.value) == str(step):
                return value, key.start_mark.line + 1
    return None


def check(
    model: type[Model],
    data: Mapping[str, Any],
    source: Document | str,
    error: type[InputError] = StudyError,
) -> Model:
    """`data` as a `model`.

    Raises:
        InputError: of the kind `error`, for the first thing that is wrong.
    """
    try:
        return model.model_validate(data)
    except ValidationError as problem:
        raise explain(problem, source, error) from None


def explain(
    problem: ValidationError, source: Document | str, error: type[InputError] = StudyError
) -> InputError:
    """The first complaint of a validation, told for people."""
    first = problem.errors(include_url=False)[0]
    place = [step for index, step in enumerate(first["loc"]) if not (index and step in UNION_TAGS)]
    if first["type"] == "unknown_key":
        place.append(first["ctx"]["key"])
    where = (
        source.where(place)
        if isinstance(source, Document)
        else f"{source}, {' → '.join(str(step) for step in place)}"
    )
    name = next((step for step in reversed(place) if isinstance(step, str)), "the document")
    what, allowed = _words(first, name)
    found = "" if first["type"] in ("unknown_key", "missing") else repr(first["input"])
    more = len(problem.errors()) - 1
    following = (
        f"mend it; {more} more complaint{'s' if more > 1 else ''} may follow"
        if more
        else "mend it and run the command again"
    )
    return error(what, where=where, found=found[:200], allowed=allowed, next_step=following)


def _words(detail: ErrorDetails, name: str) -> tuple[str, str]:
    """What is wrong with the value called `name`, and what is allowed there."""
    context = detail.get("ctx", {})
    match detail["type"]:
        case "unknown_key":
            return detail["msg"], context["allowed"]
        case "missing":
            return f"the key {name!r} is missing", f"{name}: …"
        case "literal_error":
            allowed = context["expected"].replace("'", "")
            return (
                f"{name} cannot be {detail['input']!r}{nearest(detail['input'], allowed.replace(' or ', ', ').split(', '))}",
                allowed,
            )
        case "union_tag_invalid":
            allowed = context["expected_tags"].replace("'", "")
            return (
                f"kind cannot be {context['tag']!r}{nearest(context['tag'], allowed.split(', '))}",
                allowed,
            )
        case "union_tag_not_found":
            return (
                f"{name} names no kind",
                "kind: float, kind: int or kind: choice"
                if "float" in str(context) or len(detail["loc"]) > 1
                else "kind: …",
            )
        case _:
            said = PREFIX.sub("", detail["msg"])
            return f"{name}: {said[:1].lower()}{said[1:]}", ""


def shipped_studies() -> dict[str, Path]:
    """Name → file of the studies that come with the package."""
    return {path.stem: path for path in sorted(SHIPPED.glob("*.yaml"))}


def study_file(name_or_path: str) -> Path:
    """The file of a shipped study's name, or of a path.

    Raises:
        StudyError: when there is neither.
    """
    shipped = shipped_studies()
    if name_or_path in shipped:
        return shipped[name_or_path]
    path = Path(name_or_path)
    if path.suffix in (".yaml", ".yml") or path.exists():
        return path
    what = f"unknown study {name_or_path!r}{nearest(name_or_path, shipped)}"
    raise StudyError(
        what,
        where="--study",
        found=name_or_path,
        allowed=f"{', '.join(shipped)}, or the path of a YAML file",
        next_step="`search list` shows the studies",
    )


def load_study(
    name_or_path: str, changes: Mapping[str, Any] | None = None, options: Collection[str] = ()
) -> StudySpec:
    """A study by shipped name or path, with `changes` (dotted paths of its YAML) laid over it.

    Args:
        name_or_path: of the study.
        changes: dotted path → value.
        options: those of the paths that were given by an option of their own, such as --epochs, and not by --set.

    Raises:
        StudyError: when it cannot be found, read or understood.
    """
    document = Document(study_file(name_or_path))
    document.overrides, document.options = tuple(changes or ()), tuple(options)
    data = StudySpec.rename_former_keys(document.data)
    if isinstance(data.get("base"), Mapping):
        data["base"] = nested(data["base"])
    for path, value in (changes or {}).items():
        data = overlay(data, StudySpec.rename_former_keys(_change(path, value)))
    return check(StudySpec, data, document)


def _change(path: str, value: Any) -> dict[str, Any]:
    """`space.loss.gamma.low=1` keeps the dimension's own dotted name as one key."""
    head, _, rest = path.partition(".")
    if head == "space" and rest:
        dimension, _, last = rest.rpartition(".")
        if (isinstance(value, Mapping) and last != "when") or not dimension:
            return {"space": {rest: value}}
        return {"space": {dimension: {last: value}}}
    return nested({path: value})


def parse_changes(
    assignments: Sequence[str],
    option: str = "--set",
    example: str = "--set epochs=8, --set base.data.size=64",
) -> dict[str, Any]:
    """`["epochs=8", "base.loss.gamma=1.5"]` as paths and YAML values, given to `option`.

    Raises:
        StudyError: when one is not of the form path=value.
    """
    changes: dict[str, Any] = {}
    for assignment in assignments:
        path, equals, text = assignment.partition("=")
        if not equals or not path:
            raise StudyError(
                f"{option} takes path=value",
                where=option,
                found=assignment,
                allowed=example,
                next_step="write a path, an equals sign and a value",
            )
        try:
            changes[path] = yaml.load(text, Loader=_Loader)  # noqa: S506 - a SafeLoader
        except NO_YAML:
            raise StudyError(
                f"{option} cannot read the value",
                where=f"{option} {path}",
                found=text,
                allowed="a YAML value",
                next_step="quote it",
            ) from None
    return changes
