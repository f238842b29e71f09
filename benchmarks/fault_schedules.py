"""Seeded schedules of SIGKILL and resizes: is the training what it would have been undisturbed?

Each schedule is one training of a tiny model by Ray Train on nodes that come and go. Its seed
decides what dies after which step: a worker, the job's driver (the run is then resumed), a
node; and for half of the schedules the run shrinks from two workers to one and grows again.
ZeRO stages 0 to 3, fine-tuning and pretraining take turns. Compared with an undisturbed
training by plain processes:

- every row exactly once in each epoch, by what the workers really loaded;
- the loss of every step, and weights and Adam's moments at the end: the same bits with a fixed
  number of workers, losses within 1e-5 where it was resized.

What is finished is kept in the output file and not done again.

    python benchmarks/fault_schedules.py [--seeds 60] [--first 0] [--output FILE]
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import statistics
import tempfile
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import _fault_checks as checks
from _fault_cluster import set_environment
from _fault_play import Event, Play, Stage

RESULTS = Path(__file__).parent / "results" / "fault_schedules.json"
NUM_STEPS = 50
TOLERANCE = 1e-5


@dataclass(frozen=True)
class Schedule:
    """All that happens to one run."""

    seed: int
    job: str
    zero: int
    precision: str
    elastic: bool
    events: tuple[Event, ...]


@dataclass
class Outcome:
    """What came of a schedule."""

    schedule: Schedule
    problem: str = ""
    loss_difference: float = 0.0
    state_difference: float = 0.0
    recoveries: list[tuple[str, float]] = field(default_factory=list)
    """Kind of event, and seconds to the next start."""
    seconds: float = 0.0


def make_schedule(seed: int) -> Schedule:
    """The schedule of a seed."""
    rng = random.Random(seed)
    elastic = seed // 4 % 2 == 1
    number = 3 if elastic else rng.choice([2, 3])
    places = sorted(rng.sample(range(3, NUM_STEPS // 2), number))
    if elastic:
        kinds = ["shrink", rng.choice(["worker", "driver"]), "grow"]
    else:
        kinds = [rng.choice(["worker", "driver", "node"]) for _ in places]
    return Schedule(
        seed=seed,
        job="pretrain" if seed // 8 % 2 else "finetune",
        zero=seed % 4,
        # Rounding to eight bits makes of the last bit of a sum a larger difference.
        precision="bf16" if not elastic and seed // 16 % 2 else "fp32",
        elastic=elastic,
        events=tuple(Event(place, kind) for place, kind in zip(places, kinds, strict=True)),
    )


def make_spec(directory: Path, schedule: Schedule, workers: Any) -> Any:
    """A training of a few dozen rows, four micro-batches a step."""
    from posterion.testing import tiny_pretraining, tiny_training

    make = {"finetune": tiny_training, "pretrain": tiny_pretraining}[schedule.job]
    overrides = {
        "optimization.epochs": 100,
        "optimization.max_steps": NUM_STEPS,
        "optimization.batch_tokens": 64,
        "optimization.accumulation": 2,
        "evaluation.every_steps": 5,
        "engine.zero": schedule.zero,
        "engine.precision": schedule.precision,
        "engine.workers": workers,
        "engine.max_failures": 10,
        # Spare processes make recoveries quick and cost as much to start as workers do.
        "engine.spares_after_seconds": None if schedule.seed % 3 else 0,
    }
    return make(directory, overrides)


class Runner:
    """Plays schedules on one cluster, one after another."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._stage = Stage.set()
        self._expected: dict[tuple[str, int, str], tuple[list[float], checks.State]] = {}

    def close(self) -> None:
        """End the driver and the cluster."""
        self._stage.close()

    def play(self, schedule: Schedule) -> Outcome:
        """Run a schedule and judge it."""
        losses, state = self._undisturbed(schedule)
        outcome, start = Outcome(schedule), time.monotonic()
        directory = self._directory / f"seed-{schedule.seed}"
        workers = {"min": 1, "max": 2, "settle_seconds": 0.0} if schedule.elastic else 2
        spec = make_spec(directory, schedule, workers)
        play = Play(self._stage, spec, schedule.seed)
        try:
            result = play.run(schedule.events, NUM_STEPS)
        except TimeoutError as error:
            result = {"error": str(error)}
            self._stage.close()
            self._stage = Stage.set()
        outcome.seconds = round(time.monotonic() - start, 1)
        outcome.recoveries = play.recoveries
        while len(self._stage.cluster.nodes) < 2:
            self._stage.cluster.add_node()
        if "error" in result:
            outcome.problem = str(result["error"])
        else:
            self._judge(outcome, spec.run_dir, losses, state)
        if not outcome.problem:
            shutil.rmtree(directory)
        return outcome

    def _judge(
        self, outcome: Outcome, run_dir: Path, losses: list[float], state: checks.State
    ) -> None:
        elastic = outcome.schedule.elastic
        outcome.loss_difference = checks.largest_loss_difference(losses, checks.losses(run_dir))
        outcome.state_difference = checks.largest_difference(state, checks.final_state(run_dir))
        outcome.problem = checks.wrong_rows(run_dir)
        if outcome.problem:
            return
        if outcome.loss_difference > (TOLERANCE if elastic else 0.0):
            outcome.problem = f"losses differ by {outcome.loss_difference:.2g}"
        elif outcome.state_difference and not elastic:
            outcome.problem = f"weights differ by {outcome.state_difference:.2g}"

    def _undisturbed(self, schedule: Schedule) -> tuple[list[float], checks.State]:
        """Losses and final state of a training by two plain processes."""
        from posterion.testing import run_workers

        key = (schedule.job, schedule.zero, schedule.precision)
        if key not in self._expected:
            directory = self._directory / "-".join(map(str, ("undisturbed", *key)))
            spec = make_spec(directory, schedule, 2)
            run_workers(spec, 2)
            self._expected[key] = checks.losses(spec.run_dir), checks.final_state(spec.run_dir)
        return self._expected[key]


