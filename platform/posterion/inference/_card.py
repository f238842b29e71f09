"""The model card: what the model is for, how good it is, and how far it can be believed."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from posterion.trust import Calibration, ConformalRegression, TemperatureScaling, Uncalibrated

if TYPE_CHECKING:
    import pyarrow as pa

    from posterion.tasks import Task


@dataclass(frozen=True)
class Figure:
    """A measured figure with its 95 % bootstrap interval."""

    value: float
    lower: float
    upper: float

    def to_dict(self) -> dict[str, float | None]:
        """JSON form; undefined bounds are ``None``."""
        values = {"value": self.value, "lower": self.lower, "upper": self.upper}
        return {name: value if math.isfinite(value) else None for name, value in values.items()}


@dataclass(frozen=True, kw_only=True)
class CardFacts:
    """Everything a card says."""

    name: str
    """Registered name."""
    task: Task[Any, Any]
    """The fitted task."""
    figures: Mapping[str, Figure]
    """Measured by :func:`measure` on rows that trained, chose and calibrated nothing."""
    measured_on: str
    """Which rows these are, e.g. ``test (412 rows)``."""
    calibration: Calibration
    """How confidences were made honest."""
    rows: Mapping[str, int]
    """Rows of each part of the data."""
    data_source: str
    """The recipe's data source."""
    data_hash: str
    """Content hash of the table."""
    base_model: str
    """The recipe's model source."""
    licence: str = "unknown"
    """Licence of the weights."""
    description: str = ""
    """Purpose and limits, from the recipe."""
    max_length: int = 256
    """Tokens per window."""
    posterior: str = "point"
    """``point``, ``mc_dropout`` or ``laplace``."""
    abstain_below: float = 0.0
    """Confidence below which predictions abstain."""
    recipe_hash: str = ""
    """Fingerprint of the recipe."""
    pictures: Sequence[str] = field(default_factory=tuple)
    """File names below ``pictures/``."""
    more: Mapping[str, str] = field(default_factory=dict)
    """Further sections: headings and Markdown."""


def measure(
    task: Task[Any, Any],
    distribution: Any,
    table: pa.Table,
    calibration: Calibration,
    *,
    resamples: int = 300,
    seed: int = 0,
) -> dict[str, Figure]:
    """All figures of a task on held-out rows, quality and trust, with bootstrap intervals.

    Args:
        task: The fitted task.
        distribution: What the model believes of the rows.
        table: The rows with their right answers.
        calibration: Fitted on other rows.
        resamples: Bootstrap resamples.
        seed: Seed of the resamples.
    """

    def figures(indices: NDArray[np.intp]) -> dict[str, float]:
        part, rows = distribution.take(indices), table.take(indices)
        return {
            **task.evaluate(part, rows),
            **task.evaluate_trust(part, rows, calibration),
        }

    # Errors of calibration grow under resampling (each resample repeats rows), so their
    # percentile interval would lie above the figure itself; they are given without one.
    return interval_figures(
        figures,
        table.num_rows,
        resamples=resamples,
        seed=seed,
        without={"ece", "confidence_ece"},
    )


def interval_figures(
    figures: Callable[[NDArray[np.intp]], Mapping[str, float]],
    num_rows: int,
    *,
    resamples: int = 300,
    seed: int = 0,
    without: Collection[str] = (),
) -> dict[str, Figure]:
    """Figures of all rows, with bootstrap intervals over rows.

    Args:
        figures: Of the rows with these indices.
        num_rows: How many there are.
        resamples: Bootstrap resamples.
        seed: Seed of the resamples.
        without: Figures that get no interval.
    """
    from posterion.metrics import bootstrap_intervals

    values = figures(np.arange(num_rows))
    bounds = bootstrap_intervals(figures, num_rows, resamples=resamples, seed=seed)
    unknown = (math.nan, math.nan)
    return {
        name: Figure(value, *(unknown if name in without else bounds.get(name, unknown)))
        for name, value in values.items()
    }


def card_text(facts: CardFacts) -> str:
    """The card in Markdown."""
    sections = [
        f"# {facts.name}",
        facts.description.strip() or f"A model for the task `{facts.task.kind}`.",
        _summary(facts),
        "## How good it is",
        _figures(facts),
        "## How far its confidence can be believed",
        _trust(facts),
        *_pictures(facts),
        *(part for heading, text in facts.more.items() for part in (f"## {heading}", text)),
        "## Data",
        _data(facts),
        "## Limits",
        _limits(facts),
    ]
    return "\n\n".join(sections) + "\n"


