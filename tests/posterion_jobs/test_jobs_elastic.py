"""How many workers a run takes, and which failures count."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from posterion_jobs._pausing import GIVEN_UP_STATUS, write_mark
from posterion_jobs._room import Node, count_room, split_by_answer
from posterion_jobs._scaling import useful


def node(name: str, port: int = 1, **free: float) -> Node:
    return Node(id=name, address="127.0.0.1", port=port, free=free)


@pytest.mark.parametrize(
    ("free", "need", "expected"),
    [
        ({"CPU": 4}, {"CPU": 1}, 4),
        ({"CPU": 3.9}, {"CPU": 1}, 3),
        ({"CPU": 0.3}, {"CPU": 0.1}, 3),
        ({"CPU": 16, "GPU": 2}, {"CPU": 4, "GPU": 1}, 2),
        ({"CPU": 16}, {"CPU": 4, "GPU": 1}, 0),
        ({}, {"CPU": 1}, 0),
        ({"CPU": 5}, {"CPU": 1, "GPU": 0}, 5),
    ],
)
def test_room_of_a_node(free: dict[str, float], need: dict[str, float], expected: int) -> None:
    assert node("a", **free).room(need) == expected


def test_room_counts_whole_workers_of_each_node_and_the_places_that_are_held() -> None:
    nodes = [node("a", CPU=1.5), node("b", CPU=1.5)]
    assert count_room(nodes, {"CPU": 1}, Counter(), 8) == 2
    assert count_room(nodes, {"CPU": 1}, Counter({"a": 1, "gone": 5}), 8) == 3
    assert count_room(nodes, {"CPU": 1}, Counter({"a": 1}), 2) == 2
    assert count_room([], {"CPU": 1}, Counter({"a": 1}), 2) == 0


def test_a_node_that_is_gone_does_not_answer() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        there = node("there", port=server.getsockname()[1])
        with socket.create_server(("127.0.0.1", 0)) as other:
            gone = node("gone", port=other.getsockname()[1])
        answering, silent = split_by_answer([gone, there])
    assert [each.id for each in answering] == ["there"]
    assert [each.id for each in silent] == ["gone"]
    assert split_by_answer([]) == ([], [])


@pytest.mark.parametrize(
    ("passes", "by_room"),
    [(8, [0, 1, 2, 3, 4, 4, 4, 4, 8, 8]), (4, [0, 1, 2, 2, 4]), (6, [0, 1, 2, 3, 3, 3, 6])],
)
def test_no_more_workers_than_shorten_a_step(passes: int, by_room: list[int]) -> None:
    assert [useful(room, passes) for room in range(len(by_room))] == by_room
    rounds = [-(-passes // room) for room in range(1, len(by_room))]
    assert [-(-passes // useful(room, passes)) for room in range(1, len(by_room))] == rounds


SUPERSEDED = """
import sys
from pathlib import Path
from posterion_jobs._pausing import Attempt, ask_to_pause, write_mark
folder = Path(sys.argv[1])
attempt = Attempt(folder)
assert not attempt.pause_asked()
ask_to_pause()
assert attempt.pause_asked()
write_mark(folder, "others")
attempt.pause_asked()
"""


def test_a_worker_whose_place_others_took_ends(tmp_path: Path) -> None:
    write_mark(tmp_path, "mine")
    done = subprocess.run(
        [sys.executable, "-c", SUPERSEDED, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == GIVEN_UP_STATUS, done.stderr
    assert "others have taken" in done.stderr or "taken over" in done.stderr
