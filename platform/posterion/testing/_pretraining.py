"""A pretraining of seconds: a tiny language model on a few made-up documents."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from posterion.testing._running_text import running_documents
from posterion.testing._tiny import tiny_model
from posterion.testing._training import with_overrides

if TYPE_CHECKING:
    from posterion.training import PretrainSpec

_OBJECTIVES = {"xlnet": "permuted"}


def tiny_pretraining(
    directory: Path,
    overrides: Mapping[str, Any] | None = None,
    *,
    architecture: str = "roberta",
    packing: str = "full_sentences",
    num_documents: int = 60,
) -> PretrainSpec:
    """Everything :func:`posterion.training.fit` needs, made up under ``directory``.

    Args:
        directory: Folder to write into; calling again with the same one and other overrides
            keeps corpus, model and run folder.
        overrides: Recipe values by dotted key, e.g. ``{"objective.whole_words": True}``.
        architecture: Of the model; see :func:`~posterion.testing.tiny_model`.
        packing: Kind of rows.
        num_documents: Of the corpus, validation included.
    """
    from posterion.config.corpus import CorpusSection
    from posterion.data.corpus import build_corpus
    from posterion.tasks import parse_recipe
    from posterion.text import Tokenizer
    from posterion.training import PretrainSpec

    directory.mkdir(parents=True, exist_ok=True)
    model_dir = tiny_model(directory / "model", architecture)
    text_path = directory / "documents.jsonl"
    lines = [json.dumps({"text": text}) for text in running_documents(num_documents, num_words=60)]
    text_path.write_text("\n".join(lines), encoding="utf-8")
    corpus = CorpusSection.model_validate(
        {
            "text": {"sources": [f"path:{text_path}"]},
            "cleaning": {"min_characters": 1, "max_repetition": 1.0},
            "deduplication": {"near": False},
            "language": {"detect": False},
            "packing": {"kind": packing, "max_length": 32},
            "validation": 0.2,
        }
    )
    corpus_dir = directory / "corpus"
    build_corpus(corpus, Tokenizer.load(model_dir), corpus_dir)
    recipe: dict[str, Any] = {
        "job": "pretrain",
        "seed": 7,
        "corpus": {"source": f"path:{corpus_dir}"},
        "model": {"source": f"path:{model_dir}"},
        "objective": {"kind": _OBJECTIVES.get(architecture, "masked")},
        "optimization": {"learning_rate": 3e-3, "epochs": 2, "batch_tokens": 256},
        "engine": {"precision": "fp32"},
    }
    return PretrainSpec(
        recipe=parse_recipe(with_overrides(recipe, overrides)).model_dump(mode="json"),
        model_dir=model_dir,
        run_dir=directory / "run",
        corpus_dir=corpus_dir,
    )
