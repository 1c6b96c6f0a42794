"""Read YAML into checked models; every error has file, line, path, value and what is allowed."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from spaces.config_tree import ConfigTree
from spaces.errors import InputError, StudyError, nearest
from spaces.study import StudySpec
from spaces.thresholds import FORMER_SIGNALS
from spaces.yaml_values import format_found

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
"""What pydantic adds to the location of an error for a branch of a union; no key of the file."""

UNREADABLE = (yaml.YAMLError, ValueError, RecursionError)
"""What the YAML reader raises, also for an invalid date and for endless brackets."""

PREFIX = re.compile(r"^(Value error|Assertion failed), ")
"""What pydantic puts before the message of a validator."""

FOUND_CHARACTERS = 200
"""How much of a value an error shows."""

Place = Sequence[str | int]
"""Keys and indices that lead to a value, from the top of the file."""

Model = TypeVar("Model", bound=BaseModel)


class _Loader(yaml.SafeLoader):
    """Reads safe YAML and refuses a repeated key, of which plain YAML silently takes the last."""


def _construct_mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen: set[str] = set()
    for key, _ in node.value:
        if not isinstance(key, yaml.ScalarNode):
            raise yaml.constructor.ConstructorError(
                None, None, "a key must be plain text, not a list or a mapping", key.start_mark
            )
        if key.value in seen:
            raise yaml.constructor.ConstructorError(
                None, None, f"the key {key.value!r} is given twice", key.start_mark
            )
        seen.add(key.value)
    return loader.construct_mapping(node, deep=True)


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _construct_mapping)


class Dumper(yaml.SafeDumper):
    """Writes YAML that `Document` reads back unchanged: text that looks like a number is quoted."""


# YAML 1.1 reads 1e-3, which has no dot, as text; in a learning rate it is meant as a number.
_FLOAT = re.compile(r"[-+]?[0-9][0-9_]*(\.[0-9_]*)?[eE][-+]?[0-9]+$")
for _reader_or_writer in (_Loader, Dumper):
    _reader_or_writer.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+0123456789"))


class Document:
    """A YAML file that was read once: its data, and the line of every path in it.

    Args:
        path: the file.
        error: the type of error to raise.
        changed: dotted paths whose values come from the command line.
        options: those of them that have an option of their own, such as --epochs, and were not
            given by --set.

    Raises:
        InputError: of the type `error`, when the file cannot be read or has no mapping.
    """

    def __init__(
        self,
        path: Path,
        error: type[InputError] = StudyError,
        changed: Collection[str] = (),
        options: Collection[str] = (),
    ) -> None:
        self.path = path
        self.changed = tuple(changed)
        self.options = tuple(options)
        text = _read_text(path, error)
        try:
            self.data: Any = yaml.load(text, Loader=_Loader)  # noqa: S506 - a SafeLoader
            self._root = yaml.compose(text, Loader=yaml.SafeLoader)
        except UNREADABLE as problem:
            mark = getattr(problem, "problem_mark", None)
            raise error(
                f"{path.name} is not valid YAML",
                where=f"{path}, line {mark.line + 1}" if mark else str(path),
                found=str(getattr(problem, "problem", problem))[:FOUND_CHARACTERS],
                next_step="fix the YAML syntax",
            ) from None
        if not isinstance(self.data, dict):
            raise error(
                f"{path.name} contains no mapping",
                where=str(path),
                found="nothing" if self.data is None else type(self.data).__name__,
                allowed="keys and values, such as `name: my_study`",
                next_step="start from a shipped study; `search list` names them",
            )

    def find_line(self, place: Place) -> int | None:
        """Find the line of the deepest key of `place` that is in the file."""
        lines = [line for _, line in self._walk_nodes(place)]
        return lines[-1] if lines else None

    def describe_place(self, place: Place) -> str:
        """Describe where a value is from: `a.yaml, line 12, space → loss.gamma`, or an option."""
        line = self.find_line(place)
        parts = [str(self.path), f"line {line}" if line else "", join_place(place)]
        in_file = ", ".join(part for part in parts if part)
        option = find_option(place, self.changed)
        if option is None:
            return in_file
        named = f"--{option}" if option in self.options else f"--set {option}"
        exact = _split_steps([option]) == _split_steps(place)
        return named if exact or not self._contains_place(place) else f"{named}, over {in_file}"

    def _contains_place(self, place: Place) -> bool:
        return len(list(self._walk_nodes(place))) == len(place)

    def _walk_nodes(self, place: Place) -> Iterator[tuple[yaml.Node, int]]:
        """Yield the node and the line of each step of `place`, as far as the file has them."""
        node = self._root
        for step in place:
            child = _find_child(node, step)
            if child is None:
                return
            yield child
            node = child[0]


def _read_text(path: Path, error: type[InputError]) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as problem:
        reason = str(problem.strerror)
    except UnicodeDecodeError:
        reason = "not UTF-8 text"
    raise error(
        f"cannot read {path}",
        where=str(path),
        found=reason,
        next_step="check the path and its permissions",
    )


def join_place(place: Place) -> str:
    """Return a place as it is printed: `space → loss.gamma → low`."""
    return " → ".join(map(str, place))


def find_option(place: Place, changed: Iterable[str]) -> str | None:
    """Find the dotted path from the command line that set a value at, above or below `place`."""
    steps = _split_steps(place)
    for path in changed:
        other = _split_steps([path])
        shared = min(len(steps), len(other))
        if steps[:shared] == other[:shared]:
            return path
    return None


def _split_steps(place: Place) -> list[str]:
    """Split dotted keys as well, and give signals the names that they have now."""
    steps = ".".join(map(str, place)).split(".")
    return [FORMER_SIGNALS.get(step, step) for step in steps]


def _find_child(node: yaml.Node | None, step: str | int) -> tuple[yaml.Node, int] | None:
    if isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
        return node.value[step], node.value[step].start_mark.line + 1
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if str(step) in (key.value, FORMER_SIGNALS.get(key.value)):
                return value, key.start_mark.line + 1
    return None


def check(
    model: type[Model],
    data: Mapping[str, Any],
    source: Document | str,
    error: type[InputError] = StudyError,
) -> Model:
    """Validate `data` as a `model`.

    Raises:
        InputError: of the type `error`, for the first value that is not allowed.
    """
    try:
        return model.model_validate(data)
    except ValidationError as problem:
        raise explain(problem, source, error) from None


def explain(
    problem: ValidationError,
    source: Document | str,
    error: type[InputError] = StudyError,
) -> InputError:
    """Turn the first error of a validation into an `InputError`.

    Args:
        problem: what pydantic raised.
        source: the file, or what the data are called.
        error: the type of error to return.
    """
    first = problem.errors(include_url=False)[0]
    place = [step for index, step in enumerate(first["loc"]) if not (index and step in UNION_TAGS)]
    if first["type"] == "unknown_key":
        place.append(first["ctx"]["key"])
    names = [step for step in place if isinstance(step, str)]
    what, allowed = _describe_error(first, names[-1] if names else "the document")
    unseen = first["type"] in ("unknown_key", "missing")
    steps = _next_step(len(problem.errors()) - 1)
    if first["type"] == "not_a_section":
        steps = f"set one of its keys, such as {allowed.partition(',')[0]}"
    return error(
        what,
        where=_describe_source(source, place),
        place=tuple(map(str, place)),
        found="" if unseen else format_found(first["input"], FOUND_CHARACTERS),
        allowed=allowed,
        next_step=steps,
    )


def _describe_source(source: Document | str, place: Place) -> str:
    if isinstance(source, Document):
        return source.describe_place(place)
    return f"{source}, {join_place(place)}"


def _next_step(others: int) -> str:
    if not others:
        return "fix it and run the command again"
    return f"fix it; {others} more error{'s' if others > 1 else ''} may follow"


def _describe_error(detail: ErrorDetails, name: str) -> tuple[str, str]:
    """Return what is wrong with the value called `name`, and what is allowed."""
    context = detail.get("ctx", {})
    match detail["type"]:
        case "unknown_key":
            return detail["msg"], context["allowed"]
        case "missing":
            return f"the key {name!r} is missing", f"{name}: …"
        case "not_a_section":
            return f"{name} {detail['msg']}", context["allowed"]
        case "dict_type" | "model_type" | "model_attributes_type":
            return f"{name} must be a mapping of keys to values", f"{name}: {{key: value}}"
        case "literal_error":
            allowed = context["expected"].replace("'", "")
            near = nearest(detail["input"], allowed.replace(" or ", ", ").split(", "))
            return f"{name} cannot be {detail['input']!r}{near}", allowed
        case "union_tag_invalid":
            allowed = context["expected_tags"].replace("'", "")
            near = nearest(context["tag"], allowed.split(", "))
            return f"kind cannot be {context['tag']!r}{near}", allowed
        case "union_tag_not_found":
            of_dimension = "float" in str(context) or len(detail["loc"]) > 1
            kinds = "kind: float, kind: int or kind: choice" if of_dimension else "kind: …"
            return f"{name} names no kind", kinds
        case _:
            message = PREFIX.sub("", detail["msg"]).partition(", unable to parse")[0]
            return f"{name}: {message[:1].lower()}{message[1:]}", ""


def shipped_studies() -> dict[str, Path]:
    """Return name → file of the studies that come with the package."""
    return {path.stem: path for path in sorted(SHIPPED.glob("*.yaml"))}


def study_file(name_or_path: str) -> Path:
    """Return the file of a shipped study by its name, or of a study by its path.

    Raises:
        StudyError: when there is neither.
    """
    shipped = shipped_studies()
    if name_or_path in shipped:
        return shipped[name_or_path]
    path = Path(name_or_path)
    if path.suffix in (".yaml", ".yml") or path.exists():
        return path
    raise StudyError(
        f"unknown study {name_or_path!r}{nearest(name_or_path, shipped)}",
        where="--study",
        found=name_or_path,
        allowed=f"{', '.join(shipped)}, or the path of a YAML file",
        next_step="`search list` shows the studies",
    )


def load_study(
    name_or_path: str, changes: Mapping[str, Any] | None = None, options: Collection[str] = ()
) -> StudySpec:
    """Load a study by shipped name or path, with `changes` laid over it.

    Args:
        name_or_path: of the study.
        changes: dotted path of its YAML → value.
        options: those of the paths that were given by an option of their own, such as --epochs,
            and not by --set.

    Raises:
        StudyError: when it cannot be found, read or understood.
    """
    changes = changes or {}
    document = Document(study_file(name_or_path), StudyError, changes, options)
    data = StudySpec.rename_former_keys(document.data)
    if isinstance(data.get("base"), Mapping):
        data["base"] = ConfigTree.from_paths(data["base"]).nested
    tree = ConfigTree(data)
    for path, value in changes.items():
        change = StudySpec.rename_former_keys(_nest_change(path, value))
        tree = tree.overlay(ConfigTree(change))
    return check(StudySpec, tree.nested, document)


def _nest_change(path: str, value: Any) -> Mapping[str, Any]:
    """Nest one change; `space.loss.gamma.low=1` keeps the dimension's dotted name as one key."""
    head, _, rest = path.partition(".")
    if head != "space" or not rest:
        return ConfigTree.from_paths({path: value}).nested
    dimension, _, last = rest.rpartition(".")
    if (isinstance(value, Mapping) and last != "when") or not dimension:
        return {"space": {rest: value}}
    return {"space": {dimension: {last: value}}}


def parse_changes(
    assignments: Sequence[str],
    option: str = "--set",
    example: str = "--set epochs=8, --set base.data.size=64",
) -> dict[str, Any]:
    """Parse `["epochs=8", "base.loss.gamma=1.5"]` into dotted path → YAML value.

    Args:
        assignments: as given on the command line.
        option: by which they were given.
        example: of allowed assignments, for an error.

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
        except UNREADABLE:
            raise StudyError(
                f"{option} cannot read the value",
                where=f"{option} {path}",
                found=text,
                allowed="a YAML value",
                next_step="quote it",
            ) from None
    return changes
