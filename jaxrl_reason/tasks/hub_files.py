"""Files of datasets on the hub: `hub:OWNER/NAME/PATH[@REVISION]`."""

import importlib
import re
from pathlib import Path, PurePosixPath
from typing import Any

from jaxrl_reason.tasks.question_rows import QuestionFileError

_FORM = re.compile(
    r"hub:(?P<repo>[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)"
    r"/(?P<path>.+?\.(jsonl|json|csv|tsv|parquet)(\.gz)?)(@(?P<revision>.+))?",
    re.ASCII | re.IGNORECASE,
)


def fetch_hub_file(data: str) -> tuple[Path, dict[str, Any]]:
    """Fetches a file of a dataset with huggingface_hub into its cache.

    Args:
      data: `hub:OWNER/NAME/PATH[@REVISION]`; the path ends in .jsonl, .json, .csv,
        .tsv or .parquet, also with .gz; the revision is a branch, tag or
        commit and "main" if not given.

    Returns:
      The file in the cache, and its origin with the commit of the revision.

    Raises:
      QuestionFileError: `data` has another form, or the hub cannot be reached; the
      message says what to fetch and where to put it.
    """
    asked = _FORM.fullmatch(data)
    if asked is None:
        raise QuestionFileError(
            "data of the hub must be hub:OWNER/NAME/PATH[@REVISION] with a PATH that "
            f"ends in .jsonl, .json, .csv, .tsv or .parquet, got {data}"
        )
    repo, path, revision = asked["repo"], asked["path"], asked["revision"]
    found = Path(_download(data, repo, path, revision))
    # The cache keeps a file as snapshots/COMMIT/PATH.
    folder = found.parents[len(PurePosixPath(path).parts) - 1]
    return found, {
        "source": "hub",
        "dataset": repo,
        "path": path,
        "revision": revision or "main",
        "commit": folder.name if folder.parent.name == "snapshots" else None,
    }


def _download(data: str, repo: str, path: str, revision: str | None) -> str:
    at = "" if revision is None else f" --revision {revision}"
    address = f"https://huggingface.co/datasets/{repo}/resolve/{revision or 'main'}"
    by_hand = (
        "on a machine with a network run `hf download --repo-type dataset "
        f"{repo} {path}{at} --local-dir FOLDER` (or fetch {address}/{path} and put it "
        f"at FOLDER/{path}), and give --data FOLDER/{path}"
    )
    try:
        hub = importlib.import_module("huggingface_hub")
    except ImportError:
        raise QuestionFileError(
            f"{data}: needs `pip install huggingface_hub`; or {by_hand}"
        ) from None
    try:
        return hub.hf_hub_download(repo, path, repo_type="dataset", revision=revision)
    except Exception as error:
        # All errors of the package without network, access or such a file.
        raise QuestionFileError(
            f"{data}: the hub gave {type(error).__name__}: {error}. "
            f"To do it by hand: {by_hand}"
        ) from error
