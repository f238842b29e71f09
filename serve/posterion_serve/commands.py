"""``posterion serve`` and ``posterion ask``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from posterion import RequestError
from posterion.cli.render import emit, json_option

if TYPE_CHECKING:
    from rich.console import Console

    from posterion_serve._deploy import State


@click.group()
def serve() -> None:
    """Deploy apps and manage API keys."""


@serve.command()
@click.argument("app")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a field.")
@click.option("--timeout", default=300.0, show_default=True, help="Seconds to wait.")
@json_option
def deploy(app: str, overrides: tuple[str, ...], timeout: float, as_json: bool) -> None:
    """Bring APP, an app file or its name, into service and wait until it answers."""
    from posterion.cli.render import console
    from posterion.cli.services import read_settings
    from posterion.config import Home
    from posterion_serve import _deploy
    from posterion_serve._rest import platform_environment

    config = _deploy.load_app(app, overrides)
    home = Home.current()
    settings = read_settings(home)
    report = _Progress(console(stderr=True))
    deployed = _deploy.deploy(
        config,
        home,
        settings,
        environment=platform_environment(home, settings),
        timeout=timeout,
        progress=report,
    )
    address = f"http://{_deploy.HOST}:{settings.gateway.port}"
    tasks = {
        task: {"model": name, "address": f"{address}/v1/tasks/{task}"}
        for task, (_, name) in deployed.models.items()
    }
    payload = {"app": config.name, "address": address, "docs": f"{address}/docs", "tasks": tasks}

    def human(out: Console) -> None:
        for task, row in tasks.items():
            out.print(f"{task}: {row['model']} at {row['address']}")
        out.print(f"OpenAPI: {address}/docs")

    emit(payload, human, as_json)


class _Progress:
    """Prints an application's state whenever it changes."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._seen: dict[str, str] = {}

    def __call__(self, states: list[State]) -> None:
        for state in states:
            if self._seen.get(state.name) != state.status:
                self._seen[state.name] = state.status
                self._console.print(f"{state.name}: {state.status.lower().replace('_', ' ')}")


@serve.command()
@json_option
def status(as_json: bool) -> None:
    """Show every application, its replicas, and why one fails."""
    from posterion.cli.render import print_table
    from posterion.cli.services import read_settings
    from posterion.config import Home
    from posterion_serve._deploy import Deployed, states
    from posterion_serve._names import application_name
    from posterion_serve._rest import ServeApi, platform_environment

    home = Home.current()
    settings = read_settings(home)
    found = states(ServeApi.local(settings, platform_environment(home, settings)).details())
    deployed = Deployed.read(home)
    models = {} if deployed is None else deployed.models
    names = {application_name(task): name for task, (_, name) in models.items()}
    rows: list[dict[str, Any]] = [
        {
            "application": state.name,
            "status": state.status,
            "model": names.get(state.name),
            "replicas": state.replicas,
            "message": state.message,
        }
        for state in found
    ]

    def human(out: Console) -> None:
        if not rows:
            out.print("No app is deployed; `posterion serve deploy APP` deploys one.")
            return
        columns = ("application", "status", "model", "replicas", "message")
        print_table(out, columns, [[row[column] for column in columns] for row in rows])

    emit({"applications": rows}, human, as_json)


@serve.command()
@json_option
def down(as_json: bool) -> None:
    """Take the app out of service; the address stays and answers 503."""
    from posterion.cli.services import read_settings
    from posterion.config import Home
    from posterion_serve._deploy import Deployed, serve_schema
    from posterion_serve._rest import ServeApi, platform_environment

    home = Home.current()
    settings = read_settings(home)
    api = ServeApi.local(settings, platform_environment(home, settings))
    api.put(serve_schema(None, home, settings))
    Deployed.path(home).unlink(missing_ok=True)
    emit({"down": True}, lambda out: out.print("The app is out of service."), as_json)


@serve.group()
def key() -> None:
    """API keys: stored as hashes, shown once."""


@key.command()
@click.argument("name")
@json_option
def create(name: str, as_json: bool) -> None:
    """Make a key for NAME and print it; it cannot be shown again."""
    from posterion.config import Home
    from posterion_serve._keys import KeyStore

    secret = KeyStore.of(Home.current()).create(name)
    emit({"name": name, "key": secret}, lambda out: out.print(secret), as_json)


@key.command(name="list")
@json_option
def list_keys(as_json: bool) -> None:
    """List who has keys."""
    import datetime

    from posterion.cli.render import print_table
    from posterion.config import Home
    from posterion_serve._keys import KeyStore

    rows = [
        {
            "name": found.name,
            "created": datetime.datetime.fromtimestamp(found.created, datetime.UTC).isoformat(
                timespec="seconds"
            ),
        }
        for found in KeyStore.of(Home.current()).all()
    ]
    emit(
        {"keys": rows},
        lambda out: print_table(out, ("name", "created"), [list(row.values()) for row in rows]),
        as_json,
    )


@key.command()
@click.argument("name")
@json_option
def revoke(name: str, as_json: bool) -> None:
    """Take the key of NAME away; it stops working at once."""
    from posterion.config import Home
    from posterion_serve._keys import KeyStore

    KeyStore.of(Home.current()).revoke(name)
    emit({"revoked": name}, lambda out: out.print(f"Revoked the key of {name}."), as_json)


@click.command()
@click.argument("question")
@click.option("--task", help="Task to ask; may be left out when one is served.")
@json_option
def ask(question: str, task: str | None, as_json: bool) -> None:
    """Ask the deployed app and print the answer with its confidence and interval."""
    from posterion.cli.services import read_settings
    from posterion.config import Home
    from posterion_serve._client import ask_gateway
    from posterion_serve._deploy import Deployed
    from posterion_serve._keys import read_local_key

    home = Home.current()
    key = read_local_key(home)
    if Deployed.read(home) is None:
        raise RequestError(
            "No app is deployed that could be asked; `posterion serve deploy APP` deploys one."
        )
    address = f"http://127.0.0.1:{read_settings(home).gateway.port}"
    prediction = ask_gateway(address, key, question, task=task)

    def human(out: Console) -> None:
        out.print(f"Answer      {_short(prediction['answer'])}")
        note = "" if prediction["calibrated"] else " (not calibrated)"
        out.print(f"Confidence  {_short(prediction['confidence'])}{note}")
        if prediction["interval"] is not None:
            low, high = prediction["interval"]
            out.print(f"Interval    {_short(low)} to {_short(high)}")
        if prediction["abstained"]:
            out.print("The model abstains: it is less sure than it was told to be.")
        for other in prediction["alternatives"]:
            out.print(f"Or          {_short(other['answer'])} ({_short(other['confidence'])})")
        out.print(f"Model       {prediction['model']}")

    emit(prediction, human, as_json)


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
