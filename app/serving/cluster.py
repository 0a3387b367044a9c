"""`python -m app.serving.cluster`: the same service on Ray Serve, on many machines.

Each replica is the whole service with a network of its own: its batcher, its limits,
its answers and errors. Ray Serve spreads requests over them, starts more under load,
and another where one has died. Adapters lie in a folder that all machines see; each
replica looks into it every `--rescan` seconds.
"""

from dataclasses import dataclass, replace

from app.errors import one_line_errors
from app.prediction.options import Source
from app.prediction.parser import OneLine
from app.serving.__main__ import NEEDS
from app.serving.options import Limits, Secrets, Serving, parse
from datamodules.errors import DataError
from datamodules.extras import check_installed
from models.artefacts.published.sources import check_source

RESCAN_S = 5.0
DESCRIPTION = "Serve depth on the machines of a Ray cluster, or on this one alone."


@dataclass(frozen=True)
class Replicas:
    """How many copies of the service, and what each needs."""

    min_replicas: int = 1
    max_replicas: int = 4
    cpus: float = 2.0
    gpus: float = 0.0

    def __post_init__(self) -> None:
        if not 1 <= self.min_replicas <= self.max_replicas:
            raise DataError(
                f"--min-replicas {self.min_replicas} and --max-replicas "
                f"{self.max_replicas} must be at least 1, in this order"
            )


@one_line_errors
def main(args: list[str] | None = None) -> None:
    """Join the cluster of `RAY_ADDRESS`, or begin one here, and serve until Ctrl-C."""
    replicas, rest = _parse(args)
    source, serving, limits = parse(rest, "python -m app.serving.cluster", DESCRIPTION)
    check_installed("a cluster", "cluster", *NEEDS, "ray")
    check_source(source.model)
    start(source, serving, limits, replicas, blocking=True)


def start(
    source: Source,
    serving: Serving,
    limits: Limits,
    replicas: Replicas,
    *,
    blocking: bool,
) -> None:
    """Serve at `serving.host` and `serving.port` of every machine.

    Keys are read by each replica from the environment of its own machine.

    Raises:
        UserError: If the model cannot be opened here.
    """
    from ray import serve
    from ray.serve.config import HTTPOptions, ProxyLocation

    from app.serving.app import create_app
    from app.serving.server import open_service

    serving = replace(serving, rescan=serving.rescan or RESCAN_S)

    def build() -> object:
        service, folder = open_service(source, serving, limits)
        secrets = Secrets.of_environment()
        return create_app(service, folder, limits, secrets, shared=True)

    deployment = serve.deployment(
        name="depth",
        ray_actor_options={"num_cpus": replicas.cpus, "num_gpus": replicas.gpus},
        autoscaling_config={
            "min_replicas": replicas.min_replicas,
            "max_replicas": replicas.max_replicas,
            # A batch that is computed, and one that waits.
            "target_ongoing_requests": 2 * serving.batch_size,
        },
        max_ongoing_requests=limits.max_requests,
        max_queued_requests=limits.max_requests,
        graceful_shutdown_timeout_s=limits.deadline,
        health_check_period_s=5,
    )(serve.ingress(build)())
    serve.start(
        ProxyLocation.EveryNode,
        HTTPOptions(
            host=serving.host,
            port=serving.port,
            request_timeout_s=limits.deadline + 1,
        ),
    )
    serve.run(deployment.bind(), blocking=blocking)


def _parse(args: list[str] | None) -> tuple[Replicas, list[str]]:
    """How many replicas, and the arguments that are the service's own."""
    parser = OneLine("python -m app.serving.cluster", add_help=False)
    parser.add_argument("--min-replicas", type=int, default=Replicas.min_replicas)
    parser.add_argument("--max-replicas", type=int, default=Replicas.max_replicas)
    parser.add_argument("--cpus", type=float, default=Replicas.cpus)
    parser.add_argument("--gpus", type=float, default=Replicas.gpus)
    found, rest = parser.parse_known_args(args)
    return Replicas(**vars(found)), rest


if __name__ == "__main__":
    main()
