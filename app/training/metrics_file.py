"""`metrics.csv`, whose rows a kill does not take."""

import csv
from pathlib import Path

from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.loggers.csv_logs import ExperimentWriter

from datamodules.files.whole import whole_file


class WholeRows(ExperimentWriter):
    """Replaces the file in one step where a new column changes its header.

    Lightning empties it first: killed then, all rows would be gone.
    """

    def _rewrite_with_new_header(self, fieldnames: list[str]) -> None:
        path = Path(self.metrics_file_path)
        with path.open(newline="") as file:
            rows = list(csv.DictReader(file))
        with whole_file(path) as part, part.open("w", newline="") as file:
            writer = csv.DictWriter(file, fieldnames)
            writer.writeheader()
            writer.writerows(rows)


class MetricsFile(CSVLogger):
    """Lightning's, with `WholeRows`."""

    @property
    def experiment(self) -> WholeRows:
        """What writes the rows."""
        if not isinstance(self._experiment, WholeRows):
            self._fs.makedirs(self.root_dir, exist_ok=True)
            self._experiment = WholeRows(log_dir=self.log_dir)
        return self._experiment
