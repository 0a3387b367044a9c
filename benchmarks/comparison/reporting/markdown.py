"""Numbers and tables in Markdown."""

import math
from collections.abc import Iterable, Sequence

from benchmarks.comparison.reporting.statistics import Estimate


def section(title: str, *paragraphs: str) -> str:
    return "\n\n".join((f"## {title}", *paragraphs))


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def plus_minus(found: Estimate, *, sign: bool = False, digits: int = 3) -> str:
    if math.isnan(found.mean):
        return ""
    plus = "+" if sign else ""
    half = "" if math.isnan(found.half) else f" ± {found.half:.{digits}f}"
    return f"{found.mean:{plus}.{digits}f}{half}"


def p_text(p: float) -> str:
    if math.isnan(p):
        return ""
    return "<.001" if p < 0.001 else f"{p:.3f}".lstrip("0")


def percent(part: float, digits: int = 1) -> str:
    return f"{100 * part:.{digits}f} %"
