"""One schedule, played on a cluster: waits for each place, does what is due, waits for the end."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from _fault_cluster import Driver, FaultCluster, wait_for

AHEAD = 6
"""Steps that the run may make beyond the place of an event, before it goes on."""
LONGEST_DELAY_S = 0.15


@dataclass(frozen=True)
class Event:
    """Something that happens to a run."""

    after_step: int
    kind: str
    """``worker``, ``driver``, ``node`` (another comes at once), ``shrink`` or ``grow``."""


@dataclass
class Stage:
    """What schedules are played on; parts of it are replaced when they die."""

    cluster: FaultCluster
    driver: Driver

    @classmethod
    def set(cls) -> Stage:
        """A new one."""
        cluster = FaultCluster(2)
        return cls(cluster, Driver(cluster.address))

    def replace_driver(self) -> None:
        """The driver dies, another comes."""
        self.driver.kill()
        self.driver = Driver(self.cluster.address)

    def close(self) -> None:
        """End everything."""
        self.driver.kill()
        self.cluster.shutdown()


class Play:
    """One run and what happens to it.

    Args:
        stage: Where.
        spec: What is trained.
        seed: Decides who dies and when exactly.
    """

    def __init__(self, stage: Stage, spec: Any, seed: int) -> None:
        self._stage = stage
        self._spec = spec
        self._run_dir: Path = spec.run_dir
        self._seed = seed
        self._rng = random.Random(seed)
        self._result: dict[str, Any] | None = None
        self.recoveries: list[tuple[str, float]] = []
        """Kinds of events, and seconds to the next start."""

    def run(self, events: tuple[Event, ...], num_steps: int) -> dict[str, Any]:
        """From the start to the end; what the driver said of it."""
        self._run_dir.mkdir(parents=True, exist_ok=True)
        self._stage.driver.train(self._spec)
        for event in events:
            self._open(event.after_step)
            self._wait(lambda place=event.after_step: self._steps() >= place, "a step")
            if self._result is None:
                self._do(event)
        self._open(num_steps)
        self._wait(lambda: False, "the end of the run")
        assert self._result is not None
        return self._result

    def _do(self, event: Event) -> None:
        if event.kind != "grow":  # somewhere in the midst of a step, or of a checkpoint
            self._open(event.after_step + AHEAD)
            time.sleep(self._rng.uniform(0.0, LONGEST_DELAY_S))
        before, start = self._starts(), time.monotonic()
        getattr(self, f"_{event.kind}")()
        self._wait(lambda: self._starts() > before, f"a start after {event.kind}")
        if event.kind != "grow":
            self.recoveries.append((event.kind, round(time.monotonic() - start, 2)))

    def _worker(self) -> None:
        workers = wait_for(self._stage.cluster.workers, "a worker")
        self._rng.choice(workers).kill()

    def _driver(self) -> None:
        self._stage.replace_driver()
        self._stage.driver.train(self._spec)

    def _node(self) -> None:
        self._shrink()
        self._stage.cluster.add_node()

    def _shrink(self) -> None:
        self._stage.cluster.kill_node(self._rng.randrange(len(self._stage.cluster.nodes)))

    def _grow(self) -> None:
        """A node comes; the run, which is asked between two steps, creeps on until it has it."""
        before, gate = self._starts(), self._steps()
        self._stage.cluster.add_node()
        while self._starts() == before and self._result is None:
            self._poll()
            time.sleep(1.0)
            gate += 1
            self._open(gate)

    # -- the run's files ---------------------------------------------------------------------

    def _open(self, steps: int) -> None:
        (self._run_dir / "gate").write_text(str(steps))

    def _steps(self) -> int:
        return max((e["step"] for e in self._events() if e["event"] == "step"), default=0)

    def _starts(self) -> int:
        return sum(event["event"] == "start" for event in self._events())

    def _events(self) -> list[dict[str, Any]]:
        path = self._run_dir / "training.jsonl"
        lines = path.read_text().split("\n")[:-1] if path.exists() else []
        return [json.loads(line) for line in lines]

    def _poll(self) -> None:
        if self._result is None:
            self._result = self._stage.driver.poll()

    def _wait(self, condition: Callable[[], bool], what: str) -> None:
        """Until it is so, or the run has ended."""

        def done() -> bool:
            self._poll()
            return self._result is not None or condition()

        wait_for(done, f"{what} (seed {self._seed})")
