"""`python -m app.serving.demo`: a page to drag photographs onto, over the service."""

import os
import tempfile

from app.errors import one_line_errors
from app.serving.__main__ import NEEDS
from app.serving.options import Secrets, parse
from datamodules.extras import check_installed
from models.artefacts.published.sources import check_source


@one_line_errors
def main(args: list[str] | None = None) -> None:
    """Serve the page, and the service's own paths, until SIGTERM or Ctrl-C."""
    source, serving, limits = parse(args, "python -m app.serving.demo", DESCRIPTION)
    check_installed("the page", "demo", *NEEDS, "gradio")
    check_source(source.model)
    with tempfile.TemporaryDirectory(prefix="lava-demo-") as scratch:
        # Gradio reads these where it is imported.
        os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
        os.environ["GRADIO_TEMP_DIR"] = scratch
        from app.serving.page import with_page
        from app.serving.server import serve

        serve(source, serving, limits, Secrets(), with_page)


DESCRIPTION = """A page for a browser: a photograph in, its depth in metres out.

The paths of the service (`python -m app.serving`) are there, too, without keys."""


if __name__ == "__main__":
    main()
