"""The posterior of a fine-tuned model's last layer, fitted after the training."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from posterion.inference._predictor import Predictor
from posterion.tasks import read_task_model

if TYPE_CHECKING:
    import pyarrow as pa

    from posterion.trust.posteriors import LastLayerLaplace


def fit_laplace(model_dir: Path, table: pa.Table, *, seed: int) -> LastLayerLaplace:
    """Fit :class:`~posterion.trust.posteriors.LastLayerLaplace` and keep it beside the weights.

    One pass over the texts, no training.

    Args:
        model_dir: What :func:`~posterion.tasks.save_task_model` wrote.
        table: The rows that the model was trained on, targets included.
        seed: Of the draws.

    Returns:
        The posterior, which ``posterior.safetensors`` in the folder now holds, too.

    Raises:
        RequestError: The task has no closed form.
        WorkError: NaN or infinity in the model's features or outputs.
        DataError: Too few rows, or a constant target.
    """
    import numpy as np
    import torch

    from posterion.models import TextModel
    from posterion.text import Tokenizer
    from posterion.trust.posteriors import (
        POSTERIOR_FILE,
        LastLayerLaplace,
        Point,
        save_posterior,
    )

    settings = read_task_model(model_dir)
    task = settings.task
    kind = task.output_kind
    predictor = Predictor(
        model=TextModel.load(model_dir),
        tokenizer=Tokenizer.load(model_dir),
        settings=settings,
        posterior=Point,
    )
    targets = None
    if kind == "squared_error":
        encoded = task.encode(table, predictor.tokenizer, settings.max_length)
        _, firsts = np.unique(encoded.column("example").to_numpy(), return_index=True)
        targets = task.label_tensors(encoded.take(firsts))["target"]
    posterior = LastLayerLaplace.fit(
        predictor.model,
        torch.from_numpy(predictor.features(table)).to(predictor.model.head.weight.device),
        kind=kind,
        targets=targets,
        samples=settings.samples,
        seed=seed,
    )
    save_posterior(model_dir / POSTERIOR_FILE, posterior)
    return posterior
