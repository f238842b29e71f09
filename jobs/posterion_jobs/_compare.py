"""A student beside its teachers: what it keeps of their score, and what it gains in speed.

Shapes: N examples, W windows, K columns of the teachers' answers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from posterion_jobs._conclude import INTERVALS, Concluding, finite, flatten
from posterion_jobs._distillation import parents
from posterion_jobs._prepare import read_part
from posterion_jobs._runs import read_json, write_json

if TYPE_CHECKING:
    import pyarrow as pa

    from posterion.inference import Figure
    from posterion.training import TaskTeachers

COMPARISON = "distillation"
"""Key of these figures in ``metrics.json``."""

SPEED_WINDOWS = 256
"""Windows that the speed is measured on."""

BATCH_TOKENS = 4096

Asked = Callable[[Any, Any], Any]
"""A forward pass: ``input_ids`` and ``attention_mask`` of a batch."""


class ComparedFigures:
    """Figures of a comparison with teachers, as part of a version's other figures."""

    @property
    def evaluation_dir(self) -> Path:
        """Where ``metrics.json`` is."""
        raise NotImplementedError

    def with_comparison(
        self, result: Mapping[str, Any], figures: Mapping[str, Figure]
    ) -> dict[str, Any]:
        """Add figures to ``metrics.json`` and to the result of the evaluation stage."""
        path = self.evaluation_dir / "metrics.json"
        metrics = read_json(path)
        metrics[COMPARISON] = {name: finite(each.value) for name, each in figures.items()}
        metrics[INTERVALS][COMPARISON] = {
            name: [finite(each.lower), finite(each.upper)] for name, each in figures.items()
        }
        write_json(path, metrics)
        compared = metrics[COMPARISON]
        shown = {"score kept": compared["score_kept"], "times as fast": compared["speedup"]}
        return {
            **result,
            "metrics": {**result["metrics"], **flatten({COMPARISON: compared})},
            "found": {**result["found"], **shown},
        }

    def comparison_rows(self, metrics: Mapping[str, Any]) -> list[tuple[str, str, str]]:
        """Title, value and interval of what people want to know."""
        values, bounds = metrics[COMPARISON], metrics[INTERVALS][COMPARISON]
        score = next(name for name in values if name.startswith("teacher_"))
        metric = score.removeprefix("teacher_")
        rows = {
            f"Teacher's {metric}": score,
            f"Its own {metric}": f"student_{metric}",
            "Score kept": "score_kept",
            "Times as fast": "speedup",
        }
        return [
            (title, _number(values[name]), _interval(bounds[name])) for title, name in rows.items()
        ]


@dataclass(frozen=True, kw_only=True)
class DistilledVersion(Concluding, ComparedFigures):
    """A finished task distillation and all that is known of it."""

    teachers: Sequence[Mapping[str, str]]
    """From the teacher stage."""

    def evaluate(self) -> dict[str, Any]:
        """As any task's model; then beside the teachers, on the same rows."""
        result = super().evaluate()
        return self.with_comparison(result, self._compare(result["measured"]))

    def _compare(self, part: str) -> dict[str, Figure]:
        from posterion.inference import Predictor
        from posterion.tasks import read_task_model
        from posterion.training import TaskTeachers, TeacherModel

        models = [TeacherModel.of(each) for each in self.teachers]
        teachers = TaskTeachers(
            models,
            [read_task_model(model.directory).task for model in models],
            task=self.task,
        )
        predictor = Predictor.from_model_dir(Path(self.training["best_model_dir"]), device="cpu")
        table = read_part(self.folder, part)
        windows = _Windows(self, predictor, table)
        taught = windows.distribution_of(teachers)
        metric = self.recipe.evaluation.metric or self.task.metric
        figures = score_kept(
            lambda rows: self.task.evaluate(taught.take(rows), table.take(rows)),
            self._measured_again(predictor, table),
            metric=metric,
            greater_is_better=self.task.direction(metric),
            num_rows=table.num_rows,
            seed=self.recipe.seed,
        )
        for model in teachers.models:
            model.pack_weights()
        return {**figures, **speed_figures(teachers.answers, predictor.model, windows.some())}

    def _measured_again(self, predictor: Any, table: pa.Table) -> Callable[[Any], dict[str, float]]:
        distribution = predictor.distribution(table)
        return lambda rows: self.task.evaluate(distribution.take(rows), table.take(rows))

    def card_sections(self, metrics: Mapping[str, Any]) -> Mapping[str, str]:
        """What the student kept, and its speed."""
        names = ", ".join(f"`{each['name']}`" for each in self.teachers)
        rows = [" | ".join(("", *row, "")).strip() for row in self.comparison_rows(metrics)]
        table = "\n".join(["| Figure | Value | Interval |", "|---|---|---|", *rows])
        text = (
            f"Taught by {names}. Both were measured on the same rows; intervals of 95 % by "
            "bootstrap over rows. Speed: forward passes in single precision on one thread, teacher "
            "and student in turn; the interval holds the middle half of rounds."
        )
        return {"What it keeps of its teacher": f"{text}\n\n{table}"}

    def lineage(self) -> dict[str, str]:
        """As of any task's model; the teachers are parents too."""
        tags = super().lineage()
        return {**tags, "parents": parents(tags["parents"], self.teachers)}


