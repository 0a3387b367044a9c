"""What a shell completes both commands' options from: `python -m app.completion`.

The script is made once and knows every option of every command and class of ours; it
starts no Python while one types.
"""

import argparse

from app.errors import one_line_errors
from app.prediction.parser import OneLine
from app.prediction.parser import parser as predict_parser
from datamodules.extras import check_installed

DESCRIPTION = """Print a script that completes ./train.py and ./predict.py:

    python -m app.completion bash > ~/.lava-completion && source ~/.lava-completion

and likewise for zsh and tcsh."""
SHELLS = ("bash", "zsh", "tcsh")
FILES = ("--config", "--ckpt_path", "--data.csv", "--model.weights")
FOLDERS = ("--data.root", "--data.val_root", "--predictions", "--output", "--export")


@one_line_errors
def main(args: list[str] | None = None) -> None:
    """Print the script for one shell."""
    parser = OneLine(
        "python -m app.completion",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("shell", choices=SHELLS)
    shell = parser.parse_args(args).shell
    check_installed("completion", "completion", "shtab")
    import shtab

    for each in (train_parser(), with_paths(predict_parser())):
        print(shtab.complete(each, shell))


def train_parser() -> argparse.ArgumentParser:
    """Commands of train.py with the names of their options, and nothing behind them."""
    from app.training.command import COMMANDS
    from app.training.describing import options_of

    whole = argparse.ArgumentParser("train.py")
    commands = whole.add_subparsers()
    for command, text in COMMANDS.items():
        own = commands.add_parser(command, help=text)
        for names, about, choices in options_of(command):
            own.add_argument(*names, help=about, choices=choices)
        with_paths(own)
    return whole


def with_paths(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """The same parser, whose options that name files complete them."""
    import shtab

    for action in parser._actions:
        if set(action.option_strings) & {*FILES}:
            action.complete = shtab.FILE  # type: ignore[attr-defined]
        elif set(action.option_strings) & {*FOLDERS}:
            action.complete = shtab.DIRECTORY  # type: ignore[attr-defined]
        elif not action.option_strings and action.dest == "images":
            action.complete = shtab.FILE  # type: ignore[attr-defined]
    return parser


if __name__ == "__main__":
    main()
