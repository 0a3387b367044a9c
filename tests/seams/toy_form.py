"""A form to hand on in one file: NumPy arrays."""

import json
from pathlib import Path

import numpy as np
import torch

from models.artefacts.families import network_from_dict, network_to_dict
from models.artefacts.form import Asked, ExportOptions, Form, Opened


class Arrays(Form):
    name = "arrays"
    library = "numpy"
    usage = 'numpy.load("arrays.npz")'
    tolerance = 0.0

    def recognises(self, path: Path) -> bool:
        return (path / "arrays.npz").is_file()

    def open(self, path: Path, asked: Asked) -> Opened:
        arrays = dict(np.load(path / "arrays.npz"))
        about = json.loads(str(arrays.pop("about")))
        family, spec = network_from_dict(about)
        network = family(spec)
        network.load_state_dict({n: torch.from_numpy(a) for n, a in arrays.items()})
        return Opened(network, None, tuple(about["image_size"]), str(path))

    def write(self, opened: Opened, folder: Path, options: ExportOptions) -> None:
        network = opened.adapted
        about = network_to_dict(type(network), network.spec)
        about["image_size"] = options.image_size
        arrays = {name: value.numpy() for name, value in network.state_dict().items()}
        np.savez(folder / "arrays.npz", about=json.dumps(about), **arrays)


FORM = Arrays()
