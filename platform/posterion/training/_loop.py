"""The training loop. It knows no task, no model and no cluster by name."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from posterion._exceptions import Interrupted, WorkError
from posterion.tasks import save_task_model
from posterion.training._batches import Batch
from posterion.training._checkpoints import CheckpointStore, write_json
from posterion.training._collectives import barrier, from_rank_zero, sum_over_workers
from posterion.training._course import StepPlan
from posterion.training._deepspeed import without_collective_warnings
from posterion.training._early_stopping import BestTracker
from posterion.training._failure import non_finite
from posterion.training._gang import Gang
from posterion.training._history import History
from posterion.training._listener import (
    CheckpointReport,
    EvaluationReport,
    Listener,
    NullListener,
    StepReport,
    Totals,
)
from posterion.training._memory import keep_freed_memory
from posterion.training._numerics import flushed_denormals
from posterion.training._picture import draw_loss
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

if TYPE_CHECKING:
    from torch import Tensor


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
    again, on CPUs and with the same number of workers.

    Args:
        spec: What to train, on what, where to write.
        gang: Who this process is among the workers.
        listener: Hears of progress.
        resume: Continue from the newest valid checkpoint; otherwise drop all of them.
        should_stop: Asked between steps on every worker; a yes from any stops all of them.
            SIGTERM and Ctrl-C do the same where this is the main thread.

    Raises:
        Interrupted: Somebody asked to stop; a checkpoint was written first.
        RequestError: The run's checkpoint belongs to other settings or another number of workers.
        WorkError: A loss or a gradient is not finite.
    """
    keep_freed_memory()
    with StopRequest(should_stop) as stop, flushed_denormals(), without_collective_warnings():
        setup = prepare(spec, gang)
        return _Loop(spec, setup, gang, listener or NullListener(), stop).run(resume=resume)


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
        direction = setup.task.direction(setup.metric)
        self._state = TrainerState(
            tracker=BestTracker(greater_is_better=direction), history=History(metric=setup.metric)
        )
        self._last_checkpoint: int | None = None

    def run(self, *, resume: bool) -> FitResult:
        self._start(resume=resume)
        resumed_from = self._last_checkpoint
        while self._state.step < self._setup.course.total_steps and not self._state.stopped_early:
            asked = self._train_step()
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
        barrier(self._gang)
        setup = self._setup
        state = load_newest(self._store, setup.engine, identity=setup.identity, gang=self._gang)
        if state is not None:
            self._state = state
            self._last_checkpoint = state.step
        setup.engine.model.train()
        self._listener.on_start(
            Totals(
                total_steps=setup.course.total_steps,
                first_step=self._state.step,
                epochs=setup.course.epochs,
                train_rows=len(setup.train),
                train_tokens=int(setup.train.lengths.sum()),
                validation_rows=len(setup.validation),
                world_size=self._gang.world_size,
                num_parameters=setup.num_parameters,
            )
        )

    def _finish(self, resumed_from: int | None) -> FitResult:
        self._write_history()
        barrier(self._gang)
        tracker, run_dir = self._state.tracker, self._spec.run_dir
        if tracker.best is None:
            raise WorkError(
                f"No evaluation gave a finite {self._setup.metric} on the validation part, so "
                "there is no best model. Look at the loss curve, check the validation part's "
                "targets, or choose another evaluation.metric."
            )
        return FitResult(
            best_model_dir=run_dir / "best" / "model",
            history_path=self._history_path,
            picture_path=self._picture_path,
            steps=self._state.step,
            epochs=self._setup.course.epochs_after(self._state.step),
            best_step=tracker.best_step,
            metric=self._setup.metric,
            best_metric=tracker.best,
            stopped_early=self._state.stopped_early,
            tokens_per_second=self._setup.meter.mean_tokens_per_second,
            resumed_from=resumed_from,
        )

    def _interrupt(self) -> None:
        self._write_history()
        state, total = self._state, self._setup.course.total_steps
        raise Interrupted(
            f"Stopped by {self._stop.cause} after step {state.step} of {total}. Everything is "
            f"saved in {self._store.path(state.step)}; `posterion jobs resume "
            f"{self._spec.run_dir.name}` continues there and ends with the same model as if it "
            "had not been stopped."
        )

    # -- one step -----------------------------------------------------------------------

    def _train_step(self) -> bool:
        """Make one optimizer step; returns whether any worker was asked to stop."""
        setup, start, waited = self._setup, time.perf_counter(), self._setup.loader.seconds
        plan = setup.course.step(self._state.step)
        factor = learning_rate_factor(
            plan.step, setup.course.total_steps, self._recipe.optimization
        )
        rate = setup.top_learning_rate * factor
        loss, asked, bad_rows = self._passes(plan)
        if not math.isfinite(loss):
            raise self._explain("loss", plan, loss, rate, bad_rows)
        norm = setup.engine.step(factor)
        if not math.isfinite(norm):
            raise self._explain("gradient norm", plan, norm, rate, bad_rows)
        self._state.step += 1
        epoch = setup.course.epochs_after(self._state.step)
        self._state.history.add_step(loss=loss, learning_rate=rate, gradient_norm=norm, epoch=epoch)
        seconds = time.perf_counter() - start
        setup.meter.step(plan, seconds)
        self._listener.on_step(
            StepReport(
                step=self._state.step,
                total_steps=setup.course.total_steps,
                epoch=epoch,
                loss=loss,
                learning_rate=rate,
                gradient_norm=norm,
                tokens_per_second=setup.meter.tokens_per_second,
                padding_share=1.0 - plan.tokens / plan.padded_tokens,
                mfu=setup.meter.mfu(plan, seconds),
                memory_bytes=setup.meter.memory_bytes(),
                data_wait_share=(setup.loader.seconds - waited) / seconds,
                seconds=seconds,
                eta_seconds=self._eta(),
            )
        )
        return asked

    def _passes(self, plan: StepPlan) -> tuple[float, bool, list[int]]:
        """Forward and backward of this worker's micro-batches.

        Returns:
            The step's loss over all workers, whether any was asked to stop, and rows of this
            worker whose loss is not finite.
        """
        engine, bad_rows, total = self._setup.engine, [], 0.0
        micro_batches = plan.rows[self._gang.rank]
        for index, rows in enumerate(micro_batches):
            batch = self._setup.loader.load(rows)
            losses = self._losses(batch)
            total += float(losses.detach().sum())
            engine.backward(losses.sum() * (engine.loss_divisor / plan.weight))
            if not math.isfinite(total):
                bad_rows += [int(row) for row in rows[~np.isfinite(losses.detach().cpu().numpy())]]
            if index < len(micro_batches) - 1:
                engine.end_micro_batch()
        sums = sum_over_workers([total, self._stop.requested], self._gang)
        return float(sums[0] / plan.weight), bool(sums[1]), bad_rows

    def _losses(self, batch: Batch) -> Tensor:
        """Weighted loss of each row. Shape: (B,)."""
        logits = self._setup.engine.forward(batch.input_ids, batch.attention_mask)
        return self._setup.task.loss(logits, batch.labels) * batch.weight

    def _explain(
        self, what: str, plan: StepPlan, value: float, rate: float, bad_rows: list[int]
    ) -> WorkError:
        """The error of a non-finite step, naming rows of all workers."""
        if self._gang.world_size > 1:
            marks = np.zeros(len(self._setup.train))
            marks[bad_rows] = 1.0
            bad_rows = np.flatnonzero(sum_over_workers(marks, self._gang)).tolist()
        return non_finite(
            what,
            plan,
            value=value,
            learning_rate=rate,
            bad_rows=bad_rows,
            last_checkpoint=self._last_checkpoint,
        )

    # -- between steps ------------------------------------------------------------------

    def _is_finished(self) -> bool:
        return self._state.stopped_early or self._state.step == self._setup.course.total_steps

    def _is_due(self) -> bool:
        """Whether to evaluate and to write a checkpoint now."""
        every, step = self._recipe.evaluation.every_steps, self._state.step
        if step == self._setup.course.total_steps:
            return True
        return step % every == 0 if every else self._setup.course.ends_epoch(step)

    def _eta(self) -> float:
        total, step = self._setup.course.total_steps, self._state.step
        every = self._recipe.evaluation.every_steps
        pauses = (total - step) / every if every else self._setup.course.epochs * (1 - step / total)
        return self._setup.meter.eta(total - step, math.ceil(pauses))

    def _evaluate(self) -> None:
        setup, state, start = self._setup, self._state, time.perf_counter()
        metrics = setup.evaluator.evaluate(setup.engine)
        value = from_rank_zero(metrics.get(setup.metric, math.nan), self._gang)
        stopping = self._recipe.evaluation.early_stopping
        is_best = state.tracker.update(
            value, state.step, min_delta=stopping.min_delta if stopping else 0.0
        )
        if is_best:
            self._save_best()
        state.stopped_early = state.tracker.should_stop(stopping) and not self._is_finished()
        epoch = setup.course.epochs_after(state.step)
        state.history.evaluations.append(
            {"step": state.step, "epoch": epoch, "metrics": metrics, "is_best": is_best}
        )
        self._listener.on_evaluation(
            EvaluationReport(
                step=state.step,
                epoch=epoch,
                metrics=metrics,
                metric=setup.metric,
                value=value,
                is_best=is_best,
                seconds=time.perf_counter() - start,
            )
        )

    def _save_best(self) -> None:
        model = self._setup.engine.full_precision_model()
        if model is not None:
            save_task_model(
                self._spec.run_dir / "best" / "model",
                model,
                self._spec.model_dir,
                self._setup.task,
                self._recipe.data.max_length,
                self._recipe.trust,
            )
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
        title = f"{self._spec.run_dir.name}: {self._setup.metric} on the validation part"
        draw_loss(self._picture_path, self._state.history, title=title)
