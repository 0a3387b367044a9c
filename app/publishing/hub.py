"""Publish a model on the Hugging Face Hub: folder, card, one commit, checked."""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from huggingface_hub import EvalResult, HfApi, ModelCard, ModelCardData, get_token
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

from models.artefacts import form_named
from models.artefacts.depth_record import DepthRecord
from models.artefacts.published import depth_anything_3
from models.artefacts.published.identity import OFFICIAL
from models.artefacts.published.sources import (
    OTHER_LICENCES,
    SOURCES,
    TINY_ROOMS,
    timm_licence,
)
from models.errors import ExportError
from models.metrics import METRICS
from models.networks.interface import OutputSpec
from models.networks.presets import NetworkSpec
from models.networks.timm_network import TimmSpec

TEMPLATE = Path(__file__).with_name("model_card.md")
ATTEMPTS, WAIT_S = 4, 1.0
DATASETS = {
    "nyu_eigen": ("nyu_depth_v2", "NYU Depth v2"),
    "kitti_eigen_garg_kb": ("kitti", "KITTI, Eigen's split"),
    "kitti_eigen_garg_full": ("kitti", "KITTI, Eigen's split"),
    "kitti_da2": ("kitti", "KITTI, Eigen's split"),
}
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


def check(publication: Publication, record: DepthRecord | None) -> str:
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
    own = None if record is None else licence_of(record)
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


def licence_of(record: DepthRecord) -> str | None:
    """The licence of base weights, None where it is not known."""
    weights = record.base.weights
    if weights is None or record.family.licence is not None:
        return record.family.licence
    if weights == TINY_ROOMS:
        return "apache-2.0"
    if weights in SOURCES:
        return SOURCES[weights].licence
    if licence := timm_licence(weights):
        return licence
    # Only the official files: of a network with the same shapes nothing follows.
    if depth_anything_3.OFFICIAL.search(Path(weights).name):
        return "apache-2.0"
    found = OFFICIAL.search(Path(weights).name)
    if found is None:
        return None
    if found["v1"]:
        return "apache-2.0"
    # Depth Anything V2 README: Small is Apache-2.0, the larger ones CC-BY-NC-4.0. The
    # metric Small files come without a statement.
    if found["v2"] != "s":
        return "cc-by-nc-4.0"
    return None if found["domain"] else "apache-2.0"


def publish(
    folder: Path,
    publication: Publication,
    record: DepthRecord | None,
    licence: str,
    results: list[dict[str, Any]],
    trained: int,
) -> str:
    """Add a card to an exported folder and upload it in one commit.

    Args:
        folder: An export; the card is written into it.
        publication: Where to.
        record: How the model was trained, if that is known.
        licence: From `check`.
        results: Contents of recorded `test_*.json` files.
        trained: Number of trained parameters.

    Returns:
        The address of the repository.

    Raises:
        ExportError: If the Hub refuses or cannot be reached; it says what is there.
    """
    text = card(publication, record, licence, results, trained)
    (folder / "README.md").write_text(text)
    names = sorted(p.name for p in folder.iterdir() if p.is_file())
    api, repo = HfApi(), publication.repo_id
    address = _patiently(
        lambda: api.create_repo(repo, private=publication.private, exist_ok=True), repo
    )
    message = f"Upload {publication.form} model"
    commit = _patiently(
        lambda: api.upload_folder(
            repo_id=repo, folder_path=folder, commit_message=message
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


def card(
    publication: Publication,
    record: DepthRecord | None,
    licence: str,
    results: list[dict[str, Any]],
    trained: int,
) -> str:
    """The model card: metadata that the Hub understands, and what a reader asks."""
    repo, form = publication.repo_id, form_named(publication.form)
    metric = [r for r in results if r["align"] == "none"]
    base = None if record is None else record.base.weights
    source = SOURCES.get(base or "")
    base_id = source.repo_id if source else base if timm_licence(base or "") else None
    other = OTHER_LICENCES.get(licence)
    evaluations = [
        EvalResult(
            task_type="depth-estimation",
            dataset_type=DATASETS.get(r["protocol"], ("rgb-d", "own frames"))[0],
            dataset_name=DATASETS.get(r["protocol"], ("rgb-d", "own frames"))[1],
            dataset_config=r["protocol"],
            metric_type=name,
            metric_value=round(value, 4),
        )
        for r in metric
        if not r["flip_tta"]
        for name, value in r["metrics"].items()
        if name in METRICS
    ]
    data = ModelCardData(
        license="other" if other else licence,
        license_name=licence if other else None,
        license_link=other,
        library_name=form.library,
        pipeline_tag="depth-estimation",
        base_model=base_id,
        tags=["depth-estimation", "metric-depth", "lava-depth"],
        model_name=repo.split("/")[-1] if evaluations else None,
        eval_results=evaluations or None,
    )
    adapter = None if record is None else record.to_dict()["adapter"]
    shown = [
        {**r, "how": ", averaged with the mirrored image" if r["flip_tta"] else ""}
        for r in metric
    ]
    spec = None if record is None else record.network
    return str(
        ModelCard.from_template(
            data,
            template_path=str(TEMPLATE),
            title=repo.split("/")[-1],
            network=network_words(spec),
            max_depth="?" if spec is None else spec.max_depth,
            base=(source.repo_id if source else base) or "not recorded",
            commit=None if record is None else record.base.commit,
            method="trained in full" if adapter is None else adapter["method"],
            trained=f"{trained:,}",
            image_size="?" if record is None else list(record.image_size),
            licence=f"[{licence}]({other})" if other else licence,
            results=shown,
            language=form.language,
            usage=form.usage.format(repo=repo),
        )
    )


def network_words(spec: OutputSpec | None) -> str:
    """What kind of network this is, for a sentence."""
    if isinstance(spec, NetworkSpec):
        return f"Depth Anything {spec.version}, size {spec.size}"
    if isinstance(spec, TimmSpec):
        return f"timm's {spec.model} under a DPT head"
    return "A depth network" if spec is None else f"A network of {type(spec).__name__}"


def recorded_results(model: str) -> list[dict[str, Any]]:
    """What `train.py test` wrote of this checkpoint, or what lies in a model's folder.

    A run has several checkpoints in one folder; each result says whose it is.
    """
    path = Path(model)
    folder = path.parent if path.is_file() else path
    files = sorted(folder.glob("test_*.json")) if folder.is_dir() else []
    found = [json.loads(file.read_text()) for file in files]
    if path.is_file():
        found = [result for result in found if result["checkpoint"] == path.name]
    return found


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
