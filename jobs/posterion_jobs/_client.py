"""Ray Jobs, asked through Ray's own client; its failures in our words."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from posterion import NotFoundError, ServiceError
from posterion_jobs._address import Target, refusal, unreachable

RUN_KEY = "posterion_run"
NAME_KEY = "posterion_name"
_ACTIVE = ("PENDING", "RUNNING")


@dataclass(frozen=True, kw_only=True)
class Submission:
    """One Ray job."""

    id: str
    run_id: str
    name: str
    status: str
    """Ray's: PENDING, RUNNING, STOPPED, SUCCEEDED, FAILED."""
    message: str
    started: float | None
    """Seconds since the epoch."""
    ended: float | None

    @property
    def active(self) -> bool:
        """Whether it waits or runs."""
        return self.status in _ACTIVE


class JobsClient:
    """The jobs of one cluster.

    Raises:
        ServiceError: Nothing answers at the target, or it refuses the token.
    """

    def __init__(self, target: Target) -> None:
        target.require()  # in seconds, and in our words; importing Ray takes longer
        from ray.job_submission import JobSubmissionClient

        for handler in logging.getLogger("ray").handlers:  # uploads, closed connections ...
            handler.setLevel(logging.ERROR)
        self.target = target
        with _own_address(), _translated(target):
            self._client = JobSubmissionClient(target.url, headers=target.headers)

    def submit(
        self,
        *,
        submission_id: str,
        entrypoint: str,
        runtime_env: Mapping[str, Any],
        metadata: Mapping[str, str],
    ) -> None:
        """Hand a job to the cluster. It takes no CPU of its own: the workers need them."""
        with _translated(self.target):
            self._client.submit_job(
                entrypoint=entrypoint,
                submission_id=submission_id,
                runtime_env=dict(runtime_env),
                metadata=dict(metadata),
                entrypoint_num_cpus=0,
            )

    def submissions(self) -> list[Submission]:
        """Every job that Posterion submitted to the cluster, oldest first."""
        with _translated(self.target):
            jobs = self._client.list_jobs()
        ours = [_submission(job) for job in jobs if (job.metadata or {}).get(RUN_KEY)]
        return sorted(ours, key=lambda job: job.started or 0.0)

    def status(self, submission_id: str) -> str:
        """Ray's status of one job."""
        with _translated(self.target):
            return str(self._client.get_job_status(submission_id).value)

    def stop(self, submission_id: str) -> None:
        """Ask a job to end; it has time for a checkpoint."""
        with _translated(self.target):
            self._client.stop_job(submission_id)

    def logs(self, submission_id: str) -> str:
        """All that a job wrote so far."""
        with _translated(self.target):
            return str(self._client.get_job_logs(submission_id))

    def follow(self, submission_id: str) -> Iterator[str]:
        """The lines that a job writes, as they come, until it ends."""
        loop = asyncio.new_event_loop()
        stream = self._chunks(submission_id)
        rest = ""
        try:
            while True:
                try:
                    chunk = loop.run_until_complete(anext(stream))
                except StopAsyncIteration:
                    break
                *lines, rest = (rest + chunk).split("\n")
                yield from lines
            if rest:
                yield rest
        finally:
            with contextlib.suppress(Exception):
                loop.run_until_complete(stream.aclose())  # type: ignore[attr-defined]
            loop.close()

    async def _chunks(self, submission_id: str) -> AsyncIterator[str]:
        with _translated(self.target):
            async for chunk in self._client.tail_job_logs(submission_id):
                yield chunk


def _submission(job: Any) -> Submission:
    metadata = job.metadata or {}
    return Submission(
        id=str(job.submission_id),
        run_id=metadata[RUN_KEY],
        name=metadata.get(NAME_KEY, ""),
        status=str(job.status.value),
        message=str(job.message or ""),
        started=job.start_time / 1000 if job.start_time else None,
        ended=job.end_time / 1000 if job.end_time else None,
    )


@contextmanager
def _own_address() -> Iterator[None]:
    """Ray lets these variables overrule the address it is given."""
    names = ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS")
    kept = {name: os.environ.pop(name) for name in names if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(kept)


@contextmanager
def _translated(target: Target) -> Iterator[None]:
    """Failures of Ray's client as ours."""
    from aiohttp import ClientError
    from requests import RequestException

    try:
        yield
    except (RequestException, ClientError, ConnectionError) as error:
        raise unreachable(target.url, error) from error
    except RuntimeError as error:
        text = str(error)
        for status in (401, 403):
            if f"status code {status}" in text or "uthentication" in text:
                raise refusal(target.url, status) from error
        if "404" in text or "does not exist" in text:
            raise NotFoundError(
                f"The cluster at {target.url} does not know this job (it was restarted since, or "
                "the job is another cluster's)."
            ) from error
        raise ServiceError(f"The Ray cluster at {target.url} failed: {text.strip()}") from error
