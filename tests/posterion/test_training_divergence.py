"""A run whose loss leaves all bounds goes back, and says so."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from posterion import WorkError
from posterion.config import DivergenceSection
from posterion.testing import tiny_pretraining
from posterion.training import NullListener, RollbackReport, SoloGang, StepReport, fit
from posterion.training._divergence import DivergenceGuard


def guard(path: Path, **settings: float) -> DivergenceGuard:
    return DivergenceGuard(DivergenceSection(**settings), path)


def test_a_spike_is_told_from_noise(tmp_path: Path):
    watching = guard(tmp_path / "r.json", spike=6.0, window=20)
    calm = [2.0 + 0.1 * (-1) ** step for step in range(20)]
    assert watching.problem(2.5, calm) is None
    assert watching.problem(2.9, calm) is not None
    assert "standard deviations above" in str(watching.problem(2.9, calm))
    assert watching.problem(50.0, calm[:9]) is None, "too few steps to know what is usual"
    assert watching.problem(1.0, calm) is None, "a lower loss is no harm"
    assert guard(tmp_path / "r.json").problem(1e9, calm) is None, "off unless asked for"
    assert guard(tmp_path / "r.json").problem(math.nan, calm) == "the loss is nan"


def test_returns_are_kept_and_add_up(tmp_path: Path):
    path = tmp_path / "rollbacks.json"
    first = guard(path, rollbacks=2, learning_rate_factor=0.5)
    first.record(12, 10, "a reason", write=True)
    first.record(15, 10, "another", write=True)
    again = guard(path, rollbacks=2, learning_rate_factor=0.5)
    assert again.rollbacks == first.rollbacks
    assert not again.may_roll_back
    assert [again.learning_rate_factor(step) for step in (9, 10, 30)] == [1.0, 0.25, 0.25]


class Spoiler(NullListener):
    """Spoils the weights once, as a broken memory chip or a wild gradient would."""

    def __init__(self, at: int, times: int = 1) -> None:
        self.at, self.times = at, times
        self.reports: list[RollbackReport] = []
        self.steps: list[StepReport] = []

    def on_step(self, report: StepReport) -> None:
        self.steps.append(report)

    def on_rollback(self, report: RollbackReport) -> None:
        self.reports.append(report)


@pytest.fixture
def spoiled(monkeypatch: pytest.MonkeyPatch):
    """Makes gradients infinite in chosen passes."""

    def install(step: int, times: int) -> None:
        from posterion.training import _passes

        original = _passes.seed_micro_batch
        left = {"times": times}

        def spoil(seed: int, at: int, micro_batch: int) -> None:
            original(seed, at, micro_batch)
            spoil.active = at == step and left["times"] > 0  # type: ignore[attr-defined]

        spoil.active = False  # type: ignore[attr-defined]
        monkeypatch.setattr(_passes, "seed_micro_batch", spoil)
        backward = _passes.Engine.backward

        def wild(engine, loss) -> None:
            if spoil.active:  # type: ignore[attr-defined]
                left["times"] -= 1
                loss = loss * math.inf
            backward(engine, loss)

        monkeypatch.setattr(_passes.Engine, "backward", wild)

    return install


def test_a_wild_step_is_taken_back_and_the_run_goes_on(tmp_path: Path, spoiled):
    spoiled(step=7, times=1)
    spec = tiny_pretraining(tmp_path, {"optimization.max_steps": 12, "evaluation.every_steps": 5})
    listener = Spoiler(7)
    result = fit(spec, SoloGang(), listener)
    (report,) = listener.reports
    assert (report.step, report.to_step, report.learning_rate_factor) == (8, 5, 0.5)
    assert "gradient norm" in report.reason
    assert result.steps == 12
    assert [step.step for step in listener.steps] == [*range(1, 8), *range(6, 13)]
    again = {step.step: step for step in listener.steps}
    before = {step.step: step for step in reversed(listener.steps)}
    assert again[6].learning_rate == pytest.approx(before[6].learning_rate / 2)
    kept = json.loads((spec.run_dir / "rollbacks.json").read_text())["rollbacks"]
    assert [each["step"] for each in kept] == [8]
    history = json.loads(result.history_path.read_text())
    assert len(history["loss"]) == 12
    assert all(map(math.isfinite, history["loss"]))


def test_it_gives_up_when_going_back_does_not_help(tmp_path: Path, spoiled):
    spoiled(step=7, times=100)
    spec = tiny_pretraining(tmp_path, {"optimization.max_steps": 12, "evaluation.every_steps": 5})
    with pytest.raises(WorkError, match="diverged: the gradient norm is") as caught:
        fit(spec, SoloGang(), Spoiler(7))
    message = str(caught.value)
    assert message.count("The run had gone back from step 8 to step 5") == 2
    assert "The checkpoint after step 5 is intact" in message