def summary(outcomes: list[Outcome]) -> dict[str, Any]:
    """Figures over all schedules."""
    recoveries: dict[str, list[float]] = {}
    for outcome in outcomes:
        for kind, seconds in outcome.recoveries:
            recoveries.setdefault(kind, []).append(seconds)
    fixed = [outcome for outcome in outcomes if not outcome.schedule.elastic]
    resized = [outcome for outcome in outcomes if outcome.schedule.elastic]
    return {
        "schedules": len(outcomes),
        "passed": sum(not outcome.problem for outcome in outcomes),
        "events": sum(len(outcome.schedule.events) for outcome in outcomes),
        "largest_loss_difference_fixed": max((o.loss_difference for o in fixed), default=0.0),
        "largest_loss_difference_resized": max((o.loss_difference for o in resized), default=0.0),
        "largest_state_difference_resized": max((o.state_difference for o in resized), default=0.0),
        "recovery_seconds": {
            kind: {"median": round(statistics.median(values), 2), "most": max(values)}
            for kind, values in sorted(recoveries.items())
        },
    }


def describe(outcome: Outcome) -> str:
    """One line."""
    schedule = outcome.schedule
    events = ", ".join(f"{event.kind} after {event.after_step}" for event in schedule.events)
    return (
        f"seed {schedule.seed}: {schedule.job}, ZeRO {schedule.zero}, {schedule.precision}, "
        f"{events}: {outcome.problem or 'the same'} (losses {outcome.loss_difference:.1e}, "
        f"weights {outcome.state_difference:.1e}, {outcome.seconds:.0f} s, {outcome.recoveries})"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=60, help="number of schedules")
    parser.add_argument("--first", type=int, default=0, help="first seed")
    parser.add_argument("--output", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    outcomes = known(arguments.output)
    done = {outcome.schedule.seed for outcome in outcomes}
    with tempfile.TemporaryDirectory(prefix="faults-") as directory:
        runner = Runner(Path(directory))
        try:
            for seed in range(arguments.first, arguments.first + arguments.seeds):
                if seed in done:
                    continue
                outcomes.append(runner.play(make_schedule(seed)))
                print(describe(outcomes[-1]), flush=True)
                write(outcomes, arguments.output)
        finally:
            runner.close()
    print(json.dumps(summary(outcomes), indent=1))


def write(outcomes: list[Outcome], path: Path) -> None:
    """Keep all that is known so far."""
    found = {"summary": summary(outcomes), "schedules": [asdict(o) for o in outcomes]}
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(json.dumps(found, indent=1) + "\n")
    partial.replace(path)


def known(path: Path) -> list[Outcome]:
    """Outcomes of earlier calls; those that went wrong are played again."""
    if not path.exists():
        return []
    outcomes = []
    for values in json.loads(path.read_text())["schedules"]:
        schedule = values.pop("schedule")
        events = tuple(Event(**event) for event in schedule.pop("events"))
        recoveries = [(kind, seconds) for kind, seconds in values.pop("recoveries")]
        if not values["problem"]:
            made = Schedule(**schedule, events=events)
            outcomes.append(Outcome(schedule=made, recoveries=recoveries, **values))
    return outcomes


if __name__ == "__main__":
    set_environment()
    main()
