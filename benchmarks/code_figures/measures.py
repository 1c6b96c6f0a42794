"""What is measured in the code. Each measure finds the places that its figures count."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import PurePosixPath

from benchmarks.code_figures.sources import Place, Source

MAX_LINE = 100
ADDRESS_NAMES = ("url", "store_url")
ADDRESS_TYPES = ("str", "str | None", "Optional[str]")
Function = ast.FunctionDef | ast.AsyncFunctionDef


def line_lengths(sources: Sequence[Source]) -> list[int]:
    """Characters of every non-blank line."""
    lines = chain.from_iterable(source.lines for source in sources)
    return [len(line) for line in lines if line.strip()]


def long_lines(sources: Sequence[Source]) -> list[Place]:
    """Lines of more than 100 characters."""
    return list(_find_lines(sources, lambda line: len(line) > MAX_LINE))


def skipped_formats(sources: Sequence[Source]) -> list[Place]:
    """Lines that ask the formatter to leave a statement as it is."""
    return list(_find_lines(sources, lambda line: "# fmt: skip" in line))


def file_lengths(sources: Sequence[Source]) -> list[Place]:
    """Lines of every file that has any, the longest first."""
    found = [Place(source.path, 1, "lines", len(source.lines)) for source in sources if source.text]
    return _largest_first(found)


def function_lengths(sources: Sequence[Source]) -> list[Place]:
    """Lines of every function from `def` on without its docstring, the longest first."""
    found = [
        Place(source.path, node.lineno, node.name, _function_length(node))
        for source, node in _find_functions(sources)
    ]
    return _largest_first(found)


def function_names(sources: Sequence[Source]) -> list[Place]:
    """Every function that its author named, by its name without leading underscores.

    Special methods (`__len__`) are left out, for Python named them. Names that a library fixes,
    such as torch's `forward`, count: they are few, and no file lists them.
    """
    return [
        Place(source.path, node.lineno, node.name.strip("_"))
        for source, node in _find_functions(sources)
        if not node.name.startswith("__")
    ]


def single_words(sources: Sequence[Source]) -> list[Place]:
    """Functions whose name has no underscore between its parts."""
    return [place for place in function_names(sources) if "_" not in place.what]


def address_functions(sources: Sequence[Source]) -> list[Place]:
    """Functions with a parameter `url` or `store_url` that is a plain string."""
    return [
        Place(source.path, node.lineno, node.name)
        for source, node in _find_functions(sources)
        if any(map(_is_address, _parameters(node)))
    ]


def public_methods(sources: Sequence[Source], package: str = "storage") -> list[Place]:
    """How many public methods every class of the package has, the most first.

    Properties count, and so does what a class inherits from another one of the package.
    """
    owners = [source for source in sources if source.package == package]
    nodes = [(source, node) for source, node in _walk(owners) if isinstance(node, ast.ClassDef)]
    classes = {node.name: node for _, node in nodes}
    found = [
        Place(source.path, node.lineno, node.name, len(_public_names(node.name, classes)))
        for source, node in nodes
    ]
    return _largest_first(found)


def loose_files(sources: Sequence[Source], package: str = "search") -> list[Place]:
    """Files directly in the package's folder, dunder files aside."""
    paths = [PurePosixPath(source.path) for source in sources]
    own = [path for path in paths if path.parent.as_posix() == package]
    return [Place(path.as_posix(), 1, path.name) for path in own if not path.name.startswith("__")]


def repeated_names(sources: Sequence[Source]) -> list[Place]:
    """Base names that more than one file of a package has, dunder files aside."""
    paths = [PurePosixPath(source.path) for source in sources]
    named = [path for path in paths if not path.name.startswith("__")]
    counts = Counter((path.parts[0], path.name) for path in named)
    found = [
        Place(path.as_posix(), 1, path.name, counts[path.parts[0], path.name]) for path in named
    ]
    return [place for place in found if place.size > 1]


def tuple_assignments(sources: Sequence[Source]) -> list[Place]:
    """Assignments of several values to several names in one statement."""
    return _find_nodes(sources, _is_tuple_assignment)


def conditional_expressions(sources: Sequence[Source]) -> list[Place]:
    """`a if condition else b`."""
    return _find_nodes(sources, lambda node: isinstance(node, ast.IfExp))


def comprehensions(sources: Sequence[Source]) -> list[Place]:
    """Comprehensions and generator expressions."""
    kinds = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
    return _find_nodes(sources, lambda node: isinstance(node, kinds))


def _find_lines(sources: Sequence[Source], wanted: Callable[[str], bool]) -> Iterator[Place]:
    for source in sources:
        for number, line in enumerate(source.lines, 1):
            if wanted(line):
                yield Place(source.path, number, line.strip(), len(line))


def _walk(sources: Sequence[Source]) -> Iterator[tuple[Source, ast.AST]]:
    for source in sources:
        for node in ast.walk(source.tree):
            yield source, node


def _find_nodes(sources: Sequence[Source], wanted: Callable[[ast.AST], bool]) -> list[Place]:
    found = [
        Place(source.path, node.lineno, source.lines[node.lineno - 1].strip())
        for source, node in _walk(sources)
        if isinstance(node, ast.stmt | ast.expr) and wanted(node)
    ]
    return sorted(found, key=lambda place: (place.path, place.line))


def _find_functions(sources: Sequence[Source]) -> Iterator[tuple[Source, Function]]:
    for source, node in _walk(sources):
        if isinstance(node, Function):
            yield source, node


def _largest_first(places: list[Place]) -> list[Place]:
    return sorted(places, key=lambda place: -place.size)


def _function_length(node: Function) -> int:
    docstring = node.body[0] if ast.get_docstring(node) is not None else None
    return _lines_of(node) - (0 if docstring is None else _lines_of(docstring))


def _lines_of(node: ast.stmt) -> int:
    return (node.end_lineno or node.lineno) - node.lineno + 1


def _parameters(node: Function) -> list[ast.arg]:
    return [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]


def _is_address(parameter: ast.arg) -> bool:
    annotation = parameter.annotation and ast.unparse(parameter.annotation)
    return parameter.arg in ADDRESS_NAMES and annotation in ADDRESS_TYPES


def _public_names(name: str, classes: Mapping[str, ast.ClassDef]) -> set[str]:
    """The public methods of a class and of those that it inherits from."""
    if name not in classes:
        return set()
    node = classes[name]
    methods = {item.name for item in node.body if isinstance(item, Function)}
    public = {method for method in methods if not method.startswith("_")}
    bases = [ast.unparse(base).split(".")[-1].partition("[")[0] for base in node.bases]
    return public.union(*(_public_names(base, classes) for base in bases))


def _is_tuple_assignment(node: ast.AST) -> bool:
    if not isinstance(node, ast.Assign) or not isinstance(node.value, ast.Tuple):
        return False
    return any(isinstance(target, ast.Tuple) for target in node.targets)
