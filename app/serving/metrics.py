"""What Prometheus is told: how much is asked, what waits, what takes how long."""

from collections.abc import Callable

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
)

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class Metrics:
    """The counters of one service."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "lava_requests",
            "Requests for depth, by status and adapter.",
            ["status", "adapter"],
            registry=self.registry,
        )
        self.batch_size = Histogram(
            "lava_batch_size",
            "Pictures in a batch.",
            buckets=(1, 2, 4, 8, 16, 32, 64),
            registry=self.registry,
        )
        self.stage = Histogram(
            "lava_stage_seconds",
            "Time by stage: read, decode, predict (with waiting), network (a batch), "
            "encode, whole.",
            ["stage"],
            buckets=SECONDS,
            registry=self.registry,
        )

    def watch(self, name: str, what: str, value: Callable[[], float]) -> None:
        """Let a gauge be asked for whenever Prometheus asks."""
        Gauge(f"lava_{name}", what, registry=self.registry).set_function(value)

    def taken(self, stage: str) -> Callable[[float], None]:
        """What notes the seconds of a stage."""
        return self.stage.labels(stage).observe

    def text(self) -> bytes:
        """In Prometheus' text format 0.0.4."""
        return generate_latest(self.registry)
