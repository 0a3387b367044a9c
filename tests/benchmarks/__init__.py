"""Tests of the benchmarks; `python -m tests.benchmarks.NAME` still starts them."""

from pathlib import Path

# Where the benchmarks were: their old module names lead to the files' new place.
__path__.append(str(Path(__file__).parents[2] / "benchmarks"))
