"""A Serve application that computes nothing: what the way to a replica and back costs."""

from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request
from ray import serve

app = FastAPI()


@serve.deployment(ray_actor_options={"num_cpus": 0.1}, max_ongoing_requests=1000)
@serve.ingress(app)
class Echo:
    @app.post("/ask")
    async def echo(self, request: Request) -> dict[str, int]:
        return {"length": len(await request.body())}


def build(_: Mapping[str, Any]) -> serve.Application:
    return Echo.bind()
