"""`python -m app.serving`: depth over HTTP."""

from importlib.util import find_spec

from app.errors import one_line_errors
from app.prediction.options import Source
from app.serving.options import Limits, Secrets, Serving, parse
from datamodules.errors import DataError
from models.artefacts.published.sources import check_source

NEEDS = ("fastapi", "uvicorn", "python_multipart", "prometheus_client")


@one_line_errors
def main(args: list[str] | None = None) -> None:
    """Serve with `args` or the command line, until SIGTERM or Ctrl-C."""
    source, serving, limits = parse(args)
    secrets = Secrets.of_environment()
    check_installed(NEEDS, "serve")
    check_source(source.model)
    run(source, serving, limits, secrets)


def check_installed(packages: tuple[str, ...], extra: str) -> None:
    """Refuse to begin without an extra of this project.

    Raises:
        DataError: Saying what to install.
    """
    if missing := [name for name in packages if find_spec(name) is None]:
        raise DataError(f"this needs {', '.join(missing)}; pip install -e '.[{extra}]'")


def run(source: Source, serving: Serving, limits: Limits, secrets: Secrets) -> None:
    """Open the network and its adapters, and serve them."""
    from app.serving.server import serve

    serve(source, serving, limits, secrets)


if __name__ == "__main__":
    main()
