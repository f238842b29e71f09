"""The app file: which models are served, how, and within which bounds."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import ConfigDict, Field, field_validator, model_validator

from posterion.config import Section

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")]
Count = Annotated[int, Field(ge=1, le=1_000_000)]


class ServedModel(Section):
    """One model behind one task name."""

    model: str
    """``models:/NAME@ALIAS``, ``models:/NAME/VERSION`` or ``path:DIR`` of a version folder."""
    min_replicas: Annotated[int, Field(ge=1, le=1000)] = 1
    """Replicas that always run."""
    max_replicas: Annotated[int, Field(ge=1, le=1000)] = 1
    """Replicas under load."""
    target_ongoing_requests: Annotated[float, Field(gt=0)] = 16.0
    """Requests in flight per replica above which another replica starts."""
    num_cpus: Annotated[float, Field(ge=0)] = 0.0
    """CPUs reserved per replica; bounds how many fit, not how fast one is. Reserving none leaves
    all to jobs: a training waits until each of its workers finds its CPUs free."""
    threads: Annotated[int, Field(ge=1, le=1024)] = 1
    """Computing threads per replica."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Arithmetic of the forward pass."""
    batch_tokens: Annotated[int, Field(ge=16, le=10_000_000)] = 4096
    """Tokens computed together, padding included."""
    max_wait_ms: Annotated[float, Field(ge=0, le=1000)] = 0.0
    """How long an idle replica waits for company; 0 answers a lone request at once."""
    max_queued_requests: Count = 512
    """Examples waiting per replica before new requests are turned away with 503."""

    @field_validator("model")
    @classmethod
    def _known_source(cls, value: str) -> str:
        if not value.startswith(("models:/", "path:")):
            raise ValueError(
                f"{value!r} names no model version; write models:/NAME@ALIAS, "
                f"models:/NAME/VERSION or path:DIR"
            )
        return value

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.max_replicas < self.min_replicas:
            raise ValueError(
                f"max_replicas {self.max_replicas} is less than min_replicas {self.min_replicas}"
            )
        return self


class IngressSection(Section):
    """The replicas that answer everything but ``/v1/tasks/{task}``, which models answer."""

    replicas: Annotated[int, Field(ge=1, le=1000)] = 1
    """How many."""
    num_cpus: Annotated[float, Field(ge=0)] = 0.0
    """CPUs reserved for each."""


class LimitsSection(Section):
    """What one request may ask for."""

    max_body_bytes: Annotated[int, Field(ge=1, le=1 << 30)] = 4 << 20
    """Largest body; more is 413, noticed while the body streams in."""
    max_tokens_per_request: Count = 65_536
    """Most tokens over all examples of a request, after windowing; more is 413."""
    max_examples_per_request: Annotated[int, Field(ge=1, le=100_000)] = 512
    """Most examples in a batch; more is 413."""
    deadline_s: Annotated[float, Field(gt=0, le=3600)] = 30.0
    """Time until a request is given up with 504."""


class QuotaSection(Section):
    """How much one key may ask for, in each replica."""

    requests_per_second: Annotated[float, Field(gt=0)] | None = None
    """Sustained rate per key; more is 429. Absent: no quota."""
    burst: Annotated[float, Field(ge=1)] = 20.0
    """Requests that may come at once."""


class AppConfig(Section):
    """A Serve application, wholly described."""

    model_config = ConfigDict(title="Posterion app")

    name: Name
    """Name of the application."""
    models: Annotated[dict[Name, ServedModel], Field(min_length=1)]
    """Task name, as in ``/v1/tasks/{task}``, to model."""
    ingress: IngressSection = IngressSection()
    limits: LimitsSection = LimitsSection()
    quota: QuotaSection = QuotaSection()
