from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from posterion_jobs._runs import RunFolder
from posterion_jobs._stages import Stages, Stopped


class Told:
    def __init__(self) -> None:
        self.events: list[tuple[str, str]] = []

    def __call__(self, event: str, /, **fields: Any) -> None:
        self.events.append((fields["stage"], fields["status"]))


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path)


def test_a_stage_is_done_once(folder: RunFolder, told: Told):
    assert Stages(folder, told).run("data", lambda: {"rows": 3}) == {"rows": 3}
    assert Stages(folder, told).run("data", lambda: pytest.fail("done again")) == {"rows": 3}
    assert told.events == [("data", "begin"), ("data", "done"), ("data", "kept")]


def test_a_stage_that_failed_is_done_again(folder: RunFolder, told: Told):
    with pytest.raises(ZeroDivisionError):
        Stages(folder, told).run("data", lambda: {"rows": 1 // 0})
    assert Stages(folder, told).run("data", lambda: {"rows": 4}) == {"rows": 4}


def test_a_result_that_no_longer_holds_is_made_anew(folder: RunFolder, told: Told):
    Stages(folder, told).run("data", lambda: {"rows": 3})
    again = Stages(folder, told).run("data", lambda: {"rows": 5}, valid=lambda r: r["rows"] == 5)
    assert again == {"rows": 5}


def test_a_damaged_result_is_made_anew(folder: RunFolder, told: Told):
    Stages(folder, told).run("data", lambda: {"rows": 3})
    (folder.path / "stages" / "data.json").write_text("{", encoding="utf-8")
    assert Stages(folder, told).run("data", lambda: {"rows": 5}) == {"rows": 5}


def test_a_wish_to_stop_is_granted_before_the_next_stage(folder: RunFolder, told: Told):
    stages = Stages(folder, told)
    stages.run("data", lambda: {"rows": 3})
    folder.stop_path.touch()
    assert stages.run("data", lambda: {}) == {"rows": 3}
    with pytest.raises(Stopped):
        stages.run("train", lambda: pytest.fail("begun although stopped"))
