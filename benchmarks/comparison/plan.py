"""Which runs there are, and how each contestant's learning rate is chosen."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from benchmarks.comparison.cell import Cell
from benchmarks.comparison.methods import CONTESTANTS, METHODS, VARIANTS

Part = Literal["methods", "ablations", "scale", "costs"]
Results = Mapping[Cell, Mapping[str, Any]]
PARTS: tuple[Part, ...] = get_args(Part)

GRID = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1.0)
FIRST_RATE = 1e-2


@dataclass(frozen=True)
class Contest:
    """What a learning rate is chosen for."""

    task: str
    method: str
    rank: int | None = None
    """None: at the plan's first share."""


Rates = Mapping[Contest, float]


@dataclass(frozen=True)
class Plan:
    """What a comparison consists of."""

    tasks: Sequence[str] = ("streets", "rooms_camera")
    methods: Sequence[str] = tuple(METHODS)
    variants: Sequence[str] = tuple(VARIANTS)
    frames: Sequence[int] = (64, 256, 1024)
    tuned_at: int = 256
    """Frames that rates are chosen with, and that the smaller budget is compared at."""
    tuning_seeds: Sequence[int] = (1000, 1001)
    """Draw other frames, another order and another start than any scored seed."""
    shares: Sequence[float] = (0.015, 0.005)
    """Trainable parts of all parameters; rates are chosen at the first."""
    seeds: int = 5
    ablated_task: str = "streets"
    ranked: Sequence[str] = ("lava", "lava_none", "lora")
    ranks: Sequence[int] = (1, 4, 8, 32)
    rank_seeds: int = 3
    """Of the ranks, and of the real frames."""
    scaled_task: str = "streets"
    scaled: Sequence[str] = ("head", "lora", "dora", "lava")
    """Methods that are tried at larger ranks and with more steps."""
    scaled_ranks: Sequence[int] = (8, 16)
    scaled_steps: int = 400
    """Beside the comparison's own, with which rates are chosen; of `tuned_at` frames
    alone, for they take long."""
    real_methods: Sequence[str] = (
        "unadapted",
        "calibrated",
        "head",
        "lora_encoder",
        "lora",
        "lava",
    )
    real_rates_of: str = "rooms_camera"

    def contests(self, parts: Iterable[Part]) -> list[Contest]:
        """What has a rate of its own; first the methods, from which ranks start."""
        found = [
            Contest(task, method) for task in self.tasks for method in self.trained()
        ]
        if "ablations" in parts:
            found += [
                Contest(self.ablated_task, method, rank)
                for method in self.ranked
                for rank in self.ranks
            ]
        if "scale" in parts:
            found += [
                Contest(self.scaled_task, method, rank)
                for method, rank in self.scaled_contestants
            ]
        return [*dict.fromkeys(found)]

    def tuning(self, results: Results, parts: Iterable[Part]) -> list[Cell]:
        """The next runs that choosing the rates needs; none where all are chosen."""
        wanted = []
        for contest in self.contests(parts):
            first = FIRST_RATE
            if contest.rank is not None:
                start = Contest(contest.task, contest.method)
                scores = self.validated(results, start)
                if next_rate(scores, FIRST_RATE) is not None:
                    continue  # its start is not chosen yet
                first = best_rate(scores)
            rate = next_rate(self.validated(results, contest), first)
            if rate is not None:
                wanted += self._tuning_cells(contest, rate)
        return wanted

    def validated(self, results: Results, contest: Contest) -> dict[float, float]:
        """delta1 on the validation frames by rate, the mean over the tuning seeds."""
        scores = {}
        for rate in GRID:
            done = [results.get(cell) for cell in self._tuning_cells(contest, rate)]
            found = [run["validation"][-1]["delta1"] for run in done if run]
            if len(found) == len(done):
                scores[rate] = sum(found) / len(found)
        return scores

    def rates(self, results: Results, parts: Iterable[Part]) -> Rates:
        """The best rate of every contest."""
        return {
            contest: best_rate(self.validated(results, contest))
            for contest in self.contests(parts)
        }

    def trained(self) -> list[str]:
        return [name for name in self.methods if METHODS[name].trained]

    def scored(self, rates: Rates, parts: Iterable[Part]) -> list[Cell]:
        """Every run whose scores are reported."""
        cells: list[Cell] = []
        if "methods" in parts:
            cells += self._main(rates)
        if "ablations" in parts:
            cells += self._ablations(rates)
        if "scale" in parts:
            cells += self._scale(rates)
        return [*dict.fromkeys(cells)]

    def real(self, rates: Rates, lengths: Mapping[str, int]) -> list[Cell]:
        """Runs on real frames, at the rates of the task with their range.

        Args:
            rates: Of the methods.
            lengths: Training frames by the task's name.
        """
        cells = []
        for task, n in lengths.items():
            for method in self.real_methods:
                lr = rates.get(Contest(self.real_rates_of, method))
                share = self.shares[0] if has_rank(method) else None
                cells += [
                    Cell(task, method, n, seed, lr, share)
                    for seed in range(self.rank_seeds)
                ]
        return cells

    def _tuning_cells(self, contest: Contest, lr: float) -> list[Cell]:
        by_share = has_rank(contest.method) and contest.rank is None
        share = self.shares[0] if by_share else None
        task, method, rank = contest.task, contest.method, contest.rank
        return [
            Cell(task, method, self.tuned_at, seed, lr, share, rank, tuning=True)
            for seed in self.tuning_seeds
        ]

    def _main(self, rates: Rates) -> list[Cell]:
        cells = []
        for task in self.tasks:
            for method in self.methods:
                lr = rates.get(Contest(task, method))
                for n in self.frames:
                    shares = self.shares if n == self.tuned_at else self.shares[:1]
                    for share in shares if has_rank(method) else [None]:
                        cells += [
                            Cell(task, method, n, seed, lr, share)
                            for seed in range(self.seeds)
                        ]
        return cells

    def _ablations(self, rates: Rates) -> list[Cell]:
        """A variant at the rate of the method that it is one of."""
        task, n = self.ablated_task, self.tuned_at
        cells = []
        for name in self.variants:
            lr = rates[Contest(task, name.split()[0])]
            cells += [
                Cell(task, name, n, seed, lr, self.shares[0])
                for seed in range(self.seeds)
            ]
        for method in self.ranked:
            for rank in self.ranks:
                lr = rates[Contest(task, method, rank)]
                cells += [
                    Cell(task, method, n, seed, lr, rank=rank)
                    for seed in range(self.rank_seeds)
                ]
        return cells

    def _scale(self, rates: Rates) -> list[Cell]:
        """Larger ranks and more steps, with few frames and with many."""
        task = self.scaled_task
        # They take long: a first seed of all tells more than all seeds of the first.
        return [
            Cell(task, method, n, seed, lr, rank=rank, steps=steps)
            for n, steps in self.scaled_runs
            for seed in range(self.rank_seeds)
            for method, rank in self.scaled_contestants
            for lr in [rates[Contest(task, method, rank)]]
        ]

    @property
    def scaled_contestants(self) -> list[tuple[str, int | None]]:
        """Methods with each of the larger ranks, and those that have none."""
        return [
            (method, rank)
            for method in self.scaled
            for rank in (self.scaled_ranks if has_rank(method) else (None,))
        ]

    @property
    def share_and_ranks(self) -> list[int | None]:
        """Ranks that are compared; None is what the first share buys."""
        return [None, *self.scaled_ranks]

    @property
    def scaled_runs(self) -> list[tuple[int, int | None]]:
        """Frames and steps that larger ranks are tried with; None: the comparison's."""
        few, many = min(self.frames), self.tuned_at
        return [*dict.fromkeys([(many, None), (many, self.scaled_steps), (few, None)])]


