"""train.py: what can be answered before torch and Lightning are imported, and the rest.

Their import takes seconds of processor time, which nobody waits for to read a help page
or to learn of a typing error.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from app import version
from app.errors import fail, one_line_errors
from app.training.repeated import check_once

CONFIGS = Path(__file__).parents[2] / "configs"
CHECK, SCORE = "check", "score"
COMMANDS = {
    "fit": "train, validate and keep checkpoints",
    "validate": "score a checkpoint on the validation frames",
    "test": "score a checkpoint by the data set's protocol: table and test_*.json",
    SCORE: "score depth maps of any program by the data set's protocol",
    CHECK: "look at the data: frames, sizes, depths, and what is suspicious of them",
}
CONFIG_OPTIONS = ("-c", "--config")
SELF_EXPLAINING = ("-h", "--help", "--print_config")


@one_line_errors
def main(args: Sequence[str] | None = None) -> None:
    """Run one command, from `args` or the command line."""
    given = sys.argv[1:] if args is None else list(args)
    if given[:1] in (["-h"], ["--help"]):
        print(page())
        return
    if given[:1] == ["--version"]:
        print(version.told())
        return
    place = check(given)
    if given[place] == CHECK:
        from app.training import check_cli

        check_cli.run(given[:place] + given[place + 1 :])
        return
    if given[place] == SCORE:
        from app.training import score_cli

        score_cli.run(given[:place] + given[place + 1 :])
        return
    from app.training import making

    making.run(given, given[place])


def page() -> str:
    """The help page of train.py itself."""
    recipes = ", ".join(sorted(path.stem for path in CONFIGS.glob("*.yaml")))
    lines = [f"  {name:<10}{text}" for name, text in COMMANDS.items()]
    return "\n".join(
        [
            f"usage: python train.py {{{','.join(COMMANDS)}}} --config FILE [options]",
            "",
            *lines,
            "",
            "options of a command:",
            "  --config FILE       a recipe; several stack, the later ones overrule",
            "  --ckpt_path FILE    go on from it (fit), or score it; last and best are",
            "                      those of the recipe's newest run",
            "  --print_config      the resolved recipe",
            "  --help              every option; --model.help CLASS, --data.help CLASS",
            "  --version           without a command: versions, for reports",
            "",
            f"recipes in configs/: {recipes};",
            "adapters to stack on them: configs/adapters/*.yaml",
            "photographs without truth: python predict.py --help",
        ]
    )


def check(given: Sequence[str]) -> int:
    """Where the command stands; ends with one line without such, or such a recipe."""
    place = _command_at(given)
    known = ", ".join(COMMANDS)
    if place is None:
        fail(f"no command is given; use one of {known}; see train.py --help")
    command, options = given[place], given[place + 1 :]
    if command not in COMMANDS:
        hint = "; photographs are for predict.py" if command == "predict" else ""
        fail(f"{command!r} is no command; use one of {known}{hint}; see train.py -h")
    recipes = list(_configs(given))
    for name in recipes:
        # Several lines are a recipe in themselves.
        if "\n" not in name and ":" not in name and not Path(name).is_file():
            near = ", ".join(sorted(path.name for path in CONFIGS.glob("*.yaml")))
            fail(f"--config {name}: there is no such file; configs/ has {near}")
        if "\n" not in name and ":" not in name:
            check_once(name)
    told = any(option.startswith(("--model", "--data")) for option in options)
    if not recipes and not told and not set(options) & set(SELF_EXPLAINING):
        fail(f"{command} needs a recipe, such as --config configs/demo.yaml")
    return place


def _command_at(given: Sequence[str]) -> int | None:
    """Where the command stands: the first word that is no option's value."""
    place = 0
    while place < len(given):
        word = given[place]
        if not word.startswith("-"):
            return place
        place += 2 if word in CONFIG_OPTIONS else 1
    return None


def _configs(given: Sequence[str]) -> list[str]:
    """Values of every --config."""
    values: list[str] = []
    for i, word in enumerate(given):
        if word in CONFIG_OPTIONS:
            if i + 1 == len(given):
                fail(f"{word} needs the name of a file; see train.py --help")
            values.append(given[i + 1])
        elif word.startswith("--config="):
            values.append(word.partition("=")[2])
    return values
