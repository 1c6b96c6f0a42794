"""The benchmark of search methods: the same budget of epochs for each, on tasks that cost nothing.

A task answers with a learning curve from a surrogate or a table instead of a training; a method
decides which trial trains up to which epoch. `python -m benchmarks.search` runs every method on
every task with the same seeds, and compares the configurations that they would export.
"""
