"""The peer of `finetune_vs_hf.py`: `transformers.Trainer` on the same rows, in its own process.

Usage: python benchmarks/_hf_finetune.py SPEC.json   (writes SPEC.json's "output")

SPEC.json: {"variant": "defaults" | "best", "train": parquet, "test": parquet, "model_dir": dir,
"text": column, "target": column, "epochs": n, "seed": n, "max_length": n, "threads": n,
"output": path}
"""

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    Trainer,
    TrainingArguments,
)

VARIANTS: dict[str, dict[str, Any]] = {
    # What a user gets who names nothing but the epochs: fp32, 8 rows, random order, 5e-5, linear.
    "defaults": {},
    # The best found for this model on a CPU: bf16, like lengths together, larger batches.
    "best": {
        "bf16": True,
        "train_sampling_strategy": "group_by_length",
        "per_device_train_batch_size": 16,
        "learning_rate": 1e-4,
        "warmup_steps": 0.06,
        "optim": "adamw_torch_fused",
    },
}


class Rows(torch.utils.data.Dataset[dict[str, Any]]):
    """Tokenized rows with a standardised label."""

    def __init__(self, encoded: list[list[int]], labels: np.ndarray) -> None:
        self.encoded, self.labels = encoded, labels

    def __len__(self) -> int:
        return len(self.encoded)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"input_ids": self.encoded[index], "labels": float(self.labels[index])}


def main(spec: dict[str, Any]) -> None:
    torch.set_num_threads(spec["threads"])
    train, test = pd.read_parquet(spec["train"]), pd.read_parquet(spec["test"])
    tokenizer = AutoTokenizer.from_pretrained(spec["model_dir"])
    tokenizer.model_max_length = spec["max_length"]
    mean, scale = train[spec["target"]].mean(), train[spec["target"]].std()

    def rows(table: pd.DataFrame) -> Rows:
        encoded = tokenizer(table[spec["text"]].tolist(), truncation=True)["input_ids"]
        return Rows(encoded, ((table[spec["target"]] - mean) / scale).to_numpy(np.float32))

    train_rows, test_rows = rows(train), rows(test)
    torch.manual_seed(spec["seed"])
    model = AutoModelForSequenceClassification.from_pretrained(spec["model_dir"], num_labels=1)
    arguments = TrainingArguments(
        output_dir=tempfile.mkdtemp(),
        num_train_epochs=spec["epochs"],
        seed=spec["seed"],
        use_cpu=not torch.cuda.is_available(),
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        logging_strategy="no",
        **VARIANTS[spec["variant"]],
    )
    trainer = Trainer(
        model=model,
        args=arguments,
        train_dataset=train_rows,
        data_collator=DataCollatorWithPadding(tokenizer),
    )
    seconds = trainer.train().metrics["train_runtime"]
    # With lengths grouped, predictions come in another order than the rows; labels go with them.
    output = trainer.predict(test_rows)
    predicted, truth = output.predictions[:, 0] * scale + mean, output.label_ids * scale + mean
    tokens = sum(len(ids) for ids in train_rows.encoded) * spec["epochs"]
    result = {
        "tokens_per_second": tokens / seconds,
        "seconds": seconds,
        "test_rmse": float(np.sqrt(np.mean((predicted - truth) ** 2))),
        "test_r": float(np.corrcoef(predicted, truth)[0, 1]),
    }
    Path(spec["output"]).write_text(json.dumps(result))


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text()))
