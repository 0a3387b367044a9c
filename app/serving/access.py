"""Who may ask, and who may change adapters."""

import hmac
from hashlib import sha256

from fastapi import Request

from app.serving.options import ADMIN, Secrets
from app.serving.refusals import RefusedError


class Access:
    """Compares what a request brings with the secrets, in constant time.

    Args:
        secrets: From the environment; only their digests are kept.
    """

    def __init__(self, secrets: Secrets) -> None:
        self._keys = [_digest(key) for key in secrets.keys]
        self._admin = None if secrets.admin is None else _digest(secrets.admin)

    def ask(self, request: Request) -> None:
        """Let a request for depth through.

        Raises:
            RefusedError: 401.
        """
        if not self._keys:
            return
        given = _bearer(request)
        # All are compared, so that the time tells nothing of which.
        if not sum(hmac.compare_digest(given, key) for key in self._keys):
            raise RefusedError(
                401, "this needs a key; send the header Authorization: Bearer KEY"
            )

    def change(self, request: Request) -> None:
        """Let a request that changes adapters through.

        Raises:
            RefusedError: 401.
        """
        if self._admin is None:
            raise RefusedError(
                401,
                f"adapters cannot be changed here: the service was started without "
                f"{ADMIN} in its environment",
            )
        if not hmac.compare_digest(_bearer(request), self._admin):
            raise RefusedError(
                401,
                "changing adapters needs the admin token; send the header "
                "Authorization: Bearer TOKEN",
            )


def _bearer(request: Request) -> bytes:
    kind, _, secret = request.headers.get("authorization", "").partition(" ")
    return _digest(secret.strip() if kind.lower() == "bearer" else "")


def _digest(secret: str) -> bytes:
    """Of one length, whatever the secret's."""
    return sha256(secret.encode("utf-8", "surrogateescape")).digest()
