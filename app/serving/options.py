"""What the service can be told, and its command line."""

import argparse
import os
from dataclasses import dataclass, field, fields
from typing import Any

from app.prediction.options import (
    CHOICES,
    Accelerator,
    Precision,
    Prediction,
    Source,
    flag,
)
from app.prediction.parser import HELP as PREDICTION_HELP
from app.prediction.parser import OneLine
from datamodules.errors import DataError
from datamodules.files.depths.writing import Colormap
from datamodules.files.images.headers import Exif
from datamodules.sizes import Shrink
from models.artefacts import Engine

KEYS, ADMIN = "LAVA_API_KEYS", "LAVA_ADMIN_TOKEN"
"""Environment variables; options would be seen by everybody on the machine."""

DESCRIPTION = f"""Serve depth over HTTP: POST a picture to /v1/depth.

{KEYS} in the environment (separated by commas) are asked for as `Authorization: Bearer
KEY`, if it is set; {ADMIN} is what changing adapters asks for."""


LARGEST = 1e9
"""Nothing that is counted here is as much: seconds, megabytes, megapixels, requests."""


@dataclass(frozen=True)
class Limits:
    """How much is taken from one client, and for how long."""

    deadline: float = 30.0
    """Seconds from the head of a request to its answer."""
    max_mb: float = 16.0
    """Of a request's body, in 1e6 bytes."""
    max_adapter_mb: float = 512.0
    """Likewise of one that brings an adapter."""
    max_megapixels: float = 50.0
    """Of a picture, before it is decoded."""
    max_requests: int = 256
    """At one time, whatever they wait for."""

    def __post_init__(self) -> None:
        for option in fields(self):
            if not 0 < (given := getattr(self, option.name)) < LARGEST:
                raise DataError(
                    f"{flag(option.name)} {given} must be above 0 and below "
                    f"{LARGEST:.0f}"
                )

    @property
    def max_bytes(self) -> int:
        return int(self.max_mb * 1e6)

    @property
    def max_adapter_bytes(self) -> int:
        return int(self.max_adapter_mb * 1e6)

    @property
    def max_pixels(self) -> int:
        return int(self.max_megapixels * 1e6)


@dataclass(frozen=True)
class Serving:
    """Where to serve, and how."""

    adapters: str | None = None
    rescan: float = 0.0
    """Seconds between one look into that folder and the next; 0 for none."""
    host: str = "127.0.0.1"
    port: int = 8000
    size: str | None = None
    shrink: Shrink | None = None
    exif: Exif = "apply"
    colormap: Colormap = "turbo"
    precision: Precision = "32-true"
    engine: Engine | None = None
    accelerator: Accelerator = "auto"
    batch_size: int = 8
    workers_decode: int = 2

    def __post_init__(self) -> None:
        if not 0 <= self.port < 2**16:
            raise DataError(f"--port {self.port} is no port; give one up to 65535")
        if not 0 <= self.rescan < LARGEST or (self.rescan and self.adapters is None):
            raise DataError(
                f"--rescan {self.rescan:g} must be at least 0 seconds and below "
                f"{LARGEST:.0f}, and needs --adapters DIR"
            )
        if self.workers_decode < 1:
            raise DataError(
                f"--workers-decode {self.workers_decode} must be at least 1"
            )
        self.prediction()

    def prediction(self) -> Prediction:
        """What predict.py would be told, whose rules for each of these hold here."""
        return Prediction(
            size=self.size,
            shrink=self.shrink,
            exif=self.exif,
            colormap=self.colormap,
            precision=self.precision,
            engine=self.engine,
            accelerator=self.accelerator,
            batch_size=self.batch_size,
        )


@dataclass(frozen=True)
class Secrets:
    """Who may ask, and who may change adapters; not part of any text or log."""

    keys: tuple[str, ...] = field(default=(), repr=False)
    """Empty: everybody may ask."""
    admin: str | None = field(default=None, repr=False)
    """None: nobody may."""

    @classmethod
    def of_environment(cls) -> "Secrets":
        """Those of `LAVA_API_KEYS` and `LAVA_ADMIN_TOKEN`.

        Raises:
            DataError: If one is set and says nothing, which is not meant as `nobody`.
        """
        for name in (KEYS, ADMIN):
            if name in os.environ and not os.environ[name].replace(",", " ").strip():
                raise DataError(f"{name} is set, but empty; unset it, or set a secret")
        keys = tuple(filter(None, map(str.strip, os.environ.get(KEYS, "").split(","))))
        admin = os.environ.get(ADMIN)
        return cls(keys, None if admin is None else admin.strip())


HELP = {
    **{name: PREDICTION_HELP[name] for name in ("model", "network", "base")},
    **{name: PREDICTION_HELP[name] for name in ("size", "shrink", "exif")},
    **{name: PREDICTION_HELP[name] for name in ("precision", "engine")},
    "colormap": "Of the format color.",
    "adapters": PREDICTION_HELP["adapters"]
    + " A request names its own, ?adapter=NAME.",
    "rescan": "Look into that folder every so many seconds, load what is new or "
    "changed, and remove what has gone; 0 for never.",
    "host": "Address to listen at; 0.0.0.0 lets other machines in.",
    "port": "Likewise; 0 takes a free one.",
    "accelerator": "cpu, gpu or auto.",
    "batch_size": "Pictures at a time, of one input shape and any adapters.",
    "workers_decode": "Threads that decode pictures, and as many that encode answers.",
    "deadline": "Seconds in which a request is answered, or refused.",
    "max_mb": "Largest body of a request, in megabytes.",
    "max_adapter_mb": "Likewise of one that uploads an adapter.",
    "max_megapixels": "Largest picture, refused before it is decoded.",
    "max_requests": "At one time; more are refused.",
}
TYPES = {
    **dict.fromkeys(("port", "batch_size", "workers_decode", "max_requests"), int),
    "rescan": float,
    **dict.fromkeys(("deadline", "max_mb", "max_adapter_mb", "max_megapixels"), float),
}


def parse(
    args: list[str] | None,
    program: str = "python -m app.serving",
    description: str = DESCRIPTION,
) -> tuple[Source, Serving, Limits]:
    """Which network, where, how, and how much.

    Args:
        args: None for the command line's.
        program: For the help text, as is the next.
        description: What it does.

    Raises:
        UserError: For values that no parser's type tells apart.
    """
    parser = OneLine(
        program,
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    for kind in (Source, Serving, Limits):
        group = parser.add_argument_group(str(kind.__doc__).rstrip("."))
        for option in fields(kind):
            group.add_argument(flag(option.name), **_argument(option.name, option))
    given = vars(parser.parse_args(args))
    source, serving, limits = (
        {option.name: given[option.name] for option in fields(kind)}
        for kind in (Source, Serving, Limits)
    )
    return Source(**source), Serving(**serving), Limits(**limits)


def _argument(name: str, option: Any) -> dict[str, Any]:
    if name == "model":
        return {"required": True, "metavar": "MODEL", "help": HELP[name]}
    said = "" if option.default is None else f" [{option.default}]"
    found = {"help": HELP[name] + said, "default": option.default}
    if name in CHOICES:
        return {**found, "choices": CHOICES[name]}
    return {**found, "type": TYPES.get(name, str), "metavar": name.upper()}
