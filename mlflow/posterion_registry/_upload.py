"""Upload of a version: nothing is registered before every byte has arrived."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from posterion_registry._sender import experiment_id
from posterion_registry._tracker import DEFAULT_EXPERIMENT
from posterion_registry._versions import MANIFEST_TAG

SOURCE_TAG = "assembled"
"""Version tag: SHA-256 of the manifest before MLflow's files were added; makes
registration idempotent."""

_MODEL_NAME_CHARACTERS = str.maketrans(dict.fromkeys("/:.%\"'", "-"))


class Upload:
    """Uploads one staged folder as an MLflow logged model, continuing an interrupted one.

    Args:
        client: An ``MlflowClient``.
        call: Runs a function, trying again while the server is away.
    """

    def __init__(self, client: Any, call: Callable[..., Any]) -> None:
        self._client = client
        self._call = call

    def run(self, staged: Path, *, name: str, run_id: str, tags: Mapping[str, str]) -> Any:
        """Upload every file of ``staged``; returns the finished logged model."""
        model = self._call("preparing the upload", lambda: self._logged_model(name, run_id, tags))
        files = sorted(path for path in staged.rglob("*") if path.is_file())
        for path in files:
            relative = path.relative_to(staged)
            self._call(
                f"uploading {relative.as_posix()}",
                lambda path=path, relative=relative: self._upload(model, path, relative),
            )
        return self._call(
            "finishing the upload",
            lambda: self._client.finalize_logged_model(model.model_id, "READY"),
        )

    def _logged_model(self, name: str, run_id: str, tags: Mapping[str, str]) -> Any:
        """The logged model an earlier attempt began, or a new one."""
        experiment = (
            self._client.get_run(run_id).info.experiment_id
            if run_id
            else experiment_id(self._client, DEFAULT_EXPERIMENT)
        )
        label = name.translate(_MODEL_NAME_CHARACTERS)
        begun = self._client.search_logged_models(
            [experiment],
            filter_string=f"tags.{MANIFEST_TAG} = '{tags[MANIFEST_TAG]}' AND name = '{label}'",
        )
        for model in begun:
            # A finished one is left alone: its files may have been damaged since.
            if (model.source_run_id or "") == run_id and str(model.status) == "PENDING":
                return model
        return self._client.create_logged_model(
            experiment, name=label, source_run_id=run_id or None, tags=dict(tags)
        )

    def _upload(self, model: Any, path: Path, relative: Path) -> None:
        """Upload a file unless it already lies there whole."""
        folder = relative.parent.as_posix() if relative.parent != Path() else None
        size = path.stat().st_size
        listed = self._client.list_logged_model_artifacts(model.model_id, folder)
        if not any(info.path == relative.as_posix() and info.file_size == size for info in listed):
            self._client.log_model_artifact(model.model_id, str(path), folder)
