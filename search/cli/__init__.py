"""The command line interface: one file per command, named as the command.

Where the work itself is in a file of that name (`search/export.py`), the command's file ends in
`_command`. A command reads its options, calls the package that does the work, and passes the
result to the console. Heavy libraries are imported inside the commands, so that `search --help`
does not wait for Optuna, SQLAlchemy or torch.
"""

from search.cli.app import app
from search.cli.entry_point import main

__all__ = ["app", "main"]
