"""What one would write without this platform: FastAPI, uvicorn and a transformers pipeline."""

from __future__ import annotations

import os
import sys

import torch
import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel
from transformers import AutoTokenizer, BertForSequenceClassification, pipeline

app = FastAPI()
ask_pipeline = None


class Example(BaseModel):
    text: str


@app.post("/predict")
def predict(example: Example) -> dict[str, float]:
    answer = ask_pipeline(example.text, truncation=True, max_length=128, function_to_apply="none")
    return {"answer": answer[0]["score"]}


def main(source: str, port: int, threads: int) -> None:
    global ask_pipeline
    torch.set_num_threads(threads)
    model = BertForSequenceClassification.from_pretrained(source, num_labels=1).eval()
    tokenizer = AutoTokenizer.from_pretrained(source)
    ask_pipeline = pipeline("text-classification", model=model, tokenizer=tokenizer, device="cpu")
    ask_pipeline("warm up", function_to_apply="none")
    uvicorn.run(app, host="127.0.0.1", port=port, log_level="error", access_log=False)


if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
