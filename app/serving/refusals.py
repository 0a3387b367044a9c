"""What a request can be refused for: a status of HTTP and one sentence."""


class RefusedError(Exception):
    """Why there is no depth for a request.

    Args:
        status: Of HTTP.
        sentence: What was given, what is allowed, what to do.
        retry_after_s: When it is worth asking again; None where it never is.
    """

    def __init__(
        self, status: int, sentence: str, retry_after_s: float | None = None
    ) -> None:
        super().__init__(sentence)
        self.status, self.sentence = status, sentence
        self.retry_after_s = retry_after_s


def busy(wait_s: float) -> RefusedError:
    """Of a request that could not be answered in time."""
    return RefusedError(
        503,
        f"more is asked than can be answered in time; try again in {wait_s:.0f} s",
        retry_after_s=max(wait_s, 1.0),
    )


def late(deadline_s: float, sent: str) -> RefusedError:
    """Of a request whose time ran out while what was sent was worked on."""
    return RefusedError(
        504,
        f"there is no answer after {deadline_s:g} s; send a smaller {sent}, or start "
        "the service with a longer --deadline",
        retry_after_s=1.0,
    )
