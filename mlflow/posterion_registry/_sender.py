"""Brings a spool to the MLflow server, in order and with the effect of exactly once.

Sending something twice does no harm: a metric point is identified by its key, step, value
and the time at which it was *logged*, a parameter by its value; a tag, a status or an
artifact replaces its equal. So after any crash the sender repeats from the last offset it
remembers.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from posterion_registry._client import connect, is_missing, is_mlflow_error, is_passing, status_of
from posterion_registry._spool import Entry, Spool

_logger = logging.getLogger(__name__)

TOKEN_TAG = "posterion.run_token"
"""Run tag that identifies the spool; found again even if the answer to its creation was lost."""

_BATCH = 500
_BATCH_OF = {"metric": 1000, "param": 100, "tag": 100}


class Sender:
    """Delivers one spool to one server."""

    def __init__(
        self, uri: str, spool: Spool, *, experiment: str, name: str, tags: Mapping[str, str]
    ) -> None:
        self.uri = uri
        self._spool = spool
        self._name = name
        self._tags = dict(tags)
        self._client: Any = None
        state = spool.read_state("run")
        self._token: str = state.get("token") or uuid.uuid4().hex
        self._experiment: str = state.get("experiment") or experiment
        self.run_id: str | None = state.get("run_id")
        if not state:
            self._save()

    def send(self) -> bool:
        """Deliver the next piece; True when it got through, False when the server is away."""
        try:
            self._client = self._client or connect(self.uri)
            if self.run_id is None:
                self.run_id = self._find_run() or self._create_run()
                self._save()
            entries, ends = self._spool.read()
            for group, end in _groups(entries, ends):
                self._deliver(group)
                self._spool.delivered(end)
        except Exception as error:
            if not is_mlflow_error(error):
                raise
            return self._failed(error)
        return True

    def _failed(self, error: Exception) -> bool:
        if self.run_id is not None and self._run_is_gone(error):
            # The registry was wiped or replaced; the spool still holds the whole run.
            _logger.warning(
                "MLflow at %s no longer knows run %s; starting over", self.uri, self.run_id
            )
            self.run_id = None
            self._save()
            self._spool.delivered(0)
        return False

    def _run_is_gone(self, error: Exception) -> bool:
        if not is_missing(error):
            return False
        try:
            self._client.get_run(self.run_id)
        except Exception as second:
            return is_missing(second)
        return False

    def _deliver(self, group: Sequence[Entry]) -> None:
        try:
            self._deliver_group(group)
        except Exception as error:
            if not is_mlflow_error(error) or not _is_refusal(error) or self._run_is_gone(error):
                raise
            if len(group) > 1:
                for entry in group:
                    self._deliver([entry])
                return
            _logger.warning("MLflow refused %s for good: %s", group[0], error)
            self._spool.reject(group[0], str(error))

    def _deliver_group(self, group: Sequence[Entry]) -> None:
        kind = group[0]["kind"]
        if kind == "artifact":
            self._upload(group[0])
        elif kind == "status":
            self._set_status(group[0])
        else:
            self._log_batch(group)

    def _log_batch(self, group: Sequence[Entry]) -> None:
        from mlflow.entities import Metric, Param, RunTag

        self._client.log_batch(
            self.run_id,
            metrics=[
                Metric(e["key"], e["value"], e["time"], e["step"])
                for e in group
                if e["kind"] == "metric"
            ],
            params=[Param(e["key"], e["value"]) for e in group if e["kind"] == "param"],
            # Within one request the last value of a tag must be the only one.
            tags=[
                RunTag(key, value)
                for key, value in {
                    e["key"]: e["value"] for e in group if e["kind"] == "tag"
                }.items()
            ],
        )

    def _upload(self, entry: Entry) -> None:
        path = self._spool.run_dir / entry["path"]
        if not path.is_file():
            self._spool.reject(entry, "the file no longer exists")
            return
        self._client.log_artifact(self.run_id, str(path), entry["folder"] or None)

    def _set_status(self, entry: Entry) -> None:
        if entry["value"] == "RUNNING":
            self._client.update_run(self.run_id, status="RUNNING")
        else:
            self._client.set_terminated(self.run_id, entry["value"], entry["time"])

    def _find_run(self) -> str | None:
        experiment = self._client.get_experiment_by_name(self._experiment)
        if experiment is None:
            return None
        runs = self._client.search_runs(
            [experiment.experiment_id], f"tags.`{TOKEN_TAG}` = '{self._token}'", max_results=1
        )
        return str(runs[0].info.run_id) if runs else None

    def _create_run(self) -> str:
        run = self._client.create_run(
            experiment_id(self._client, self._experiment),
            run_name=self._name,
            tags={**self._tags, TOKEN_TAG: self._token},
        )
        return str(run.info.run_id)

    def _save(self) -> None:
        self._spool.write_state(
            "run",
            {"token": self._token, "experiment": self._experiment, "run_id": self.run_id},
        )


def experiment_id(client: Any, name: str) -> str:
    """The id of the experiment ``name``; made when absent, also by somebody else meanwhile."""
    from mlflow.exceptions import MlflowException

    experiment = client.get_experiment_by_name(name)
    if experiment is None:
        try:
            return str(client.create_experiment(name))
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
            experiment = client.get_experiment_by_name(name)
    return str(experiment.experiment_id)


def _groups(entries: Sequence[Entry], ends: Sequence[int]) -> Iterator[tuple[list[Entry], int]]:
    """Cut entries into requests: batches of figures, single artifacts and statuses.

    An upload that a later one replaces is skipped: a picture drawn again and again while the
    server was away needs to arrive once.
    """
    last_upload = {
        (entry["path"], entry["folder"]): index
        for index, entry in enumerate(entries)
        if entry["kind"] == "artifact"
    }
    group: list[Entry] = []
    counts = dict.fromkeys(_BATCH_OF, 0)
    for index, (entry, end) in enumerate(zip(entries, ends, strict=True)):
        kind = entry["kind"]
        start = ends[index - 1] if index else 0
        if kind not in _BATCH_OF or len(group) >= _BATCH or counts[kind] >= _BATCH_OF[kind]:
            if group:
                yield group, start
            group, counts = [], dict.fromkeys(_BATCH_OF, 0)
        if kind in _BATCH_OF:
            group.append(entry)
            counts[kind] += 1
        elif kind == "status" or last_upload[entry["path"], entry["folder"]] == index:
            yield [entry], end
    if group:
        yield group, ends[-1]


def _is_refusal(error: Exception) -> bool:
    """Whether the server read the request and will never take it."""
    return not is_passing(error) and status_of(error) not in (401, 403, 408)
