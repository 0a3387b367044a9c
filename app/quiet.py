"""Less noise from Lightning on a command line."""

import logging
import warnings


def quiet() -> None:
    """Leave out what Lightning says that no user of this program can act on."""
    for message in (
        ".*does not have many workers.*",
        "LightningCLI's args parameter is intended.*",
        ".*LeafSpec.*is deprecated.*",
        ".*could not find the monitored key in the returned metrics.*",
        "You are using a custom batch sampler.*",
        ".*Checkpoint directory .* exists and is not empty.*",
        "The dirpath has changed from .*",
        ".*smaller than the logging interval.*",
        ".*Experiment logs directory .* exists and is not empty.*",
    ):
        warnings.filterwarnings("ignore", message)
    logger = logging.getLogger("lightning.pytorch.utilities.rank_zero")
    logger.addFilter(lambda record: "Tip: For seamless" not in record.getMessage())
