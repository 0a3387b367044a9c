"""The options of a run: kept in its checkpoints, compared when one is opened."""

import re
from collections.abc import Mapping
from functools import cached_property
from typing import Any

import jsonargparse
import yaml
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.cli import LightningArgumentParser, SaveConfigCallback
from lightning.pytorch.utilities import rank_zero_only

from app.training.folder import OPTIONS as RUN_OPTIONS
from app.training.folder import RunCallback
from datamodules.files.whole import write_bytes

OPTIONS = "options"
"""Under this key a checkpoint has the options of the run that wrote it."""
PLACES = (
    *("config", "ckpt_path", "trainer.logger", "trainer.default_root_dir"),
    *("checkpoint.dirpath", "recovery.dirpath"),
)
"""Options that say where a run is, not what it does."""
NO_EFFECT = re.compile(r"model\.(adapters\..+\.)?start_depth")
"""Options of a beginning, which a run that goes on has behind it."""

Options = dict[str, Any]
"""Values by dotted name; an option that is an object has its class under its own name
and what the class takes below it."""


def flat(parser: LightningArgumentParser, config: jsonargparse.Namespace) -> Options:
    """All options of a command in plain types."""
    content = yaml.safe_load(parser.dump(config, skip_unset=False))
    found: Options = {}
    _flatten(content, config, "", found)
    return {name: value for name, value in found.items() if not _below(name, PLACES)}


def changes(
    now: Options, before: Options, among: tuple[str, ...] | None = None
) -> dict[str, str]:
    """What each option that differs is here and was there, by its name.

    Args:
        now: Of this command.
        before: Of a run; an option that it did not have yet is left out.
        among: Beginnings of the names to compare; None compares all.
    """
    found: dict[str, str] = {}
    for name in sorted(now.keys() & before.keys()):
        # What another class takes is another thing.
        known = among is None or _below(name, among)
        if known and now[name] != before[name] and not _below(name, tuple(found)):
            found[name] = f"{name} is {now[name]}, not {before[name]}"
    return found


def resumed(now: Options, checkpoint: Mapping[str, Any]) -> list[str]:
    """Lines that say in which options a run goes on otherwise than it began."""
    found = changes(now, checkpoint.get(OPTIONS, {}))
    idle = [found.pop(name) for name in list(found) if NO_EFFECT.fullmatch(name)]
    lines = [f"other options than before: {'; '.join(found.values())}"] if found else []
    if idle:
        lines.append(f"without effect, since training has begun: {'; '.join(idle)}")
    return lines


def scored(now: Options, checkpoint: Mapping[str, Any]) -> list[str]:
    """Lines that say in which options a network is scored otherwise than trained.

    Those of the trainer are not compared, and a change of the adapter is the module's
    own to tell.
    """
    found = changes(now, checkpoint.get(OPTIONS, {}), ("model", "data"))
    told = [
        text for name, text in found.items() if not _below(name, ("model.adapter",))
    ]
    return [f"other options than in training: {'; '.join(told)}"] if told else []


class KeepOptions(SaveConfigCallback, RunCallback):
    """The resolved options go into a run's folder, and into its checkpoints.

    Not before the checkpoint of a resumed run has been found to fit: what is refused
    leaves the folder's records as they were.
    """

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        pass

    @rank_zero_only
    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.folder is not None:
            text = self.parser.dump(self.config, skip_unset=False)
            write_bytes(self.folder / RUN_OPTIONS, text.encode())

    @cached_property
    def options(self) -> Options:
        """As they were given: nothing that a run does changes them."""
        return flat(self.parser, self.config)

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        checkpoint[OPTIONS] = self.options


def _flatten(content: Any, shape: Any, name: str, found: Options) -> None:
    """Add the options below a name; `class_path` is the option's own value.

    Args:
        content: In plain types, where groups of options and mappings look alike.
        shape: The same as it was parsed, where they do not.
        name: So far.
        found: Added to.
    """
    if not _has_options(shape) or content is None:
        found[name] = content
        return
    if "class_path" in content:
        found[name] = content["class_path"]
        content, shape = content.get("init_args") or {}, shape.get("init_args")
    for key, value in content.items():
        _flatten(value, shape[key], f"{name}.{key}".lstrip("."), found)


def _has_options(shape: Any) -> bool:
    """Whether it is a group of options, or a mapping to such."""
    if isinstance(shape, dict):
        return bool(shape) and all(map(_has_options, shape.values()))
    return isinstance(shape, jsonargparse.Namespace)


def _below(name: str, places: tuple[str, ...]) -> bool:
    return any(name == place or name.startswith(f"{place}.") for place in places)
