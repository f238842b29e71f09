from __future__ import annotations

import os
from pathlib import Path

import pytest

from posterion.config import Home, PlatformSettings
from posterion_jobs import service
from posterion_jobs._address import LocalCluster

LONGEST_SOCKET = "/session_2026-01-31_14-25-01_123456_1234567/sockets/plasma_store"


def test_ray_keeps_to_loopback_and_sees_no_secret_in_its_arguments(home: Home, tmp_path: Path):
    settings = PlatformSettings.model_validate({"ray": {"num_cpus": 2}})
    LocalCluster(home, settings).create_token()
    token = (home.secrets_dir / "ray-token").read_text()
    command = service._command(settings, tmp_path)
    assert "--node-ip-address=127.0.0.1" in command
    assert "--dashboard-host=127.0.0.1" in command
    assert "--num-cpus=2" in command
    assert not any(token in argument for argument in command)
    environment = service.RayService().environment(home, settings)
    assert environment["RAY_AUTH_MODE"] == "token"
    assert environment["POSTERION_HOME"] == str(home.path)
    assert token not in environment.values()
    assert service._head_environment()["RAY_USAGE_STATS_ENABLED"] == "0"


@pytest.mark.parametrize("name", ["h", "a-folder-with-a-name-so-long-that-no-socket-path-fits"])
def test_sockets_fit_whatever_the_home_folder_is_called(name: str):
    import shutil
    import tempfile

    root = Path(tempfile.mkdtemp(prefix="pt-", dir="/tmp"))
    try:
        folder = service._make_temp_dir(Home(root / name))
        assert len(os.fsencode(str(folder) + LONGEST_SOCKET)) <= 107
        assert folder.parent.stat().st_mode & 0o777 == 0o700
        assert folder.is_relative_to(root) == (name == "h")
        if not folder.is_relative_to(root):
            folder.parent.rmdir()
    finally:
        shutil.rmtree(root)


def test_nothing_runs_and_nothing_is_stopped_in_an_empty_home(home: Home):
    ray = service.RayService()
    settings = PlatformSettings()
    assert ray.health(home, settings).state == "down"
    ray.stop(home, settings)
    assert not (home.path / "ray").exists()


def test_doctor_has_a_finding_for_each_need():
    checks = service.RayService().checks()
    assert [check.name for check in checks] == ["ray", "shared memory", "open files"]
    assert checks[0].ok
    assert "2.60" in checks[0].detail