PHOTOS = Plan(
    tasks=("photos_outdoors", "photos_indoors"),
    methods=(
        *("unadapted", "calibrated", "last_conv", "head", "lora_encoder", "lora"),
        *("lora_orthogonal", "dora", "tucker_1", "svdiff", "lava", "lava_none"),
        *("full", "full_flora"),
    ),
    variants=(),
    frames=(24, 104),
    tuned_at=104,
    shares=(0.015,),
    ablated_task="photos_outdoors",
    scaled_task="photos_outdoors",
)
"""Of photographs, from a base that saw none."""
QUICK = Plan(
    tasks=("streets",),
    methods=("unadapted", "calibrated", "lora", "svdiff", "lava", "full"),
    variants=("lava uniform",),
    frames=(8,),
    tuned_at=8,
    tuning_seeds=(1000,),
    shares=(0.015,),
    seeds=2,
    ranked=("lava",),
    ranks=(2,),
    rank_seeds=2,
    scaled=("lora", "lava"),
    scaled_ranks=(2,),
    scaled_steps=8,
    real_methods=("unadapted", "lava"),
    real_rates_of="streets",
)


def has_rank(method: str) -> bool:
    return CONTESTANTS[method].has_rank


def next_rate(scores: Mapping[float, float], first: float) -> float | None:
    """Climb the grid: the next rate to try, None where the best has worse neighbours.

    From the first one, as far as the scores rise.
    """
    if not scores:
        return first
    at = GRID.index(best_rate(scores))
    near = [GRID[i] for i in (at - 1, at + 1) if 0 <= i < len(GRID)]
    return next((rate for rate in near if rate not in scores), None)


def best_rate(scores: Mapping[float, float]) -> float:
    """The rate of the highest score, the smaller one of equals."""
    return max(sorted(scores), key=lambda rate: scores[rate])
