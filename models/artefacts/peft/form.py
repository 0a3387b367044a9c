"""PEFT as a form to hand on: written for others, and opened again."""

import json
from dataclasses import replace
from pathlib import Path

from models.adapters import AdapterError
from models.adapters.state import adapter_names
from models.artefacts.base import Base, fingerprint
from models.artefacts.depth_adapter import DepthAdapter
from models.artefacts.depth_record import DepthRecord
from models.artefacts.files import read_json, read_tensors
from models.artefacts.form import Asked, ExportOptions, Form, Opened
from models.artefacts.peft.adapters import load_peft, save_peft
from models.artefacts.peft.folder import CONFIG_FILE, SPEC, WEIGHTS_FILE, base_of
from models.artefacts.published.identity import identify
from models.artefacts.published.sources import locate
from models.artefacts.records import depth_record_from, description_in
from models.errors import ExportError
from models.networks import DepthNetwork, NetworkError, NetworkSpec


class Peft(Form[Opened]):
    """Low-rank methods on linears and plain convolutions; needs the base beside it."""

    name = "peft"
    library = "peft"
    usage = (
        "import peft\n\nmodel = peft.PeftModel.from_pretrained(base, "
        '"{repo}")  # base: transformers\' DepthAnythingForDepthEstimation'
    )
    tolerance = 1e-5
    """Fused layers are put together again, and scales multiplied, in another order."""
    folds_in = False

    def recognises(self, path: Path) -> bool:
        return (path / CONFIG_FILE).is_file()

    def open(self, path: Path, asked: Asked) -> Opened:
        network, record = self._network(path, asked)
        config = load_peft(network, path)
        if record is None:
            return Opened(network, None, None, str(path))
        record = replace(record, adapter=config)
        return Opened(network, record, record.image_size, str(path))

    def open_adapter(self, path: Path, asked: Asked) -> DepthAdapter:
        """The adapter apart from its base, which has to be read to know its layers."""
        network, record = self._network(path, asked)
        sha256 = fingerprint(network)
        config = load_peft(network, path)
        state = network.state_dict()
        if record is None:
            tensors = {name: state[name] for name in adapter_names(network)}
            return DepthAdapter(config, tensors, sha256)
        record = replace(record, adapter=config)
        names = record.saved_names(network)
        return DepthAdapter.of(record, {n: state[n] for n in names}, str(path))

    def _network(
        self, path: Path, asked: Asked
    ) -> tuple[DepthNetwork, DepthRecord | None]:
        """The plain network that an adapter is for, and its record."""
        notes = read_tensors(path / WEIGHTS_FILE, AdapterError, mapped=True)[1]
        description = description_in(notes, path / WEIGHTS_FILE)
        if description is not None:
            record = depth_record_from(description, path).on(asked.base)
            network = record.load_base()
            assert isinstance(network, DepthNetwork)
            return network, record
        return _base(path, notes.get(SPEC), asked.base), None

    def write(self, opened: Opened, folder: Path, options: ExportOptions) -> None:
        record, network = opened.record, opened.adapted
        if record is None or record.adapter is None:
            raise ExportError(f"{opened.source} has no adapter to write as PEFT's")
        if not isinstance(network, DepthNetwork):
            raise ExportError(
                f"PEFT sits on transformers, which has no {type(network).__name__}; "
                "export it as depth-anything or adapter"
            )
        if network.spec.version == "v3":
            raise ExportError(
                "PEFT sits on transformers, which has no Depth Anything 3; export it "
                "as depth-anything or adapter"
            )
        save_peft(network, record.adapter, folder, options.base_model, record)


FORM = Peft()


def _base(folder: Path, noted: str | None, given: str | None) -> DepthNetwork:
    """The plain network that a PEFT folder's adapter was trained on.

    Args:
        folder: Of the adapter.
        noted: Our note of what network it is for, as JSON.
        given: What the user says the base is.

    Raises:
        AdapterError, NetworkError: If nothing tells, or it cannot be had.
    """
    config = read_json(folder / CONFIG_FILE, AdapterError)
    source = given or base_of(config)
    if not isinstance(source, str):
        raise AdapterError(
            f"{folder} does not say which base its adapter is for; give --base (a "
            "path, a Hub id or a known name)"
        )
    known = identify(locate(source))
    if noted is not None:
        spec = NetworkSpec(**json.loads(noted))
    elif known.size is None or known.version is None or known.kind is None:
        raise NetworkError(
            f"{folder}: its base {source} does not say what network it holds; give "
            "--base with a transformers or merged folder, or an official file"
        )
    else:
        spec = NetworkSpec(known.size, known.version, known.kind, known.max_depth)
    network = DepthNetwork(spec)
    Base(source).fill(network)
    return network
