"""Pretraining from scratch: our loop against `transformers.Trainer`, same rows, weights, steps.

Each round trains, one after the other in processes of their own, the same randomly initialised
model on the same packed rows in batches of the same size for as many steps, with the same learning
rates. The peer hides words by the library's own collators. Both results are measured by the same
held-out rows with the same words hidden; the rate is real tokens per second of training,
evaluations left out.

    POSTERION_DATA=/data python benchmarks/pretrain.py --architectures roberta distilbert xlnet

Text: $POSTERION_DATA/gutenberg and wikitext2.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
DATA = Path(os.environ.get("POSTERION_DATA", HERE.parent.parent / "shared" / "data"))
RESULTS = HERE / "results" / "pretrain.json"
STYLES = {"roberta": "byte_bpe", "distilbert": "wordpiece", "xlnet": "unigram"}
ROW_TOKENS = 128


def sizes(architecture: str, hidden: int, layers: int) -> dict[str, Any]:
    """Configuration of a model of the given width and depth."""
    if architecture == "xlnet":
        return {"d_model": hidden, "n_layer": layers, "n_head": 4, "d_inner": 4 * hidden}
    if architecture == "distilbert":
        names = {"dim": hidden, "n_layers": layers, "n_heads": 4, "hidden_dim": 4 * hidden}
        return {**names, "max_position_embeddings": ROW_TOKENS}
    return {
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": 4,
        "intermediate_size": 4 * hidden,
        "max_position_embeddings": ROW_TOKENS + 2,
        "type_vocab_size": 1,
    }


def recipe(architecture: str, options: argparse.Namespace, seed: int) -> dict[str, Any]:
    """Our recipe; the peer takes its figures from it."""
    kind = "permuted" if architecture == "xlnet" else "masked"
    return {
        "job": "pretrain",
        "seed": seed,
        "corpus": {
            "text": {
                "sources": [f"path:{DATA}/gutenberg/*.txt", f"path:{DATA}/wikitext2/*.txt"],
                "limit_megabytes": options.megabytes,
            },
            "packing": {"max_length": ROW_TOKENS},
            "validation": 0.1,
        },
        "vocabulary": {
            "kind": STYLES[architecture],
            "size": options.vocabulary,
            **({"style": "xlnet"} if architecture == "xlnet" else {}),
        },
        "model": {
            "source": f"new:{architecture}",
            "config": sizes(architecture, options.hidden, options.layers),
        },
        "objective": {"kind": kind},
        "optimization": {
            "learning_rate": 1e-3,
            "epochs": 1000,
            "max_steps": options.steps,
            "batch_tokens": ROW_TOKENS * options.rows,
            "warmup": 0.1,
        },
        "evaluation": {"every_steps": options.steps},
        "engine": {"precision": "auto"},
    }


def prepare(architecture: str, options: argparse.Namespace, seed: int, home: Path) -> Path:
    """Build vocabulary, corpus and the first weights; returns the run's folder."""
    from posterion.tasks import parse_recipe
    from posterion.training import PretrainSpec
    from posterion_jobs import pretrain
    from posterion_jobs._runs import RunFolder
    from posterion_jobs._stages import Stopped

    run_dir = home / f"{architecture}-{seed}"
    folder = RunFolder(run_dir)
    folder.path.mkdir(parents=True)

    def stop_before_training(event: str, **values: Any) -> None:
        if event == "stage" and values["stage"] == "model" and values["status"] == "done":
            folder.stop_path.touch()

    parsed = parse_recipe(recipe(architecture, options, seed))
    try:
        pretrain.run(parsed, run_dir, emit=stop_before_training)
    except Stopped:
        folder.stop_path.unlink()
    corpus = json.loads((run_dir / "stages" / "corpus.json").read_text())["dir"]
    spec = PretrainSpec(
        recipe=parsed.model_dump(mode="json"),
        run_dir=run_dir,
        model_dir=run_dir / "base",
        corpus_dir=Path(corpus),
    )
    (run_dir / "spec.json").write_text(spec.to_json())
    return run_dir


def ours(run_dir: Path) -> dict[str, float]:
    """Train by our loop."""
    from posterion.training import SoloGang, TrainingSpec, fit

    result = fit(TrainingSpec.from_json((run_dir / "spec.json").read_text()), SoloGang())
    return {"tokens_per_second": result.tokens_per_second, "model_dir": str(result.best_model_dir)}


