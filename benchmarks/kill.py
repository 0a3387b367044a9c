"""Kill training, predicting with two processes, and exporting at random moments.

    python -m benchmarks.kill --kills 20

After every SIGKILL (of the whole process group) each file that is there must open, and
each picture that the ledger claims must be complete; passing files (`.NAME*.part`) are
nobody's. The same command then goes on (training from `last.ckpt`, or anew where
there is none yet) and must end with what an uninterrupted run ended with, and with no
passing file left. One line a kill; exit code 1 if anything was wrong.

Moments are of processor time, and processes are forked from this one: kills fall into
the work, not into the imports.
"""

import argparse
import random
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from benchmarks.killing.cases import (
    Exporting,
    Predicting,
    Training,
    lora_checkpoint,
    preload,
)
from benchmarks.killing.processes import Case, run

FORMS = ("adapter", "depth-anything", "peft", "transformers", "onnx")


@dataclass
class Tally:
    """Kills so far, and what was wrong."""

    wanted: int
    random: random.Random
    kills: int = 0
    faults: list[str] = field(default_factory=list)


def torment(case: Case, tally: Tally, label: str) -> None:
    """Kill a case until it has had its kills and the last run of it has ended."""
    case.begin("reference")
    log = case.folder / "log"
    code, takes = run(case.processes(), log, None)
    assert code == 0, log.read_text()
    case.keep_reference()
    attempts = 0
    while tally.kills < tally.wanted:
        case.begin(f"run{attempts}")
        attempts, untouched, ended = attempts + 1, True, False
        while not ended:
            before = len(tally.faults)
            after = None
            if tally.kills < tally.wanted:
                after = tally.random.uniform(0, takes)
            code, worked = run(case.processes(), log, after)
            if code:
                last = log.read_text().strip().splitlines()[-1:]
                tally.faults.append(f"{label}: went on with code {code}: {last}")
                return
            ended = code is not None
            tally.faults += [f"{label}: {wrong}" for wrong in case.wrong(ended=ended)]
            if ended:
                what = f"{label}: ended as the uninterrupted run did"
                if untouched:
                    # The first one of all imports what the others find there.
                    takes = min(takes, worked)
            else:
                tally.kills, untouched = tally.kills + 1, False
                what = f"{label} {tally.kills}/{tally.wanted}: killed at {worked:.2f} "
                what += f"of {takes:.2f} s, {case.state()}"
                ended = case.complete()
            said = "; ".join(tally.faults[before:]) or "ok"
            print(f"{what}: {said}", flush=True)


def cases(
    kinds: list[str], root: Path, kills: int
) -> Iterator[tuple[str, Callable[[], Case], int]]:
    """Label, how it is made, number of kills."""
    if "training" in kinds:
        yield "training", lambda: Training(root / "training"), kills
    if "predicting" in kinds:
        yield "predicting", lambda: Predicting(root / "predicting"), kills
    if "exporting" in kinds:
        checkpoint = lora_checkpoint(root / "lora")
        for number, form in enumerate(FORMS[-kills:]):
            share = len(range(number, kills, len(FORMS)))
            place = root / form
            yield (
                f"exporting {form}",
                partial(Exporting, place, checkpoint, form),
                share,
            )


def main() -> None:
    """Run the benchmark of the command line."""
    parser = argparse.ArgumentParser(
        "python -m benchmarks.kill",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    every = ["training", "predicting", "exporting"]
    parser.add_argument("--kinds", nargs="+", choices=every, default=every)
    parser.add_argument("--kills", type=int, default=20, help="Of each kind.")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    preload(options.kinds)
    kills: dict[str, int] = {}
    faults: list[str] = []
    with tempfile.TemporaryDirectory() as scratch:
        for label, made, count in cases(options.kinds, Path(scratch), options.kills):
            tally = Tally(count, random.Random(f"{label} {options.seed}"))
            torment(made(), tally, label)
            kind = label.split()[0]
            kills[kind] = kills.get(kind, 0) + tally.kills
            faults += tally.faults
    counts = ", ".join(f"{number} of {kind}" for kind, number in kills.items())
    print(f"{sum(kills.values())} kills ({counts}): {len(faults)} faults")
    for fault in faults:
        print(f"  {fault}")
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
