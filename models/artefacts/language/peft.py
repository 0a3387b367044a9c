"""The PEFT folder of a language model."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from models.adapters import AdapterError
from models.artefacts.files import read_json, read_tensors
from models.artefacts.form import Asked, ExportOptions, Form
from models.artefacts.language.record import LanguageRecord, OpenedLanguage
from models.artefacts.peft.adapters import load_peft, save_peft
from models.artefacts.peft.folder import CONFIG_FILE, WEIGHTS_FILE, base_of
from models.artefacts.peft.naming import PLAIN
from models.artefacts.records import description_in, record_from
from models.errors import CheckpointError, ExportError
from models.networks.causal import load_causal, load_tokenizer, where


class LanguagePeft(Form[OpenedLanguage]):
    """Low-rank methods, under the model's own names; needs the base beside it."""

    name = "peft"
    needs = ("transformers",)
    library = "peft"
    usage = (
        'import peft\n\nmodel = peft.AutoPeftModelForCausalLM.from_pretrained("{repo}")'
    )
    tolerance = 1e-5
    """Scales are multiplied in another order."""
    folds_in = False

    def recognises(self, path: Path) -> bool:
        file = path / CONFIG_FILE
        if not file.is_file():
            return False
        return read_json(file, AdapterError).get("task_type") == PLAIN.task_type

    def open(self, path: Path, asked: Asked) -> OpenedLanguage:
        notes = read_tensors(path / WEIGHTS_FILE, AdapterError, mapped=True)[1]
        record = _record_in(notes, path / WEIGHTS_FILE)
        if record is not None:
            record = record.on(asked.base)
            network, tokenizer = record.load_base(), load_tokenizer(record.tokenizer)
        else:
            config = read_json(path / CONFIG_FILE, AdapterError)
            base = asked.base or base_of(config)
            if not isinstance(base, str):
                raise AdapterError(
                    f"{path} does not say which base its adapter is for; give --base "
                    "(a folder or a Hub id)"
                )
            found = load_causal(base, "auto")
            network, tokenizer = found.network, found.tokenizer
        loaded = load_peft(network, path, PLAIN)
        if record is not None:
            record = replace(record, adapter=loaded)
        return OpenedLanguage(network, record, tokenizer, str(path))

    def write(
        self, opened: OpenedLanguage, folder: Path, options: ExportOptions
    ) -> None:
        record = opened.record
        if record is None or record.adapter is None or record.base.weights is None:
            raise ExportError(f"{opened.source} has no adapter to write as PEFT's")
        place, revision = where(record.base.weights)
        own = place if revision == "main" else f"{place}@{revision}"
        base = options.base_model or own
        save_peft(opened.network, record.adapter, folder, base, record, PLAIN)


def _record_in(notes: Mapping[str, str], path: Path) -> LanguageRecord | None:
    description = description_in(notes, path)
    if description is None:
        return None
    record = record_from(description, path)
    if not isinstance(record, LanguageRecord):
        raise CheckpointError(
            f"{path} is of a {record.network}, and {CONFIG_FILE} beside it of a "
            "language model; save it again"
        )
    return record


FORM = LanguagePeft()
