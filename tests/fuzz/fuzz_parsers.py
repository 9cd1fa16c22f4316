"""The fuzzer's entry: ``python tests/fuzz/fuzz_parsers.py "solver schedule" -runs=100000`` (atheris' own options).

A crash is whatever a parser raises that is none of our exceptions; what it was fed is written beside.
"""

import importlib
import logging
import pathlib
import sys
import warnings

import atheris

sys.path.insert(0, str(pathlib.Path(__file__).parents[2]))

with atheris.instrument_imports(include=["searchlib", "tests"]):
    fuzz = importlib.import_module("tests.fuzz.parsers")


def main():
    """Feed one parser."""
    name, *options = sys.argv[1:]
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    seeds = pathlib.Path(options.pop(0)) if options and not options[0].startswith("-") else None
    if seeds is not None:
        for number, make in enumerate(fuzz.SEEDS[name]):
            (seeds / f"seed {number}").write_bytes(make())
    fuzz.parse(name, fuzz.SEEDS[name][0]())  # imports what it needs, which is no time of any input's
    atheris.Setup([sys.argv[0], *options, *([str(seeds)] if seeds else [])], lambda data: fuzz.parse(name, data))
    atheris.Fuzz()


if __name__ == "__main__":
    main()
