"""Publish a model on the Hugging Face Hub: folder, card, one commit, checked."""

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, TypeVar

from huggingface_hub import EvalResult, HfApi, ModelCard, ModelCardData, get_token
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

from models.artefacts import form_named
from models.artefacts.depth_facts import Origin
from models.artefacts.published.sources import ON_THE_HUB, OTHER_LICENCES
from models.artefacts.record import Record
from models.errors import ExportError

TEMPLATE = Path(__file__).with_name("model_card.md")
ATTEMPTS, WAIT_S = 4, 1.0
# What a connection that breaks raises, in whichever HTTP library the client uses.
BROKEN: tuple[type[BaseException], ...] = HfHubHTTPError.__bases__
T = TypeVar("T")


@dataclass(frozen=True)
class Publication:
    """What to publish, and as what."""

    repo_id: str
    private: bool
    form: str
    """As in `--export-format`."""
    licence: str | None
    """None takes the base's."""


def check(publication: Publication, about: Record[Any] | Origin) -> str:
    """Everything that can be refused before any work is done.

    Returns:
        The licence that the model will have.

    Raises:
        ExportError: For a name that is no repository's, a missing token, or a licence
            that the base does not allow.
    """
    try:
        validate_repo_id(publication.repo_id)
    except HFValidationError as error:
        raise ExportError(f"--push-to-hub {publication.repo_id!r}: {error}") from None
    if publication.repo_id.count("/") != 1:
        raise ExportError(f"--push-to-hub {publication.repo_id!r} is not OWNER/NAME")
    if get_token() is None:
        raise ExportError(
            "there is no Hub token; run `hf auth login`, or set HF_TOKEN in the "
            "environment"
        )
    own = licence_of(about)
    wanted = publication.licence or own
    if wanted is None:
        raise ExportError(
            "the licence of the base is not known; say under which one this model may "
            "be published with --license"
        )
    if own is not None and "-nc" in own and "-nc" not in wanted:
        raise ExportError(
            f"the base is under {own}, which forbids commercial use of what is made "
            f"from it, so the model cannot be published under {wanted}"
        )
    if own in OTHER_LICENCES and wanted != own:
        raise ExportError(
            f"the base is under {own}, under which what is made from it stays, so the "
            f"model cannot be published under {wanted}"
        )
    return wanted


def licence_of(about: Record[Any] | Origin) -> str | None:
    """The licence of base weights, None where it is not known."""
    return about.licence()


def publish(
    folder: Path,
    publication: Publication,
    about: Record[Any] | Origin,
    licence: str,
    results: list[dict[str, Any]],
    trained: int | None,
) -> str:
    """Add a card to an exported folder and upload it in one commit.

    The commit deletes files of other forms: beside them the repository would open as
    the model that it was. What no form of ours writes stays.

    Args:
        folder: An export; the card is written into it.
        publication: Where to.
        about: How the model was trained, as far as that is known.
        licence: From `check`.
        results: Contents of recorded `test_*.json` files.
        trained: Number of trained parameters; None where that is not known.

    Returns:
        The address of the repository.

    Raises:
        ExportError: If the Hub refuses or cannot be reached, or the repository is
            public and must not be; it says what is there.
    """
    text = card(publication, about, licence, results, trained)
    (folder / "README.md").write_text(text)
    names = sorted(p.name for p in folder.iterdir() if p.is_file())
    api, repo = HfApi(), publication.repo_id
    address = _patiently(
        lambda: api.create_repo(repo, private=publication.private, exist_ok=True), repo
    )
    before = _patiently(lambda: api.model_info(repo), repo)
    # One that exists stays as visible as it was.
    if publication.private and not before.private:
        raise ExportError(
            f"{repo} exists and is public, so --private has no effect; make it private "
            "on the Hub, give another name, or leave --private out"
        )
    message = f"Upload {publication.form} model"
    commit = _patiently(
        lambda: api.upload_folder(
            repo_id=repo,
            folder_path=folder,
            commit_message=message,
            delete_patterns=[
                file.rfilename
                for file in before.siblings or ()
                if _of_a_form(file.rfilename)
            ],
        ),
        repo,
    )
    there = _patiently(lambda: api.list_repo_files(repo, revision=commit.oid), repo)
    missing = [name for name in names if name not in there]
    if missing:
        raise ExportError(
            f"{repo} lacks {', '.join(missing)} after the upload; nothing else was "
            "changed there: push again"
        )
    return str(address)


