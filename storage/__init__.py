"""Durable memory of the studies: a database, and the folder of files next to it.

The names below are the public ones. They are imported at first use.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from storage.location import StoreLocation
    from storage.store import Store
else:
    from spaces.lazy_exports import lazy_exports

    __getattr__ = lazy_exports(
        __name__,
        {
            "storage.location": ("StoreLocation",),
            "storage.store": ("Store",),
        },
    )

__all__ = ["Store", "StoreLocation"]
