"""The files that make clusters: accepted by Ray, alike in what matters."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

ROOT = Path(__file__).resolve().parents[2]
RAY_UP = ("cluster.yaml", "docs/cluster/machines.yaml")
RAY_VERSION = next(
    line.partition("==")[2]
    for line in tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    if line.startswith("ray[")
)


def read(name: str) -> dict[str, Any]:
    values: dict[str, Any] = yaml.safe_load((ROOT / name).read_text())
    return values


def kuberay(kind: str) -> dict[str, Any]:
    documents = yaml.safe_load_all((ROOT / "docs/cluster/kuberay.yaml").read_text())
    return next(document for document in documents if document["kind"] == kind)


def pods(cluster: dict[str, Any]) -> list[dict[str, Any]]:
    groups = [cluster["spec"]["headGroupSpec"], *cluster["spec"]["workerGroupSpecs"]]
    return [group["template"]["spec"] for group in groups]


@pytest.mark.parametrize("name", RAY_UP)
def test_ray_up_accepts_it(name: str) -> None:
    full = prepare_config(read(name))
    validate_config(full)
    head = full["head_node_type"]
    workers = {kind: types for kind, types in full["available_node_types"].items()}
    assert head in workers
    assert sum(each["max_workers"] for each in workers.values()) >= full["max_workers"]


@pytest.mark.parametrize("name", RAY_UP)
def test_every_machine_is_set_up_alike(name: str) -> None:
    config = read(name)
    (head,) = (c for c in config["head_start_ray_commands"] if "ray start" in c)
    (worker,) = (c for c in config["worker_start_ray_commands"] if "ray start" in c)
    for command in (head, worker):
        assert "RAY_AUTH_MODE=token" in command
        assert "RAY_AUTH_TOKEN_PATH=~/.ray/auth_token" in command
        assert "POSTERION_HOME=/posterion" in command
    assert "--dashboard-host=127.0.0.1" in head
    assert "--num-cpus=0" in head
    assert config["file_mounts"]["~/.ray/auth_token"] == "~/.ray/auth_token"
    installs = [command for command in config["setup_commands"] if "pip install" in command]
    assert all("constraints.txt" in c or "uv==" in c for c in installs), "everything pinned"


def test_gpus_are_asked_for_between_limits() -> None:
    types = read("cluster.yaml")["available_node_types"]
    gpu_types = [kind for kind in types.values() if kind["resources"].get("GPU")]
    assert gpu_types
    assert all(kind["min_workers"] == 0 < kind["max_workers"] for kind in gpu_types)


def test_kubernetes_manifest_says_the_same() -> None:
    cluster = kuberay("RayCluster")
    spec = cluster["spec"]
    assert cluster["apiVersion"] == "ray.io/v1"
    assert spec["rayVersion"] == RAY_VERSION
    assert spec["authOptions"] == {"mode": "token"}
    assert spec["enableInTreeAutoscaling"] is True
    assert spec["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    assert all(isinstance(value, str) for value in spec["headGroupSpec"]["rayStartParams"].values())
    for group in spec["workerGroupSpecs"]:
        assert group["minReplicas"] == group["replicas"] == 0 < group["maxReplicas"]
    limits = [pod["containers"][0]["resources"]["limits"] for pod in pods(cluster)]
    assert any("nvidia.com/gpu" in limit for limit in limits)


def test_all_pods_see_the_runs_and_nobody_else_calls_them() -> None:
    cluster = kuberay("RayCluster")
    claim = kuberay("PersistentVolumeClaim")
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    for pod in pods(cluster):
        (container,) = pod["containers"]
        environment = {entry["name"]: entry["value"] for entry in container["env"]}
        mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        assert mounts["runs"] == environment["POSTERION_HOME"]
        name = volumes["runs"]["persistentVolumeClaim"]["claimName"]
        assert name == claim["metadata"]["name"]
    policy = kuberay("NetworkPolicy")["spec"]
    own = {"ray.io/cluster": cluster["metadata"]["name"]}
    assert policy["podSelector"]["matchLabels"] == own
    assert policy["ingress"][0]["from"] == [{"podSelector": {"matchLabels": own}}]


def test_image_has_the_version_of_ray() -> None:
    text = (ROOT / "docs/cluster/Dockerfile").read_text()
    assert f"rayproject/ray:{RAY_VERSION}-py311" in text
    assert text.count("-c /home/ray/posterion/constraints.txt") == 2
