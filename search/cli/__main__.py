"""`python -m search.cli`: the command with which launchers start workers."""

from search.cli import main

main()