def peer(run_dir: Path) -> dict[str, float]:
    """Train by `transformers.Trainer`."""
    import torch
    import transformers as hf

    from posterion.data.corpus import TokenShards
    from posterion.training._precision import has_fast_bf16

    spec = json.loads((run_dir / "spec.json").read_text())
    steps = spec["recipe"]["optimization"]
    shards = TokenShards(Path(spec["corpus_dir"]))

    class Rows(torch.utils.data.Dataset):
        def __len__(self) -> int:
            return shards.num_rows

        def __getitem__(self, index: int) -> dict[str, Any]:
            tokens = shards.take([index]).tokens.tolist()
            if len(tokens) % 2:  # the collator for permutations takes even lengths only
                tokens.insert(0, tokenizer.pad_token_id)
            return {"input_ids": tokens}

    tokenizer = hf.AutoTokenizer.from_pretrained(spec["model_dir"])
    if spec["recipe"]["objective"]["kind"] == "permuted":
        model = hf.XLNetLMHeadModel.from_pretrained(spec["model_dir"])
        collator = hf.DataCollatorForPermutationLanguageModeling(tokenizer)
    else:
        model = hf.AutoModelForMaskedLM.from_pretrained(spec["model_dir"])
        collator = hf.DataCollatorForLanguageModeling(tokenizer)
    output = run_dir / "peer"
    trainer = hf.Trainer(
        model=model,
        args=hf.TrainingArguments(
            output_dir=str(output),
            max_steps=steps["max_steps"],
            per_device_train_batch_size=steps["batch_tokens"] // ROW_TOKENS,
            learning_rate=steps["learning_rate"],
            warmup_steps=steps["warmup"],
            weight_decay=steps["weight_decay"],
            optim="adamw_torch_fused",
            bf16=has_fast_bf16(torch.device("cpu")),
            seed=spec["recipe"]["seed"],
            use_cpu=not torch.cuda.is_available(),
            save_strategy="no",
            logging_strategy="no",
            report_to=[],
            disable_tqdm=True,
        ),
        train_dataset=Rows(),
        data_collator=collator,
    )
    seconds = trainer.train().metrics["train_runtime"]
    trainer.save_model(str(output))
    tokenizer.save_pretrained(str(output))
    rows = steps["max_steps"] * (steps["batch_tokens"] // ROW_TOKENS)
    tokens = rows * shards.num_tokens / shards.num_rows
    return {"tokens_per_second": tokens / seconds, "model_dir": str(output)}


def side(name: str, run_dir: Path, threads: int) -> None:
    """One training and its measurement, in this process."""
    import torch

    torch.set_num_threads(threads)
    from posterion.tasks import parse_recipe
    from posterion.training import held_out_rows, perplexity_of

    result = {"ours": ours, "peer": peer}[name](run_dir)
    spec = json.loads((run_dir / "spec.json").read_text())
    table = held_out_rows(
        Path(str(result.pop("model_dir"))), Path(spec["corpus_dir"]), parse_recipe(spec["recipe"])
    )
    print(json.dumps({**result, **perplexity_of(table)}))


def run_side(name: str, run_dir: Path, threads: int) -> dict[str, float]:
    command = [sys.executable, __file__, "--side", name, str(run_dir), "--threads", str(threads)]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    found: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def main(options: argparse.Namespace) -> None:
    rounds = known_rounds(options)
    with tempfile.TemporaryDirectory() as home:
        os.environ["POSTERION_HOME"] = home
        for architecture in options.architectures:
            for seed in options.seeds:
                if any((architecture, seed) == (r["architecture"], r["seed"]) for r in rounds):
                    continue
                run_dir = prepare(architecture, options, seed, Path(home))
                found: dict[str, Any] = {"architecture": architecture, "seed": seed}
                for name in ("ours", "peer"):
                    found[name] = run_side(name, run_dir, options.threads)
                found["speed"] = (
                    found["ours"]["tokens_per_second"] / (found["peer"]["tokens_per_second"])
                )
                rounds.append(found)
                print(json.dumps(found), flush=True)
                write(rounds, options)


def settings_of(options: argparse.Namespace) -> dict[str, Any]:
    """What must be the same for rounds to be put side by side."""
    apart = ("side", "architectures", "seeds")
    return {name: value for name, value in vars(options).items() if name not in apart}


def known_rounds(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Rounds of an earlier call with the same settings."""
    if not RESULTS.exists():
        return []
    content = json.loads(RESULTS.read_text())
    return list(content["rounds"]) if content["settings"] == settings_of(options) else []


def write(rounds: list[dict[str, Any]], options: argparse.Namespace) -> None:
    """Keep what is measured so far."""
    summary = {}
    for architecture in dict.fromkeys(each["architecture"] for each in rounds):
        mine = [each for each in rounds if each["architecture"] == architecture]
        summary[architecture] = {
            "speed_median": statistics.median(each["speed"] for each in mine),
            "perplexity_ours": [each["ours"]["perplexity"] for each in mine],
            "perplexity_peer": [each["peer"]["perplexity"] for each in mine],
        }
    settings = settings_of(options)
    content = {"when": time.strftime("%Y-%m-%d"), "settings": settings, "summary": summary}
    RESULTS.write_text(json.dumps({**content, "rounds": rounds}, indent=2) + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--architectures", nargs="+", default=["roberta", "distilbert", "xlnet"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--layers", type=int, default=3)
    parser.add_argument("--vocabulary", type=int, default=16000)
    parser.add_argument("--rows", type=int, default=16, help="of a step")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--megabytes", type=int, default=8)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--side", nargs=2, metavar=("SIDE", "RUN"))
    chosen = parser.parse_args()
    if chosen.side:
        side(chosen.side[0], Path(chosen.side[1]), chosen.threads)
    else:
        main(chosen)
