"""Durable memory of the studies: a database, and the folder of files next to it.

The names below are the public ones. They are imported at first use.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from storage.store import Store, open_store
else:
    from spaces.lazy_exports import lazy_exports

    __getattr__ = lazy_exports(
        __name__,
        {
            "storage.store": ("Store", "open_store"),
        },
    )

__all__ = ["Store", "open_store"]
