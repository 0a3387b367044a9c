"""The `transformers` folder of a language model: weights, configuration, tokenizer."""

import json
from pathlib import Path

from models.artefacts.files import KEY
from models.artefacts.form import Asked, ExportOptions, Form
from models.artefacts.language.record import OpenedLanguage
from models.networks.causal import load_causal

CONFIG_FILE = "config.json"


class LanguageFolder(Form[OpenedLanguage]):
    """For `AutoModelForCausalLM` and whatever is built on it."""

    name = "transformers"
    needs = ("transformers",)
    library = "transformers"
    usage = (
        "from transformers import pipeline\n\n"
        'answer = pipeline("text-generation", model="{repo}")'
    )
    tolerance = 0.0
    """The same tensors."""

    def recognises(self, path: Path) -> bool:
        config = path / CONFIG_FILE
        if not config.is_file():
            return False
        try:
            names = json.loads(config.read_text()).get("architectures") or []
        except (ValueError, AttributeError):
            return False
        return any(str(n).endswith(("ForCausalLM", "LMHeadModel")) for n in names)

    def open(self, path: Path, asked: Asked) -> OpenedLanguage:
        found = load_causal(str(path), "auto")
        return OpenedLanguage(found.network, None, found.tokenizer, str(path))

    def write(
        self, opened: OpenedLanguage, folder: Path, options: ExportOptions
    ) -> None:
        network = opened.network
        setattr(network.config, KEY, opened.notes())
        network.save_pretrained(folder)  # type: ignore[operator]
        opened.tokenizer.save_pretrained(folder)


FORM = LanguageFolder()
