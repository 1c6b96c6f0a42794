"""`python -m search.cli`, which workers are started by."""

from search.cli import main

main()