class _Windows:
    """A part as the student's tokens, which are its teachers' too."""

    def __init__(self, version: DistilledVersion, predictor: Any, table: pa.Table) -> None:
        from posterion.data import evaluation_batches

        encoded = version.task.encode(
            table, predictor.tokenizer, predictor.max_length, labelled=False
        )
        self._teaching = version.task.teaching()
        self._pad_id = predictor.tokenizer.pad_id
        self._example = encoded.column("example").to_numpy()
        self._ids = encoded.column("input_ids").combine_chunks()
        self._lengths = encoded.column("length").to_numpy().astype(np.int64)
        self._num_examples = table.num_rows
        self._batches = evaluation_batches(self._lengths, BATCH_TOKENS)

    def distribution_of(self, teachers: TaskTeachers) -> Any:
        """What the teachers believe of the examples, in the student's terms."""
        from posterion.tasks import combine_windows

        answers: NDArray[np.float64] | None = None
        for rows in self._batches:
            found = teachers.answers(*self._batch(rows)).double().numpy()
            if answers is None:
                answers = np.zeros((len(self._lengths), found.shape[1]))
            answers[rows] = found
        assert answers is not None
        combined = combine_windows(answers[None], self._example, self._num_examples)[0]
        return self._teaching.distribution(combined)

    def some(self) -> list[tuple[Any, Any]]:
        """Batches of some windows, of like length together."""
        from posterion.data import evaluation_batches

        chosen = np.arange(min(SPEED_WINDOWS, len(self._lengths)))
        batches = evaluation_batches(self._lengths[chosen], BATCH_TOKENS)
        return [self._batch(chosen[rows]) for rows in batches]

    def _batch(self, rows: NDArray[np.int64]) -> tuple[Any, Any]:
        import pyarrow as pa

        from posterion.data import pad

        return pad(self._ids.take(pa.array(rows)), self._pad_id)


def score_kept(
    teacher: Callable[[NDArray[np.intp]], Mapping[str, float]],
    student: Callable[[NDArray[np.intp]], Mapping[str, float]],
    *,
    metric: str,
    greater_is_better: bool,
    num_rows: int,
    seed: int,
) -> dict[str, Figure]:
    """Both scores on the same rows and their ratio, with bootstrap intervals over rows.

    Args:
        teacher: Metrics of the teacher on some rows.
        student: Metrics of the student on the same.
        metric: The one that counts.
        greater_is_better: Its direction; the ratio is turned so that 1 means as good.
        num_rows: N.
        seed: Of the resamples.

    Returns:
        ``teacher_<metric>``, ``student_<metric>`` and ``score_kept``, which is not defined where a
        score is 0 or less.
    """
    from posterion.inference import interval_figures

    def figures(rows: NDArray[np.intp]) -> dict[str, float]:
        taught = teacher(rows).get(metric, math.nan)
        own = student(rows).get(metric, math.nan)
        better, other = (own, taught) if greater_is_better else (taught, own)
        kept = better / other if better > 0 and other > 0 else math.nan
        return {f"teacher_{metric}": taught, f"student_{metric}": own, "score_kept": kept}

    return interval_figures(figures, num_rows, seed=seed)


def speed_figures(
    teacher: Asked, student: Asked, batches: Sequence[tuple[Any, Any]]
) -> dict[str, Figure]:
    """Forward passes of both on one thread, in turn.

    Returns:
        ``speedup`` with its quartiles, and texts per second of both.
    """
    import torch

    from posterion.inference import Figure, speed_ratio

    def all_of(model: Asked) -> Callable[[], None]:
        def run() -> None:
            with torch.inference_mode():
                for batch in batches:
                    model(*batch)

        return run

    ratio, slow, fast = speed_ratio(all_of(teacher), all_of(student))
    num = sum(len(input_ids) for input_ids, _ in batches)
    return {
        "speedup": ratio,
        "teacher_windows_per_second": Figure(num / slow, math.nan, math.nan),
        "student_windows_per_second": Figure(num / fast, math.nan, math.nan),
    }


def _number(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.4g}"


def _interval(bounds: Sequence[float | None]) -> str:
    lower, upper = cast("tuple[float | None, float | None]", tuple(bounds))
    return "" if lower is None or upper is None else f"{lower:.4g} to {upper:.4g}"
