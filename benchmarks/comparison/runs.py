"""Scored runs by what they have in common."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from benchmarks.comparison.plan import Results


@dataclass(frozen=True)
class Group:
    """Runs that differ in their seed alone."""

    task: str
    method: str
    n_train: int
    share: float | None = None
    rank: int | None = None
    steps: int | None = None
    """Where they are not the comparison's."""


class Runs:
    """Scored runs by group and seed."""

    def __init__(self, results: Results) -> None:
        self.groups: dict[Group, dict[int, Mapping[str, Any]]] = {}
        self.rates: dict[Group, float | None] = {}
        for cell, result in results.items():
            if not cell.tuning:
                group = Group(
                    cell.task,
                    cell.method,
                    cell.n_train,
                    cell.share,
                    cell.rank,
                    cell.steps,
                )
                self.groups.setdefault(group, {})[cell.seed] = result
                self.rates[group] = cell.lr

    def find(self, group: Group) -> Group | None:
        """The group itself, or that of a method which has no choice of a share."""
        for candidate in (group, replace(group, share=None)):
            if candidate in self.groups:
                return candidate
        return None

    def values(self, group: Group, read: Callable[[Any], float]) -> list[float]:
        runs = self.groups[group]
        return [read(runs[seed]) for seed in sorted(runs)]

    def paired(
        self, ours: Group, theirs: Group, read: Callable[[Any], float]
    ) -> tuple[list[float], list[float]]:
        """Values of the seeds that both have."""
        a, b = self.groups[ours], self.groups[theirs]
        seeds = sorted(a.keys() & b.keys())
        return [read(a[s]) for s in seeds], [read(b[s]) for s in seeds]


def tested(name: str) -> Callable[[Any], float]:
    return lambda run: float(run["test"][name])


def reader(name: str) -> Callable[[Any], float]:
    return lambda run: float(run[name])


def mean(values: Iterable[float]) -> float:
    some = list(values)
    return sum(some) / len(some)
