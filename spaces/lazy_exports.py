"""Public names of a package, imported at first use, so that importing the package stays light."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def lazy_exports(
    package: str, names_by_module: Mapping[str, tuple[str, ...]]
) -> Callable[[str], Any]:
    """Make a module's `__getattr__` (PEP 562) that imports a public name when it is first used.

    Args:
        package: the package whose names they are.
        names_by_module: module → the public names that it defines.
    """
    modules: dict[str, str] = {}
    for module, names in names_by_module.items():
        modules |= dict.fromkeys(names, module)

    def __getattr__(name: str) -> Any:  # noqa: N807 - the module's own
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}", name=name)
        value = getattr(import_module(modules[name]), name)
        setattr(sys.modules[package], name, value)
        return value

    return __getattr__
