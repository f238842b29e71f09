"""What answers a task: the predictor in this process, or a replica elsewhere.

Both look the same to the protocols above them. The answer to a request for a task is computed in
the process that received it where that process holds the model, and reached over a Serve handle
otherwise.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from posterion import DataError
from posterion_serve._batcher import TokenBatcher
from posterion_serve._config import LimitsSection, ServedModel
from posterion_serve._errors import HttpError, from_exception

if TYPE_CHECKING:
    import pydantic
    from ray.serve.handle import DeploymentHandle

    from posterion.inference import EncodedExample, Predictor
    from posterion.tasks import Task
    from posterion.trust import Prediction

Example = Mapping[str, Any]
Answer = dict[str, Any]

ENCODE_INLINE_CHARACTERS = 4096
"""Shorter input is tokenized where it arrives; a thread would cost more than the work."""


@dataclass(frozen=True)
class TaskInfo:
    """What is known of a served task without its weights.

    Attributes:
        name: The task's name in addresses.
        model: Registered name and version, e.g. ``sentiment@3``.
        task: The task itself.
        max_length: Tokens per window.
    """

    name: str
    model: str
    task: Task[Any, Any] = field(repr=False)
    max_length: int = 0

    @classmethod
    def read(cls, name: str, directory: Path, model: str) -> TaskInfo:
        """Read it from a version folder.

        Raises:
            ArtifactError: The folder holds no model of the platform.
        """
        from posterion.tasks import read_task_model

        saved = read_task_model(directory / "model")
        return cls(name, model, saved.task, saved.max_length)

    @property
    def version(self) -> str:
        """The version part of :attr:`model`; ``1`` for a folder without a version."""
        _, _, version = self.model.rpartition("@")
        return version or "1"

    @cached_property
    def request_model(self) -> type[pydantic.BaseModel]:
        """One typed example."""
        return self.task.request_model()

    @cached_property
    def answer_schema(self) -> dict[str, Any]:
        """JSON Schema of a prediction's answer."""
        return self.task.answer_schema()


class Backend(Protocol):
    """Answers one task."""

    info: TaskInfo

    async def predict(self, examples: Sequence[Example]) -> list[Answer]:
        """Predictions in their published form, one per example, in order.

        Raises:
            HttpError: With the status the client is to get.
        """
        ...

    async def ready(self) -> bool:
        """Whether a request would be answered now."""
        ...


class LocalBackend:
    """The predictor of this process, behind a batcher.

    Args:
        info: The task.
        predictor: The loaded model.
        served: Batching.
        limits: Bounds of one request.
    """

    def __init__(
        self, info: TaskInfo, predictor: Predictor, served: ServedModel, limits: LimitsSection
    ) -> None:
        self.info = info
        self._predictor = predictor
        self._batch_tokens = served.batch_tokens
        self._max_tokens = limits.max_tokens_per_request
        self._deadline = limits.deadline_s
        self.batcher: TokenBatcher[EncodedExample, Prediction] = TokenBatcher(
            self._compute,
            batch_tokens=served.batch_tokens,
            max_queued=served.max_queued_requests,
            max_wait=served.max_wait_ms / 1000,
        )

    def _compute(self, encoded: list[EncodedExample]) -> Sequence[Prediction]:
        return self._predictor.predict_encoded(encoded, batch_tokens=self._batch_tokens)

    async def predict(self, examples: Sequence[Example]) -> list[Answer]:
        """See :class:`Backend`."""
        encoded = await self._encode(examples)
        tokens = [example.num_tokens for example in encoded]
        if sum(tokens) > self._max_tokens:
            raise HttpError(
                413,
                f"The request has {sum(tokens)} tokens after windowing; at most "
                f"{self._max_tokens} are taken at once. Send fewer or shorter texts per request, "
                f"or use `posterion predict` for bulk work.",
            )
        predictions = await self.batcher.submit(encoded, tokens, timeout=self._deadline)
        return [prediction.to_dict() for prediction in predictions]

    async def _encode(self, examples: Sequence[Example]) -> list[EncodedExample]:
        characters = sum(
            len(value) for row in examples for value in row.values() if isinstance(value, str)
        )
        try:
            if characters <= ENCODE_INLINE_CHARACTERS:
                return self._predictor.encode(examples)
            return await asyncio.to_thread(self._predictor.encode, examples)
        except DataError as error:
            raise HttpError(422, str(error), errors=self._blank_fields(examples)) from error

    def _blank_fields(self, examples: Sequence[Example]) -> list[dict[str, str]]:
        """The usual culprits of an example that cannot be encoded."""
        return [
            {"field": column if len(examples) == 1 else f"examples.{index}.{column}",
             "message": "the text is empty"}
            for index, row in enumerate(examples)
            for column in self.info.task.input_columns
            if isinstance(row.get(column), str) and not row[column].strip()
        ][:20]  # fmt: skip

    async def ready(self) -> bool:
        """See :class:`Backend`; a loaded predictor answers."""
        return True


class HandleBackend:
    """A model's replicas, over Serve.

    Args:
        info: The task.
        handle: The deployment of the model.
        deadline_s: Time until a request is given up.
    """

    def __init__(self, info: TaskInfo, handle: DeploymentHandle[Any], deadline_s: float) -> None:
        self.info = info
        self._predict = handle.options(method_name="predict")
        self._ready = handle.options(method_name="ready")
        self._deadline = deadline_s

    async def predict(self, examples: Sequence[Example]) -> list[Answer]:
        """See :class:`Backend`."""
        from ray.exceptions import RayError, RayTaskError
        from ray.serve.exceptions import RayServeException

        try:
            async with asyncio.timeout(self._deadline):
                reply: dict[str, Any] = await self._predict.remote(list(examples))
        except TimeoutError:
            raise HttpError(
                504, f"The request was given up after {self._deadline:g} s, its deadline."
            ) from None
        except RayTaskError:
            raise
        except (RayError, RayServeException) as error:
            raise HttpError(
                503, f"No replica of the task {self.info.name!r} answers. Retry.", retry_after=1
            ) from error
        if "failure" in reply:
            raise HttpError(**reply["failure"])
        answers: list[Answer] = reply["predictions"]
        return answers

    async def ready(self) -> bool:
        """See :class:`Backend`."""
        try:
            async with asyncio.timeout(2.0):
                return bool(await self._ready.remote())
        except Exception:
            return False


async def reply_to_handle(backend: Backend, examples: Sequence[Example]) -> dict[str, Any]:
    """What a replica sends back to :class:`HandleBackend`: plain values, failures included."""
    try:
        return {"predictions": await backend.predict(examples)}
    except Exception as error:
        known = from_exception(error)
        if not isinstance(error, HttpError) and known.status >= 500:
            raise
        return {
            "failure": {
                "status": known.status,
                "detail": known.detail,
                "errors": known.errors,
                "headers": known.headers,
            }
        }
