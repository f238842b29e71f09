"""The stages after the training: calibration, figures, the model version, the registry."""

from __future__ import annotations

import math
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from posterion_jobs._prepare import read_part, write_table
from posterion_jobs._runs import RunFolder, read_json, write_json
from posterion_jobs._versions import common_lineage

if TYPE_CHECKING:
    from posterion.config import TaskRecipe
    from posterion.inference import Figure
    from posterion.tasks import Task
    from posterion.trust import Calibration

INTERVALS = "intervals_95"
"""Key of the bootstrap intervals in ``metrics.json``."""

MEASURED = ("test", "validation")
"""Parts that figures are given for; the card quotes the first that exists."""


@dataclass(frozen=True, kw_only=True)
class Concluding:
    """One finished training and all that is known of it."""

    recipe: TaskRecipe
    task: Task[Any, Any]
    folder: RunFolder
    model: Mapping[str, Any]
    """Result of the model stage."""
    data: Mapping[str, Any]
    """Result of the data stage."""
    training: Mapping[str, Any]
    """Result of the training stage."""

    @property
    def evaluation_dir(self) -> Path:
        """Calibration, figures and predictions before they become part of the version."""
        return self.folder.path / "evaluation"

    @property
    def version_dir(self) -> Path:
        """The assembled model version."""
        return self.folder.path / "version"

    # -- calibrate and evaluate -----------------------------------------------------------

    def evaluate(self) -> dict[str, Any]:
        """Fit the calibration, then measure on parts that fitted nothing."""
        from posterion.inference import Predictor, fit_laplace, measure

        model_dir = Path(self.training["best_model_dir"])
        if self.recipe.trust.posterior == "laplace":
            fit_laplace(model_dir, read_part(self.folder, "train"), seed=self.recipe.seed)
        predictor = Predictor.from_model_dir(model_dir)
        calibration = self._calibrate(predictor)
        write_json(self.evaluation_dir / "calibration.json", calibration.to_json())
        metrics: dict[str, Any] = {}
        intervals: dict[str, Any] = {}
        distributions = {}
        for part in self._measured_parts():
            table = read_part(self.folder, part)
            distributions[part] = predictor.distribution(table)
            measured = measure(
                self.task, distributions[part], table, calibration, seed=self.recipe.seed
            )
            metrics[part] = {name: finite(figure.value) for name, figure in measured.items()}
            intervals[part] = {
                name: [finite(figure.lower), finite(figure.upper)]
                for name, figure in measured.items()
            }
        write_json(self.evaluation_dir / "metrics.json", {**metrics, INTERVALS: intervals})
        self._keep_predictions(distributions, calibration)
        first = self._measured_parts()[0]
        pictures = self._draw(distributions[first], read_part(self.folder, first), calibration)
        shown = [name for name in (self.task.metric, "coverage") if name in metrics[first]]
        return {
            "metrics": flatten(metrics),
            "pictures": [str(path) for path in pictures],
            "measured": first,
            "found": {f"{first} {name}": metrics[first][name] for name in shown},
        }

    def evaluation_still_there(self, result: Mapping[str, Any]) -> bool:
        """Whether what an earlier submission measured is complete."""
        names = ("calibration.json", "metrics.json", "predictions.parquet")
        paths = [*(self.evaluation_dir / name for name in names), *map(Path, result["pictures"])]
        return all(path.is_file() for path in paths)

    def _measured_parts(self) -> list[str]:
        return [part for part in MEASURED if part in self.data["rows"]]

    def _calibrate(self, predictor: Any) -> Calibration:
        trust = self.recipe.trust
        if trust.calibration == "none":
            return self.task.uncalibrated("The recipe asked for no calibration.", trust)
        if "calibration" not in self.data["rows"]:
            return self.task.uncalibrated("The recipe sets no rows apart for calibration.", trust)
        table = read_part(self.folder, "calibration")
        return self.task.fit_calibration(predictor.distribution(table), table, trust)

    def _keep_predictions(self, distributions: Mapping[str, Any], calibration: Calibration) -> None:
        import pyarrow as pa

        tables = []
        for part, distribution in distributions.items():
            table = read_part(self.folder, part)
            columns = self.task.prediction_columns(distribution, calibration)
            for name, values in columns.items():
                table = _with_column(table, name, values)
            tables.append(table.append_column("part", pa.array([part] * table.num_rows)))
        write_table(
            self.evaluation_dir / "predictions.parquet",
            pa.concat_tables(tables, promote_options="default"),
        )

    def _draw(self, distribution: Any, table: Any, calibration: Calibration) -> list[Path]:
        self.folder.artifacts_dir.mkdir(exist_ok=True)
        pictures = self.task.pictures(distribution, table, calibration, self.folder.artifacts_dir)
        curve = Path(self.training["picture_path"])
        kept = self.folder.artifacts_dir / curve.name
        if curve.resolve() != kept.resolve():
            shutil.copyfile(curve, kept)
        return [*pictures, kept]

    # -- assemble --------------------------------------------------------------------------

    def assemble(self, evaluation: Mapping[str, Any]) -> dict[str, Any]:
        """Put the model version together; it appears whole or not at all."""
        import pyarrow.parquet as pq

        from posterion.inference import assemble_version, manifest_digest
        from posterion.trust import Calibration

        calibration = Calibration.from_json(read_json(self.evaluation_dir / "calibration.json"))
        metrics = read_json(self.evaluation_dir / "metrics.json")
        pictures = [Path(path) for path in evaluation["pictures"]]
        assemble_version(
            self.version_dir,
            model_dir=Path(self.training["best_model_dir"]),
            calibration=calibration,
            metrics=metrics,
            predictions=pq.read_table(self.evaluation_dir / "predictions.parquet"),
            card=self._card(calibration, metrics, evaluation["measured"], pictures),
            pictures=pictures,
        )
        return {"digest": manifest_digest(self.version_dir), "found": {"folder": "version/"}}

    def version_still_there(self, result: Mapping[str, Any]) -> bool:
        """Whether the version that an earlier submission assembled exists."""
        return (self.version_dir / "manifest.json").is_file()

    def _card(
        self, calibration: Calibration, metrics: Any, measured: str, pictures: list[Path]
    ) -> str:
        from posterion.config import fingerprint
        from posterion.inference import CardFacts, card_text

        recipe = self.recipe
        registry = recipe.registry
        return card_text(
            CardFacts(
                name=registry.name if registry else self.folder.path.name,
                task=self.task,
                figures=_figures(metrics[measured], metrics[INTERVALS][measured]),
                measured_on=f"{measured} ({self.data['rows'][measured]:,} rows)",
                calibration=calibration,
                rows=self.data["rows"],
                data_source=recipe.data.source,
                data_hash=self.data["data_hash"],
                base_model=self.model["parent"],
                licence=registry.licence if registry else "unknown",
                description=registry.description if registry else "",
                max_length=recipe.data.max_length,
                posterior=recipe.trust.posterior,
                abstain_below=recipe.trust.abstain_below,
                recipe_hash=fingerprint(recipe),
                pictures=[path.name for path in pictures],
                more=self.card_sections(metrics),
            )
        )

    def card_sections(self, metrics: Mapping[str, Any]) -> Mapping[str, str]:
        """What the job's card says beside what all say: headings and Markdown."""
        return {}

    # -- lineage ---------------------------------------------------------------------------

    def lineage(self) -> dict[str, str]:
        """Where the version comes from, as tags."""
        return {
            **common_lineage(self.recipe, self.folder),
            "data_hash": self.data["data_hash"],
            "data_source": self.recipe.data.source,
            "parents": self.model["parent"],
            "task": self.task.kind,
        }


def flatten(metrics: Mapping[str, Mapping[str, float | None]]) -> dict[str, float]:
    """``{"test": {"rmse": 0.5}}`` as ``{"test.rmse": 0.5}``; undefined ones left out."""
    return {
        f"{part}.{name}": value
        for part, by_name in metrics.items()
        for name, value in by_name.items()
        if value is not None
    }


def finite(value: float) -> float | None:
    """JSON has no NaN: what is undefined becomes null."""
    return float(value) if math.isfinite(value) else None


def _figures(
    values: Mapping[str, float | None], bounds: Mapping[str, list[float | None]]
) -> dict[str, Figure]:
    from posterion.inference import Figure

    def number(value: float | None) -> float:
        return math.nan if value is None else value

    return {
        name: Figure(number(value), *(number(bound) for bound in bounds[name]))
        for name, value in values.items()
    }


def _with_column(table: Any, name: str, values: Any) -> Any:
    import pyarrow as pa

    array = values if isinstance(values, pa.Array | pa.ChunkedArray) else pa.array(values)
    if name in table.column_names:  # a column of the data bears the name already
        name = f"predicted_{name}"
    return table.append_column(name, array)
