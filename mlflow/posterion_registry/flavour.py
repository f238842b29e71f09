"""The MLflow flavour: a model version is loaded by this code, never by unpickling.

``mlflow.pyfunc.load_model("models:/readability@champion").predict(frame)`` takes a DataFrame
with the task's input columns (others are ignored) and returns one with the same index and
these columns:

=================================  =========================================================
``answer``                         number, label or list of labels
``confidence``                     probability that the answer is right
``abstained``, ``calibrated``      booleans
``interval_low``, ``interval_high``  bounds of the answer; NaN where the task has none
``alternatives``, ``evidence``     JSON arrays as text
``model``                          e.g. ``readability@7``
=================================  =========================================================
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

    from posterion.inference import Predictor
    from posterion.trust import Prediction

_META_FILE = "registered_model_meta"


class PyFunc:
    """What ``mlflow.pyfunc`` calls.

    Args:
        predictor: The loaded model version.
    """

    def __init__(self, predictor: Predictor) -> None:
        self.predictor = predictor

    def predict(
        self,
        model_input: pd.DataFrame | Sequence[Mapping[str, Any]],
        params: Mapping[str, Any] | None = None,
    ) -> pd.DataFrame:
        """Predictions of a frame (or a list of mappings), one row each.

        Raises:
            DataError: An input column is missing, or a value is not what the task takes.
        """
        import pandas as pd

        frame = model_input if isinstance(model_input, pd.DataFrame) else pd.DataFrame(model_input)
        columns = [name for name in self.predictor.task.input_columns if name in frame.columns]
        examples = [dict(zip(columns, row, strict=True)) for row in frame[columns].values.tolist()]
        predictions = self.predictor.predict(examples)
        return pd.DataFrame(flat_rows(predictions), index=frame.index, columns=OUTPUT_COLUMNS)


OUTPUT_COLUMNS = [
    "answer",
    "confidence",
    "abstained",
    "calibrated",
    "interval_low",
    "interval_high",
    "alternatives",
    "evidence",
    "model",
]
"""Columns of a table of predictions."""


def flat_rows(predictions: Sequence[Prediction]) -> list[dict[str, Any]]:
    """Predictions as rows of a table with :data:`OUTPUT_COLUMNS`."""
    rows = []
    for prediction in predictions:
        values = prediction.to_dict()
        low, high = values.pop("interval") or (None, None)
        values["interval_low"] = float("nan") if low is None else low
        values["interval_high"] = float("nan") if high is None else high
        for name in ("alternatives", "evidence"):
            values[name] = json.dumps(values[name], ensure_ascii=False)
        rows.append({name: values[name] for name in OUTPUT_COLUMNS})
    return rows


def _load_pyfunc(path: str) -> PyFunc:
    """Load the model version in ``path``; MLflow's entry point.

    Raises:
        ArtifactError: A file is not the one that was registered.
    """
    from posterion.inference import Predictor

    directory = Path(path)
    return PyFunc(Predictor.load(directory, name=_registered_name(directory)))


def _registered_name(directory: Path) -> str:
    """``name@7`` from the note MLflow leaves with a download; empty for a plain folder."""
    import yaml

    path = directory / _META_FILE
    if not path.is_file():
        return ""
    meta = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    name, version = meta.get("model_name"), meta.get("model_version")
    return f"{name}@{version}" if name and version else ""
