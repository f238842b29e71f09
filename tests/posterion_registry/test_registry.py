from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from posterion import ArtifactError, NotFoundError, RequestError, ServiceError
from posterion_registry import Registry


@pytest.fixture
def registry(client: Any, store_uri: str, tmp_path: Path) -> Registry:
    return Registry(store_uri, cache_dir=tmp_path / "cache")


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """A registered name of the test's own in the shared store."""
    return hashlib.sha256(request.node.nodeid.encode()).hexdigest()[:12]


def _files(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_what_is_registered_comes_back(registry: Registry, name: str, version_dir: Path) -> None:
    version = registry.register(
        version_dir, name=name, alias="candidate", tags={"licence": "MIT", "recipe": "abc"}
    )
    assert version.reference == f"{name}@1"
    assert version.aliases == ("candidate",)
    assert version.tags["licence"] == "MIT"
    assert version.tags["task"] == "regression"
    assert version.metrics == {"test.n": 10.0, "test.rmse": 0.5}
    assert version.card == (version_dir / "card.md").read_text()
    folder = registry.resolve(f"models:/{name}@candidate")
    assert folder.parent.name == name
    assert folder.name == f"1-{version.digest[:16]}"
    got, put = _files(folder), _files(version_dir)
    assert sorted(got.keys() - put.keys()) == ["MLmodel", "input_example.json", "requirements.txt"]
    assert all(got[key] == put[key] for key in put.keys() - {"manifest.json"})
    listed = json.loads(got["manifest.json"])["files"]
    assert sorted(listed) == sorted(got.keys() - {"manifest.json"})


def test_the_mlflow_model_says_how_to_call_it(
    registry: Registry, name: str, version_dir: Path
) -> None:
    from mlflow.models import Model

    registry.register(version_dir, name=name)
    folder = registry.resolve(f"{name}@1")
    model = Model.load(str(folder / "MLmodel"))
    assert model.flavors["python_function"]["loader_module"] == "posterion_registry.flavour"
    assert model.signature.inputs.input_names() == ["text"]
    assert "interval_low" in model.signature.outputs.input_names()
    example = model.load_input_example(str(folder))
    assert list(example.columns) == ["text"]
    assert len(example) == 1


def test_registering_twice_gives_one_version(
    registry: Registry, name: str, version_dir: Path
) -> None:
    first = registry.register(version_dir, name=name)
    second = registry.register(version_dir, name=name, alias="candidate")
    assert second.version == first.version
    assert second.aliases == ("candidate",)
    assert len(registry.list()) >= 1
    assert [len(m.versions) for m in registry.list() if m.name == name] == [1]


def test_another_run_makes_another_version(
    registry: Registry, client: Any, name: str, version_dir: Path
) -> None:
    experiment = client.get_experiment_by_name("posterion").experiment_id
    run_ids = [client.create_run(experiment).info.run_id for _ in range(2)]
    versions = [registry.register(version_dir, name=name, run_id=run_id) for run_id in run_ids]
    assert [version.version for version in versions] == [1, 2]
    assert [version.run_id for version in versions] == run_ids


def test_a_resolved_version_can_be_registered_again(
    registry: Registry, name: str, version_dir: Path
) -> None:
    registry.register(version_dir, name=name)
    folder = registry.resolve(name + "@1")
    before = _files(folder)
    again = registry.register(folder, name=f"{name}-copy")
    assert again.version == 1
    assert _files(folder) == before
    assert registry.resolve(f"{name}-copy@1") != folder


def test_an_interrupted_upload_leaves_no_version_and_continues(
    registry: Registry, client: Any, name: str, version_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload = type(client).log_model_artifact
    sent: list[str] = []

    def fail_at_weights(self: Any, model_id: str, path: str, folder: str | None = None) -> None:
        if path.endswith("model.safetensors") and not any(p.endswith("tensors") for p in sent):
            sent.append(path)
            raise KeyboardInterrupt
        sent.append(path)
        upload(self, model_id, path, folder)

    monkeypatch.setattr(type(client), "log_model_artifact", fail_at_weights)
    with pytest.raises(KeyboardInterrupt):
        registry.register(version_dir, name=name)
    assert [m for m in registry.list() if m.name == name] == []
    assert list(version_dir.parent.glob(".register-*")) == []
    first = len(sent)
    assert registry.register(version_dir, name=name).version == 1
    names = [Path(path).name for path in sent]
    assert first > 1
    assert names.count("card.md") == 1, "what had arrived is not sent again"
    assert registry.resolve(f"{name}@1").is_dir()


@pytest.mark.parametrize("part", ["model", "metrics.json", "card.md"])
def test_an_incomplete_version_is_refused(
    registry: Registry, name: str, version_dir: Path, part: str
) -> None:
    from posterion.inference import write_manifest

    path = version_dir / part
    if path.is_dir():
        path.rename(version_dir / "elsewhere")
    else:
        path.unlink()
    write_manifest(version_dir)
    with pytest.raises(ArtifactError, match=f"{part} is missing"):
        registry.register(version_dir, name=name)
    assert [m for m in registry.list() if m.name == name] == []


def test_a_changed_version_is_refused(registry: Registry, name: str, version_dir: Path) -> None:
    (version_dir / "model" / "model.safetensors").write_bytes(b"x" * 100_000)
    with pytest.raises(ArtifactError, match=r"model\.safetensors"):
        registry.register(version_dir, name=name)


def test_a_tampered_download_is_refused(registry: Registry, name: str, version_dir: Path) -> None:
    registry.register(version_dir, name=name)
    folder = registry.resolve(f"{name}@1")
    weights = folder / "model" / "model.safetensors"
    good = weights.read_bytes()
    weights.write_bytes(good[:-1] + b"!")
    with pytest.raises(ArtifactError, match=r"model\.safetensors"):
        registry.resolve(f"{name}@1")
    weights.write_bytes(good)
    (folder / "model" / "extra.bin").write_bytes(b"")
    with pytest.raises(ArtifactError, match=r"extra\.bin"):
        registry.resolve(f"{name}@1")


def test_a_consistently_forged_version_is_refused(
    registry: Registry, name: str, version_dir: Path
) -> None:
    from posterion.inference import write_manifest

    version = registry.register(version_dir, name=name)
    stored = Path(version.source.removeprefix("file://"))
    (stored / "metrics.json").write_text('{"test": {"rmse": 0.0001}}')
    write_manifest(stored)
    with pytest.raises(ArtifactError, match=r"manifest\.json"):
        registry.resolve(f"{name}@1")
    cache = registry._cache.folder / name
    assert list(cache.iterdir()) == [], "nothing half-downloaded is left"


def test_unknown_names_list_the_near_ones(registry: Registry, name: str, version_dir: Path) -> None:
    registry.register(version_dir, name=name, alias="candidate")
    with pytest.raises(NotFoundError, match=f"Did you mean '{name}'"):
        registry.resolve(f"{name[:-1]}_@champion")
    with pytest.raises(NotFoundError, match="Did you mean 'candidate'"):
        registry.resolve(f"{name}@candidat")
    with pytest.raises(NotFoundError, match="no version 99; its versions are 1"):
        registry.show(f"{name}@99")


def test_promote_and_rollback(
    registry: Registry, name: str, tmp_path: Path, write_version: Callable[..., Path]
) -> None:
    for seed in (1, 2, 3):
        registry.register(
            write_version(tmp_path / f"v{seed}", seed=seed), name=name, alias="candidate"
        )
    with pytest.raises(NotFoundError, match="no version with the alias 'previous'"):
        registry.rollback(name)
    assert registry.promote(f"{name}@1").aliases == ("champion",)
    assert registry.promote(name).reference == f"{name}@3", "a bare name promotes the candidate"
    assert _aliases(registry, name) == {"candidate": 3, "champion": 3, "previous": 1}
    registry.promote(f"{name}@3")
    assert _aliases(registry, name)["previous"] == 1, "promoting the champion changes nothing"
    assert registry.rollback(name).reference == f"{name}@1"
    assert _aliases(registry, name) == {"candidate": 3, "champion": 1, "previous": 3}
    registry.rollback(name)
    assert _aliases(registry, name) == {"candidate": 3, "champion": 3, "previous": 1}


def _aliases(registry: Registry, name: str) -> dict[str, int]:
    return next(dict(model.aliases) for model in registry.list() if model.name == name)


def test_compare(
    registry: Registry, name: str, tmp_path: Path, write_version: Callable[..., Path]
) -> None:
    registry.register(write_version(tmp_path / "a", rmse=0.5), name=name, tags={"recipe": "a"})
    registry.register(write_version(tmp_path / "b", rmse=0.4), name=name, tags={"recipe": "b"})
    comparison = registry.compare(f"{name}@1", f"{name}@2")
    assert comparison.metrics["test.rmse"] == (0.5, 0.4)
    assert comparison.difference("test.rmse") == pytest.approx(-0.1)
    assert comparison.to_dict()["tags"]["recipe"] == {"left": "a", "right": "b"}


def test_a_model_of_somebody_else_is_refused(registry: Registry, client: Any, name: str) -> None:
    client.create_registered_model(name)
    experiment = client.get_experiment_by_name("posterion").experiment_id
    run = client.create_run(experiment)
    client.create_model_version(name, f"{run.info.artifact_uri}/model", run.info.run_id)
    with pytest.raises(RequestError, match="was not registered by Posterion"):
        registry.resolve(f"{name}@1")


def test_without_a_server_only_known_versions_are_found(
    registry: Registry, name: str, version_dir: Path, tmp_path: Path
) -> None:
    away = Registry("http://127.0.0.1:9", cache_dir=tmp_path / "cache")
    with pytest.raises(ServiceError, match="posterion up"):
        away.resolve(f"{name}@1")
    registry.register(version_dir, name=name, alias="champion")
    folder = registry.resolve(f"{name}@1")
    with pytest.raises(ServiceError):
        away.resolve(f"{name}@1")  # it came from another registry
    note = folder.with_name(f"{folder.name}.json")
    note.write_text(json.dumps({**json.loads(note.read_text()), "uri": away.uri}))
    assert away.resolve(f"{name}@1") == folder
    with pytest.raises(ServiceError):
        away.resolve(f"{name}@champion")