def _of_a_form(name: str) -> bool:
    """Whether a repository's file is one that opening a model reads."""
    # A pattern's * would reach into folders, which no form has.
    return "/" not in name and any(fnmatch(name, known) for known in ON_THE_HUB)


def card(
    publication: Publication,
    about: Record[Any] | Origin,
    licence: str,
    results: list[dict[str, Any]],
    trained: int | None,
) -> str:
    """The model card: metadata that the Hub understands, and what a reader asks."""
    facts, content = about.facts(), about.to_dict()
    repo, form = publication.repo_id, form_named(publication.form, facts.forms)
    other = OTHER_LICENCES.get(licence)
    shown = [found for result in results if (found := facts.shown(result))]
    evaluations = [
        EvalResult(
            task_type=facts.task,
            dataset_type=kind,
            dataset_name=dataset,
            dataset_config=config,
            metric_type=result.metric or name,
            metric_name=name if result.metric else None,
            metric_value=round(value, 4),
        )
        for result in shown
        if result.dataset
        for kind, dataset, config in [result.dataset]
        for name, value in result.metrics.items()
    ]
    data = ModelCardData(
        license="other" if other else licence,
        license_name=licence if other else None,
        license_link=other,
        library_name=form.library,
        pipeline_tag=facts.task,
        base_model=facts.base_id,
        tags=list(facts.tags),
        model_name=repo.split("/")[-1] if evaluations else None,
        eval_results=evaluations or None,
    )
    commit = content.get("base", {}).get("commit")
    base = facts.base or "not recorded"
    if commit is None and facts.base_id is None:
        base = Path(base).name  # a path here, which says nothing elsewhere
    return str(
        ModelCard.from_template(
            data,
            template_path=str(TEMPLATE),
            title=repo.split("/")[-1],
            words=facts.words,
            base=base,
            commit=commit,
            method=_method(content),
            trained=None if trained is None else f"{trained:,}",
            more=facts.more,
            licence=f"[{licence}]({other})" if other else licence,
            inherited=facts.base is not None and licence == licence_of(about),
            results=shown,
            language=form.language,
            usage=facts.usage.get(form.name, form.usage).format(repo=repo),
        )
    )


def _method(content: Mapping[str, Any]) -> str:
    """How it was trained, of `Record.to_dict` or what is left of it."""
    if "adapter" not in content:
        return "weights of others, not trained here"
    adapter = content["adapter"]
    return "trained in full" if adapter is None else str(adapter["method"])


def recorded_results(model: str) -> list[dict[str, Any]]:
    """What `train.py test` wrote of this checkpoint, or what lies in a model's folder.

    A run has several checkpoints in one folder; each result says whose it is. Others
    have JSON files of these names, too, which are left alone.
    """
    path = Path(model).expanduser()
    folder = path.parent if path.is_file() else path
    files = sorted(folder.glob("test_*.json")) if folder.is_dir() else []
    found = [content for file in files if (content := _result_in(file))]
    if path.is_file():
        found = [result for result in found if result.get("checkpoint") == path.name]
    return found


def _result_in(file: Path) -> dict[str, Any] | None:
    """A result of `train.py test`; None where the file is something else."""
    try:
        content = json.loads(file.read_text())
    except ValueError:
        return None
    ours = isinstance(content, dict) and {"protocol", "metrics"} <= content.keys()
    return content if ours else None


def _patiently(call: Callable[[], T], repo: str) -> T:
    """Call the Hub again where it or the connection failed, not where it refused."""
    for attempt in range(ATTEMPTS):
        if attempt:
            time.sleep(WAIT_S * 2 ** (attempt - 1))
        try:
            return call()
        except HfHubHTTPError as error:
            status = error.response.status_code if error.response is not None else 0
            if status in (401, 403):
                raise ExportError(
                    f"the Hub does not let this token write to {repo} ({status}); log "
                    "in as its owner with a token that may write"
                ) from None
            reason = f"the Hub answered {status}"
            if status < 500:
                why = error.server_message
                raise ExportError(f"{repo}: {reason} ({why})") from None
        except BROKEN as error:
            reason = f"{type(error).__name__}: {error}"
    raise ExportError(
        f"{repo} could not be published ({reason}, {ATTEMPTS} times); what is there is "
        "what was there before, or an empty repository: push again"
    )