def language_model_card(
    *,
    name: str,
    description: str,
    facts: Mapping[str, str],
    figures: Mapping[str, Figure],
    pictures: Sequence[str],
) -> str:
    """The card of a language model in Markdown.

    Args:
        name: Registered name.
        description: Purpose and limits, from the recipe.
        facts: Where it comes from, in the reader's words.
        figures: Measured on held-out text.
        pictures: File names below ``pictures/``.
    """
    rows = [(title, f"{each.value:.4g}", _bounds(each)) for title, each in figures.items()]
    sections = [
        f"# {name}",
        description.strip() or "A language model, to be fine-tuned for a task.",
        _table(("", ""), facts.items()),
        "## How good it is",
        "Measured on held-out text, which chose the best checkpoint; intervals by bootstrap over "
        f"rows.\n\n{_table(('Figure', 'Value', '95 % interval'), rows)}",
        *(f"![{picture.rsplit('.', 1)[0]}](pictures/{picture})" for picture in pictures),
        "## Limits",
        "- It answers no task and has no calibrated confidence; fine-tune it for one.\n"
        "- Perplexities of models with other tokenizers do not compare.",
    ]
    return "\n\n".join(sections) + "\n"


def _summary(facts: CardFacts) -> str:
    rows = {
        "Task": f"`{facts.task.kind}`",
        "Input": ", ".join(f"`{column}`" for column in facts.task.input_columns),
        "Encoder": f"`{facts.base_model}`",
        "Posterior": f"`{facts.posterior}`",
        "Licence": facts.licence,
    }
    if facts.recipe_hash:
        rows["Recipe"] = f"`{facts.recipe_hash}`"
    return _table(("", ""), rows.items())


def _figures(facts: CardFacts) -> str:
    rows = [
        (name, f"{figure.value:.4g}", _bounds(figure))
        for name, figure in facts.figures.items()
        if name not in _TRUST_FIGURES
    ]
    table = _table(("Figure", "Value", "95 % interval"), rows)
    return f"Measured on {facts.measured_on}; intervals by bootstrap over rows.\n\n{table}"


_TRUST_FIGURES = {
    "mean_confidence": "Mean confidence",
    "right": "Share of right answers",
    "confidence_ece": "Calibration error of the confidence",
    "auroc_of_error": "Chance that a right answer has more confidence than a wrong one",
    "aurc": "Share of wrong answers, mean over all thresholds of confidence",
    "coverage": "Share of observed values within their interval",
    "interval_width": "Mean width of intervals",
}


def _trust(facts: CardFacts) -> str:
    rows = [
        (title, f"{facts.figures[name].value:.4g}", _bounds(facts.figures[name]))
        for name, title in _TRUST_FIGURES.items()
        if name in facts.figures
    ]
    table = _table(("Figure", "Value", "95 % interval"), rows)
    return f"{_calibration_sentence(facts.calibration)}\n\n{table}"


def _calibration_sentence(calibration: Calibration) -> str:
    match calibration:
        case ConformalRegression():
            return (
                f"Split conformal on {calibration.num_examples} rows. Intervals aim to contain "
                f"{calibration.coverage:.0%} of observed values, raters' noise included. "
                f"Confidence is the probability that the answer lies within "
                f"{calibration.tolerance:.4g} of the observed value."
            )
        case TemperatureScaling():
            values = ", ".join(f"{value:.3f}" for value in list(calibration.temperatures)[:8])
            more = ", ..." if len(calibration.temperatures) > 8 else ""
            what = (
                "the whole label set is right" if calibration.multi_label else "the label is right"
            )
            return (
                f"Temperature scaling on {calibration.num_examples} rows (T = {values}{more}). "
                f"Confidence is the probability that {what}."
            )
        case Uncalibrated():
            return f"**Not calibrated.** {calibration.reason} Every prediction says so."
        case _:
            return f"Calibrated by `{calibration.kind}`."


def _pictures(facts: CardFacts) -> list[str]:
    return [f"![{name.rsplit('.', 1)[0]}](pictures/{name})" for name in facts.pictures]


def _data(facts: CardFacts) -> str:
    table = _table(("Part", "Rows"), facts.rows.items())
    return f"Source `{facts.data_source}`, content hash `{facts.data_hash}`.\n\n{table}"


def _limits(facts: CardFacts) -> str:
    points = [
        "Figures hold for texts like those measured; on other kinds of text neither accuracy "
        "nor confidence is known.",
        f"Texts of more than {facts.max_length} tokens are read in overlapping windows whose "
        "outputs are averaged.",
    ]
    if facts.abstain_below > 0.0:
        points.append(
            f"Answers with confidence below {facts.abstain_below:g} are marked as abstained."
        )
    if not facts.calibration.calibrated:
        points.append("Confidences are the model's own and may be far too high.")
    return "\n".join(f"- {point}" for point in points)


def _bounds(figure: Figure) -> str:
    if not (math.isfinite(figure.lower) and math.isfinite(figure.upper)):
        return ""
    return f"{figure.lower:.4g} to {figure.upper:.4g}"


def _table(head: Sequence[str], rows: Any) -> str:
    lines = [f"| {' | '.join(head)} |", "|" + " --- |" * len(head)]
    lines += [f"| {' | '.join(str(cell) for cell in row)} |" for row in rows]
    return "\n".join(lines)
