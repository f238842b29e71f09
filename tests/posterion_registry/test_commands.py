from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from posterion import RequestError, ServiceError
from posterion_registry import Registry
from posterion_registry.commands import evaluate, models, predict


@pytest.fixture
def registered(
    client: Any,
    store_uri: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    write_version: Callable[..., Path],
) -> str:
    """A model with two versions."""
    monkeypatch.setenv("POSTERION_HOME", str(tmp_path / "home"))
    name = f"commands-{tmp_path.name.replace('_', '-')}"
    registry = Registry(store_uri)
    for seed, rmse in ((1, 0.5), (2, 0.4)):
        registry.register(
            write_version(tmp_path / f"v{seed}", seed=seed, rmse=rmse), name=name, alias="candidate"
        )
    return name


def _run(*arguments: str) -> str:
    result = CliRunner().invoke(models, list(arguments), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def _json(*arguments: str) -> Any:
    return json.loads(_run(*arguments, "--json"))


def test_list_and_show(registered: str) -> None:
    mine = [m for m in _json("list")["models"] if m["name"] == registered]
    assert [v["version"] for v in mine[0]["versions"]] == [2, 1]
    assert mine[0]["aliases"] == {"candidate": 2}
    assert f"{registered}@2\tcandidate\tregression" in _run("list")
    shown = _json("show", f"{registered}@candidate")
    assert shown["metrics"]["test.rmse"] == 0.4
    assert "# A model" in _run("show", f"{registered}@2")


def test_compare(registered: str) -> None:
    compared = _json("compare", f"{registered}@1", f"{registered}@2")
    assert compared["metrics"]["test.rmse"]["difference"] == pytest.approx(-0.1)
    assert f"metric\t{registered}@1\t{registered}@2\tdifference" in _run(
        "compare", f"{registered}@1", f"{registered}@2"
    )


def test_promote_and_rollback(registered: str) -> None:
    assert _json("promote", f"{registered}@1")["aliases"] == ["champion"]
    assert f"{registered}@2 is champion" in _run("promote", registered)
    assert f"{registered}@1 is champion again" in _run("rollback", registered)
    assert set(_json("show", f"{registered}@2")["aliases"]) == {"candidate", "previous"}


def test_export_is_whole_and_never_overwrites(registered: str, tmp_path: Path) -> None:
    target = tmp_path / "exported"
    exported = _json("export", f"{registered}@1", "--output", str(target))
    assert exported["path"] == str(target)
    assert (target / "model" / "model.safetensors").is_file()
    assert list(tmp_path.glob(".*partial")) == []
    with pytest.raises(RequestError, match="exists"):
        _run("export", f"{registered}@1", "--output", str(target))


def test_onnx_is_not_offered(registered: str) -> None:
    result = CliRunner().invoke(models, ["export", registered, "--format", "onnx"])
    assert result.exit_code == 2


def test_without_a_server_the_remedy_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("POSTERION_HOME", str(tmp_path))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    for command, arguments in (
        (models, ["list"]),
        (predict, ["some@1", "--input", "-"]),
        (evaluate, ["some@1", "--data", "x.csv"]),
    ):
        with pytest.raises(ServiceError, match="posterion up"):
            CliRunner().invoke(command, arguments, catch_exceptions=False)


def test_the_settings_of_the_home_name_the_server(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("POSTERION_HOME", str(tmp_path))
    (tmp_path / "platform.yaml").write_text("registry: {port: 9}\n")
    with pytest.raises(ServiceError, match=r"127\.0\.0\.1:9 "):
        CliRunner().invoke(models, ["list"], catch_exceptions=False)


def test_an_unknown_folder_is_refused() -> None:
    with pytest.raises(RequestError, match="there is no folder"):
        CliRunner().invoke(
            predict, ["path:/nowhere/at/all", "--input", "-"], catch_exceptions=False
        )


def test_the_command_module_is_light() -> None:
    code = (
        "import sys, posterion_registry.commands, posterion_registry.service\n"
        "heavy = {'mlflow', 'torch', 'pyarrow', 'pandas', 'transformers', 'ray', 'requests'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, check=True)
    assert done.stdout.decode().strip() == "[]"
