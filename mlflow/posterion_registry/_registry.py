"""Register, find, verify and promote model versions."""

from __future__ import annotations

import builtins
import tempfile
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from posterion import NotFoundError, RequestError, ServiceError
from posterion.config import Home, did_you_mean
from posterion_registry._artifact import read_metrics, require_complete, stage, task_of
from posterion_registry._cache import VersionCache
from posterion_registry._client import connect, is_missing, persistently
from posterion_registry._references import CHAMPION, PREVIOUS, ModelReference, parse_reference
from posterion_registry._upload import SOURCE_TAG, Upload
from posterion_registry._versions import (
    MANIFEST_TAG,
    METRIC_TAG,
    Comparison,
    ModelVersion,
    RegisteredModel,
)

T = TypeVar("T")

_MAX_CARD = 95_000  # MLflow's limit on a description is 100,000 characters
_PAGE = 200


class Registry:
    """The model registry at ``uri``.

    Args:
        uri: MLflow tracking URI, e.g. ``http://127.0.0.1:5000``.
        cache_dir: Where downloaded versions are kept; ``Home.current().cache_dir`` by default.
        patience: Seconds to keep trying while the server does not answer; 0 fails at once.
    """

    def __init__(self, uri: str, *, cache_dir: Path | None = None, patience: float = 0.0) -> None:
        self.uri = uri
        self.patience = patience
        self._cache = VersionCache((cache_dir or Home.current().cache_dir) / "models")
        self._connection: Any = None

    # -- registering --------------------------------------------------------------------

    def register(
        self,
        version_dir: Path,
        *,
        name: str,
        alias: str | None = None,
        run_id: str = "",
        tags: Mapping[str, str] | None = None,
    ) -> ModelVersion:
        """Make the assembled ``version_dir`` a version of ``name``.

        The version appears when every file is uploaded, never before. Registering the same
        folder for the same run again returns the version that exists.

        Args:
            version_dir: Made by ``posterion.inference.assemble_version``.
            name: Registered name; made when absent.
            alias: Alias to set on the version, e.g. ``candidate``.
            run_id: MLflow run that made it.
            tags: Lineage: recipe hash, data hash, git commit, parents, licence.

        Raises:
            ArtifactError: A file is missing or is not what the manifest says.
            ServiceError: The server stayed away for longer than ``patience``.
        """
        from posterion.inference import manifest_digest, verify_manifest

        require_complete(version_dir)
        verify_manifest(version_dir)
        all_tags = {
            "task": task_of(version_dir),
            **{key: str(value) for key, value in (tags or {}).items()},
            **{f"{METRIC_TAG}{key}": repr(x) for key, x in read_metrics(version_dir).items()},
            SOURCE_TAG: manifest_digest(version_dir),
        }
        found = self._registered(name, run_id, all_tags[SOURCE_TAG])
        if found is None:
            with tempfile.TemporaryDirectory(prefix=".register-", dir=version_dir.parent) as staged:
                stage(version_dir, Path(staged))
                all_tags[MANIFEST_TAG] = manifest_digest(Path(staged))
                found = self._upload(Path(staged), name, run_id, all_tags)
        if alias:
            self._set_alias(name, alias, found)
        return self.show(f"{name}@{found}")

    def _upload(self, staged: Path, name: str, run_id: str, tags: Mapping[str, str]) -> int:
        model = Upload(self._client, self._call).run(staged, name=name, run_id=run_id, tags=tags)
        card = (staged / "card.md").read_text(encoding="utf-8")[:_MAX_CARD]

        def create() -> int:
            # The answer to an earlier attempt may have been lost on its way.
            found = self._registered(name, run_id, tags[SOURCE_TAG])
            if found is not None:
                return found
            made = self._client.create_model_version(
                name,
                source=model.artifact_location,
                run_id=run_id or None,
                tags=dict(tags),
                description=card,
                await_creation_for=0,
                model_id=model.model_id,
            )
            return int(made.version)

        self._call(f"registering {name}", lambda: self._ensure_name(name))
        return self._call(f"registering {name}", create)

    def _ensure_name(self, name: str) -> None:
        from mlflow.exceptions import MlflowException

        try:
            self._client.create_registered_model(name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise

    def _registered(self, name: str, run_id: str, source: str) -> int | None:
        """The number of the version registered from the same folder by the same run."""
        numbers = [
            int(version.version)
            for version in self._versions(name)
            if version.tags.get(SOURCE_TAG) == source and (version.run_id or "") == run_id
        ]
        return max(numbers, default=None)

    # -- finding ------------------------------------------------------------------------

    def resolve(self, reference: str) -> Path:
        """A local, verified directory of the version that ``reference`` names.

        A version that was downloaded earlier and is named by number is also found while the
        server is away.

        Args:
            reference: ``models:/name@alias``, ``models:/name/7``, ``name@7`` or ``name``.

        Raises:
            NotFoundError: Unknown name, version or alias; lists the near ones.
            ArtifactError: A file is not the one that was registered; names it.
            ServiceError: The server does not answer.
        """
        parsed = parse_reference(reference)
        try:
            version = self._find(parsed)
        except ServiceError:
            if parsed.version is None:
                raise
            kept = self._cache.find(parsed.name, parsed.version, self.uri)
            if kept is None:
                raise
            return kept
        return self._fetch(version)

    def _fetch(self, version: ModelVersion) -> Path:
        if not version.digest:
            raise RequestError(
                f"{version.reference} was not registered by Posterion: it has no manifest to "
                "verify. Register it with posterion_registry.Registry.register."
            )
        return self._cache.get(
            version.name,
            version.version,
            version.digest,
            self.uri,
            lambda folder: self._call(
                f"downloading {version.reference}", lambda: self._download(version, folder)
            ),
        )

    def _download(self, version: ModelVersion, folder: Path) -> None:
        from mlflow.artifacts import download_artifacts

        got = download_artifacts(
            artifact_uri=version.source, dst_path=str(folder), tracking_uri=self.uri
        )
        if Path(got) != folder:
            for path in Path(got).iterdir():
                path.replace(folder / path.name)
            Path(got).rmdir()

    def show(self, reference: str) -> ModelVersion:
        """What is known about one version.

        Raises:
            NotFoundError: Unknown name, version or alias.
            ServiceError: The server does not answer.
        """
        return self._find(parse_reference(reference))

    def list(self) -> tuple[RegisteredModel, ...]:
        """All registered models, by name, versions newest first.

        Raises:
            ServiceError: The server does not answer.
        """
        models = self._pages(
            "listing models",
            lambda token: self._client.search_registered_models(
                max_results=_PAGE, page_token=token, order_by=["name ASC"]
            ),
        )
        return tuple(
            RegisteredModel(
                name=model.name,
                aliases={alias: int(number) for alias, number in model.aliases.items()},
                versions=tuple(
                    _version(version, model.aliases)
                    for version in sorted(
                        self._versions(model.name), key=lambda v: int(v.version), reverse=True
                    )
                ),
            )
            for model in models
        )

    def compare(self, left: str, right: str) -> Comparison:
        """Two versions' metrics side by side."""
        first, second = self.show(left), self.show(right)
        names = sorted({*first.metrics, *second.metrics})
        return Comparison(
            left=first,
            right=second,
            metrics={name: (first.metrics.get(name), second.metrics.get(name)) for name in names},
        )

    # -- aliases ------------------------------------------------------------------------

    def promote(self, reference: str) -> ModelVersion:
        """Make a version the champion; the former champion becomes ``previous``.

        Raises:
            NotFoundError: Unknown name, version or alias.
        """
        version = self._find(parse_reference(reference, default_alias="candidate"))
        former = self._aliases(version.name).get(CHAMPION)
        if former is not None and former != version.version:
            # First the way back, then the change: there is no moment without a champion.
            self._set_alias(version.name, PREVIOUS, former)
        self._set_alias(version.name, CHAMPION, version.version)
        return self.show(version.reference)

    def rollback(self, name: str) -> ModelVersion:
        """Swap ``champion`` and ``previous``; returns the new champion.

        Raises:
            NotFoundError: The model has no ``previous`` to go back to.
        """
        name = parse_reference(name).name
        aliases = self._aliases(name)
        if PREVIOUS not in aliases:
            raise NotFoundError(
                f"{name} has no version with the alias {PREVIOUS!r} to go back to; its aliases are "
                f"{_listed(aliases)}. Promote a version by number instead: "
                f"posterion models promote {name}@VERSION."
            )
        back = aliases[PREVIOUS]
        if CHAMPION in aliases:
            self._set_alias(name, PREVIOUS, aliases[CHAMPION])
        self._set_alias(name, CHAMPION, back)
        return self.show(f"{name}@{back}")

    # -- MLflow -------------------------------------------------------------------------

    @property
    def _client(self) -> Any:
        if self._connection is None:
            self._connection = connect(self.uri)
        return self._connection

    def _call(self, doing: str, function: Callable[[], T]) -> T:
        return persistently(function, uri=self.uri, doing=doing, patience=self.patience)

    def _pages(self, doing: str, search: Callable[[str | None], Any]) -> builtins.list[Any]:
        found: builtins.list[Any] = []
        token: str | None = None
        while True:
            page = self._call(doing, lambda token=token: search(token))  # type: ignore[misc]
            found.extend(page)
            token = page.token
            if not token:
                return found

    def _versions(self, name: str) -> builtins.list[Any]:
        return self._pages(
            f"looking up {name}",
            lambda token: self._client.search_model_versions(
                f"name = '{name}'", max_results=_PAGE, page_token=token
            ),
        )

    def _model(self, name: str) -> Any:
        return self._call(
            f"looking up {name}",
            lambda: _or_none(lambda: self._client.get_registered_model(name)),
        )

    def _aliases(self, name: str) -> dict[str, int]:
        model = self._model(name)
        if model is None:
            names = [known.name for known in self.list()]
            raise NotFoundError(
                f"No registered model is called {name!r}.{did_you_mean(name, names)} "
                f"Registered at {self.uri}: {_listed(names)}."
            )
        return {alias: int(number) for alias, number in model.aliases.items()}

    def _find(self, reference: ModelReference) -> ModelVersion:
        aliases = self._aliases(reference.name)
        number = reference.version
        if number is None:
            alias = reference.alias or CHAMPION
            if alias not in aliases:
                raise NotFoundError(
                    f"{reference.name} has no alias {alias!r}.{did_you_mean(alias, aliases)} "
                    f"Its aliases are {_listed(aliases)}; a version is also named by its number, "
                    f"e.g. {reference.name}@1."
                )
            number = aliases[alias]
        found = self._call(
            f"looking up {reference}",
            lambda: _or_none(lambda: self._client.get_model_version(reference.name, str(number))),
        )
        if found is None:
            numbers = sorted(int(version.version) for version in self._versions(reference.name))
            raise NotFoundError(
                f"{reference.name} has no version {number}; its versions are {_listed(numbers)}."
            )
        return _version(found, aliases)

    def _set_alias(self, name: str, alias: str, version: int) -> None:
        self._call(
            f"setting the alias {alias}",
            lambda: self._client.set_registered_model_alias(name, alias, str(version)),
        )


def _or_none(function: Callable[[], T]) -> T | None:
    try:
        return function()
    except Exception as error:
        if is_missing(error):
            return None
        raise


def _version(found: Any, aliases: Mapping[str, Any]) -> ModelVersion:
    tags = {key: value for key, value in found.tags.items() if not key.startswith(METRIC_TAG)}
    number = int(found.version)
    return ModelVersion(
        name=found.name,
        version=number,
        aliases=tuple(sorted(alias for alias, at in aliases.items() if int(at) == number)),
        tags=tags,
        metrics={
            key.removeprefix(METRIC_TAG): float(value)
            for key, value in sorted(found.tags.items())
            if key.startswith(METRIC_TAG)
        },
        run_id=found.run_id or "",
        source=found.source,
        digest=tags.get(MANIFEST_TAG, ""),
        card=found.description or "",
        created=datetime.fromtimestamp(found.creation_timestamp / 1000, tz=UTC),
    )


def _listed(names: Any) -> str:
    shown = [str(name) for name in names]
    return ", ".join(shown[:20]) + (" ..." if len(shown) > 20 else "") if shown else "none"
