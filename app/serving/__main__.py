"""`python -m app.serving`: depth over HTTP."""

from app.errors import one_line_errors
from app.prediction.options import Source
from app.serving.options import Limits, Secrets, Serving, parse
from datamodules.extras import check_installed
from models.artefacts.published.sources import check_source

NEEDS = ("fastapi", "uvicorn", "python_multipart", "prometheus_client")


@one_line_errors
def main(args: list[str] | None = None) -> None:
    """Serve with `args` or the command line, until SIGTERM or Ctrl-C."""
    source, serving, limits = parse(args)
    secrets = Secrets.of_environment()
    check_installed("the service", "serve", *NEEDS)
    check_source(source.model)
    run(source, serving, limits, secrets)


def run(source: Source, serving: Serving, limits: Limits, secrets: Secrets) -> None:
    """Open the network and its adapters, and serve them."""
    from app.serving.server import serve

    serve(source, serving, limits, secrets)


if __name__ == "__main__":
    main()
