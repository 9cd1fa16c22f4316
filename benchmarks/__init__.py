"""Benchmarks: one file per table of a paper; ``python -m benchmarks`` lists and runs them.

A benchmark is a module with three names::

    DESCRIPTION: str                               one line for the listing (a plain string literal)
    add_arguments(parser) -> None                  its own options
    run(arguments) -> benchmarks.table.Table       does the work; ``arguments`` has preset, seeds and its options
"""
