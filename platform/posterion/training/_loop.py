"""The training loop. It knows no task, no model and no cluster by name."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path

from posterion._exceptions import Interrupted, WorkError
from posterion.training._checkpoints import CheckpointStore, write_json
from posterion.training._collectives import barrier, from_rank_zero
from posterion.training._course import StepPlan
from posterion.training._deepspeed import without_collective_warnings
from posterion.training._divergence import DivergenceGuard
from posterion.training._early_stopping import BestTracker
from posterion.training._failure import Diverged, diverged
from posterion.training._gang import Gang
from posterion.training._history import History
from posterion.training._listener import (
    CheckpointReport,
    EvaluationReport,
    Listener,
    NullListener,
    RollbackReport,
    StepReport,
    Totals,
)
from posterion.training._memory import keep_freed_memory
from posterion.training._numerics import flushed_denormals
from posterion.training._passes import Passes, StepOutcome
from posterion.training._picture import draw_loss
from posterion.training._prefetch import Prefetcher
from posterion.training._profile import Profile
from posterion.training._schedule import learning_rate_factor
from posterion.training._setup import Setup, prepare
from posterion.training._signals import StopRequest
from posterion.training._spec import FitResult, TrainingSpec
from posterion.training._state import (
    TrainerState,
    checkpoint_bytes,
    load_newest,
    save_checkpoint,
)


def fit(
    spec: TrainingSpec,
    gang: Gang,
    listener: Listener | None = None,
    *,
    resume: bool = True,
    should_stop: Callable[[], bool] | None = None,
) -> FitResult:
    """Train as the recipe says; every worker of the gang calls this with the same spec.

    The result is the same bit for bit however often the run was stopped or killed and called
    again, on CPUs and with the same number of workers; with other numbers of workers it is the
    same but for the rounding of sums. Every row comes exactly once in each epoch.

    Args:
        spec: What to train, on what, where to write.
        gang: Who this process is among the workers.
        listener: Hears of progress.
        resume: Continue from the newest valid checkpoint; otherwise drop all of them.
        should_stop: Asked between steps on every worker; a yes from any stops all of them.
            SIGTERM and Ctrl-C do the same where this is the main thread.

    Raises:
        Interrupted: Somebody asked to stop; a checkpoint was written first.
        RequestError: The run's checkpoint belongs to other settings.
        WorkError: The training diverged more often than the recipe allows.
    """
    keep_freed_memory()
    with StopRequest(should_stop) as stop, flushed_denormals(), without_collective_warnings():
        setup = prepare(spec, gang)
        loop = _Loop(spec, setup, gang, listener or NullListener(), stop)
        try:
            return loop.run(resume=resume)
        finally:
            loop.close()


class _Loop:
    def __init__(
        self, spec: TrainingSpec, setup: Setup, gang: Gang, listener: Listener, stop: StopRequest
    ) -> None:
        self._spec = spec
        self._setup = setup
        self._gang = gang
        self._listener = listener
        self._stop = stop
        self._recipe = setup.recipe
        self._store = CheckpointStore(
            spec.run_dir / "checkpoints", keep=setup.recipe.engine.keep_checkpoints
        )
        self._workload = setup.workload
        self._state = TrainerState(
            tracker=BestTracker(greater_is_better=setup.workload.greater_is_better),
            history=History(metric=setup.workload.metric),
        )
        self._last_checkpoint: int | None = None
        self._rollbacks_path = spec.run_dir / "rollbacks.json"
        self._guard = DivergenceGuard(self._recipe.divergence, self._rollbacks_path)
        self._prefetcher = Prefetcher(setup.workload, gang)
        self._passes = Passes(
            setup.workload, setup.engine, self._prefetcher, gang, seed=setup.recipe.seed
        )
        self._profile = Profile(
            spec.run_dir / "artifacts" / "profile",
            active=setup.recipe.engine.profile and gang.rank == 0,
        )

    def close(self) -> None:
        """Let go of threads."""
        self._prefetcher.close()

    def run(self, *, resume: bool) -> FitResult:
        self._start(resume=resume)
        resumed_from = self._last_checkpoint
        while not self._is_finished():
            try:
                asked = self._train_step()
            except Diverged as failure:
                self._roll_back(failure)
                continue
            due = self._is_due()
            start = time.perf_counter()
            if due:
                self._evaluate()
            if due or asked:
                self._checkpoint()
                self._setup.meter.pause(time.perf_counter() - start)
            if asked and not self._is_finished():
                self._interrupt()
        return self._finish(resumed_from)

    # -- start and end ------------------------------------------------------------------

    def _start(self, *, resume: bool) -> None:
        if self._gang.rank == 0:
            self._store.remove_partial()
            if not resume:
                self._store.clear()
                self._rollbacks_path.unlink(missing_ok=True)
        if not resume:
            self._guard.rollbacks.clear()
        barrier(self._gang)
        self._load_newest()
        setup, workload = self._setup, self._workload
        setup.engine.model.train()
        self._listener.on_start(
            Totals(
                total_steps=workload.course.total_steps,
                first_step=self._state.step,
                epochs=workload.course.epochs,
                train_rows=workload.num_rows,
                train_tokens=workload.num_tokens,
                validation_rows=workload.num_validation_rows,
                world_size=self._gang.world_size,
                num_parameters=setup.num_parameters,
            )
        )

    def _load_newest(self) -> None:
        setup = self._setup
        state = load_newest(self._store, setup.engine, identity=setup.identity, gang=self._gang)
        if state is not None:
            self._state = state
            self._last_checkpoint = state.step

    def _finish(self, resumed_from: int | None) -> FitResult:
        self._write_history()
        barrier(self._gang)
        tracker, run_dir = self._state.tracker, self._spec.run_dir
        if tracker.best is None:
            raise WorkError(
                f"No evaluation gave a finite {self._workload.metric} on the validation part, so "
                "there is no best model. Look at the loss curve, check the validation part's "
                "targets, or choose another evaluation.metric."
            )
        return FitResult(
            best_model_dir=run_dir / "best" / "model",
            history_path=self._history_path,
            picture_path=self._picture_path,
            steps=self._state.step,
            epochs=self._workload.course.epochs_after(self._state.step),
            best_step=tracker.best_step,
            metric=self._workload.metric,
            best_metric=tracker.best,
            stopped_early=self._state.stopped_early,
            tokens_per_second=self._setup.meter.mean_tokens_per_second,
            resumed_from=resumed_from,
        )

    def _interrupt(self) -> None:
        self._write_history()
        state, total = self._state, self._workload.course.total_steps
        raise Interrupted(
            f"Stopped by {self._stop.cause} after step {state.step} of {total}. Everything is "
            f"saved in {self._store.path(state.step)}; `posterion jobs resume "
            f"{self._spec.run_dir.name}` continues there and ends with the same model as if it "
            "had not been stopped."
        )

    # -- one step -----------------------------------------------------------------------

    def _train_step(self) -> bool:
        """Make one optimizer step; returns whether any worker was asked to stop.

        Raises:
            Diverged: The step's update was not made.
        """
        setup, start, waited = self._setup, time.perf_counter(), self._prefetcher.seconds
        plan = self._workload.course.step(self._state.step)
        factor = learning_rate_factor(
            plan.step, self._workload.course.total_steps, self._recipe.optimization
        )
        factor *= self._guard.learning_rate_factor(plan.step)
        rate = setup.top_learning_rate * factor
        outcome = self._passes.run(
            plan, stop=self._stop.requested, memory_bytes=setup.meter.memory_bytes()
        )
        problem = self._guard.problem(outcome.loss, self._state.history.loss)
        norm = math.nan if problem else setup.engine.step(factor)
        if problem is None and not math.isfinite(norm):
            problem = f"the gradient norm is {norm}"
        if problem is not None:
            raise diverged(
                problem,
                plan,
                learning_rate=rate,
                bad_rows=outcome.bad_rows,
                last_checkpoint=self._last_checkpoint,
                rollbacks=self._guard.rollbacks,
            )
        self._state.step += 1
        self._report_step(
            plan,
            outcome,
            rate=rate,
            norm=norm,
            waited=self._prefetcher.seconds - waited,
            seconds=time.perf_counter() - start,
        )
        self._profile.step()
        return outcome.asked_to_stop

    def _report_step(
        self,
        plan: StepPlan,
        outcome: StepOutcome,
        *,
        rate: float,
        norm: float,
        waited: float,
        seconds: float,
    ) -> None:
        setup, state = self._setup, self._state
        epoch = self._workload.course.epochs_after(state.step)
        state.history.add_step(
            loss=outcome.loss, learning_rate=rate, gradient_norm=norm, epoch=epoch
        )
        setup.meter.step(plan, seconds)
        self._listener.on_step(
            StepReport(
                step=state.step,
                total_steps=self._workload.course.total_steps,
                epoch=epoch,
                loss=outcome.loss,
                figures=self._workload.figures(outcome.loss, outcome.parts),
                learning_rate=rate,
                gradient_norm=norm,
                tokens_per_second=setup.meter.tokens_per_second,
                padding_share=1.0 - plan.tokens / plan.padded_tokens,
                mfu=setup.meter.mfu(plan, seconds),
                memory_bytes=max(outcome.memory_bytes),
                worker_memory_bytes=outcome.memory_bytes,
                data_wait_share=waited / seconds,
                seconds=seconds,
                eta_seconds=self._eta(),
            )
        )

    def _roll_back(self, failure: Diverged) -> None:
        """Return to the last checkpoint, or give up.

        Raises:
            WorkError: Going back is not allowed, not possible, or would not help.
        """
        if failure.bad_data or self._last_checkpoint is None or not self._guard.may_roll_back:
            raise failure.explanation
        step = self._state.step + 1
        # Closes the step, so that nothing of its gradients is left; the weights are replaced next.
        self._setup.engine.step(0.0)
        self._load_newest()
        rollback = self._guard.record(
            step, self._state.step, failure.problem, write=self._gang.rank == 0
        )
        barrier(self._gang)
        self._listener.on_rollback(
            RollbackReport(
                step=rollback.step,
                to_step=rollback.to_step,
                reason=rollback.reason,
                learning_rate_factor=self._guard.learning_rate_factor(self._state.step),
            )
        )

    # -- between steps ------------------------------------------------------------------

    def _is_finished(self) -> bool:
        return self._state.stopped_early or self._state.step == self._workload.course.total_steps

    def _is_due(self) -> bool:
        """Whether to evaluate and to write a checkpoint now."""
        every, step = self._recipe.evaluation.every_steps, self._state.step
        if step == self._workload.course.total_steps:
            return True
        return step % every == 0 if every else self._workload.course.ends_epoch(step)

    def _eta(self) -> float:
        total, step = self._workload.course.total_steps, self._state.step
        every = self._recipe.evaluation.every_steps
        pauses = (
            (total - step) / every if every else self._workload.course.epochs * (1 - step / total)
        )
        return self._setup.meter.eta(total - step, math.ceil(pauses))

    def _evaluate(self) -> None:
        setup, state, start = self._setup, self._state, time.perf_counter()
        metric = self._workload.metric
        metrics = self._workload.evaluate(setup.engine)
        value = from_rank_zero(metrics.get(metric, math.nan), self._gang)
        stopping = self._recipe.evaluation.early_stopping
        is_best = state.tracker.update(
            value, state.step, min_delta=stopping.min_delta if stopping else 0.0
        )
        if is_best:
            self._save_best()
        state.stopped_early = state.tracker.should_stop(stopping) and not self._is_finished()
        epoch = self._workload.course.epochs_after(state.step)
        state.history.evaluations.append(
            {"step": state.step, "epoch": epoch, "metrics": metrics, "is_best": is_best}
        )
        self._listener.on_evaluation(
            EvaluationReport(
                step=state.step,
                epoch=epoch,
                metrics=metrics,
                metric=metric,
                value=value,
                is_best=is_best,
                seconds=time.perf_counter() - start,
            )
        )

    def _save_best(self) -> None:
        model = self._setup.engine.full_precision_model()
        if model is not None:
            self._workload.save(model, self._spec.run_dir / "best" / "model")
        barrier(self._gang)

    def _checkpoint(self) -> None:
        start = time.perf_counter()
        checkpoint = save_checkpoint(
            self._store,
            self._state,
            self._setup.engine,
            identity=self._setup.identity,
            gang=self._gang,
        )
        self._last_checkpoint = self._state.step
        self._listener.on_checkpoint(
            CheckpointReport(
                step=checkpoint.step,
                path=checkpoint.path,
                num_bytes=checkpoint_bytes(checkpoint),
                seconds=time.perf_counter() - start,
            )
        )

    # -- what people look at ------------------------------------------------------------

    @property
    def _history_path(self) -> Path:
        return self._spec.run_dir / "artifacts" / "history.json"

    @property
    def _picture_path(self) -> Path:
        return self._spec.run_dir / "artifacts" / "loss.png"

    def _write_history(self) -> None:
        if self._gang.rank != 0 or not self._state.step:
            return
        self._history_path.parent.mkdir(parents=True, exist_ok=True)
        write_json(self._history_path, self._state.history.to_dict())
        title = f"{self._spec.run_dir.name}: {self._workload.metric} on the validation part"
        draw_loss(self._picture_path, self._state.history, title=title)
