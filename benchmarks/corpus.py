"""A corpus larger than memory: does it stream through, at what rate, in how much memory a worker?

Writes made-up text (``_corpus_text.py``), builds it by the corpus job with workers side by side on
Ray Data, watches the resident memory of every process of it, and removes all of it again.

    python benchmarks/corpus.py [--megabytes 5000] [--workers 2] [--work /var/tmp]
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import psutil
from _corpus_text import write_corpus
from _local_ray import ENVIRONMENT, start_ray

HERE = Path(__file__).resolve().parent
LOOK_EVERY_S = 0.2
MOST_MEMORY = 2e9


class MemoryWatch(threading.Thread):
    """Keeps the highest resident memory of this process and of each one below it.

    Pages of files that several map, and of Ray's object store, count for each of them.
    """

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.peaks: dict[str, int] = {}
        self._end = threading.Event()

    def run(self) -> None:
        """Look until :meth:`stop`."""
        me = psutil.Process()
        while not self._end.wait(LOOK_EVERY_S):
            for process in (me, *me.children(recursive=True)):
                try:
                    name = "job" if process == me else self._role(process)
                    size = process.memory_info().rss
                except psutil.Error:
                    continue
                if name:
                    self.peaks[name] = max(self.peaks.get(name, 0), size)

    def stop(self) -> dict[str, int]:
        """Bytes, of the job and of the largest worker."""
        self._end.set()
        self.join()
        return self.peaks

    @staticmethod
    def _role(process: psutil.Process) -> str:
        command = " ".join(process.cmdline())
        return "worker" if command.startswith("ray::") else ""


def build(text: Path, folder: Path, workers: int) -> dict[str, Any]:
    """Vocabulary from the beginning of the text, then the corpus; figures of the latter."""
    import ray

    from posterion.data import TokenShards
    from posterion.tasks import parse_recipe
    from posterion_jobs import corpus, vocabulary

    sources = {"text": {"sources": [f"path:{text}/*.jsonl"]}}
    words: Any = {
        "job": "vocabulary",
        "corpus": {"text": {**sources["text"], "limit_megabytes": 100}},
        "vocabulary": {"size": 30_000, "sample_megabytes": 50},
        "output": f"{folder}/words",
    }
    vocabulary.run(parse_recipe(words), folder / "vocabulary")
    recipe: Any = parse_recipe(
        {
            "job": "corpus",
            "corpus": {**sources, "packing": {"max_length": 512}, "validation": 0.001},
            "tokenizer": f"path:{folder}/words",
            "engine": {"workers": workers},
        }
    )
    start_ray(workers)
    watch = MemoryWatch()
    watch.start()
    begun = time.monotonic()
    stages: dict[str, float] = {}

    def note(event: str, **values: Any) -> None:
        if event == "corpus":
            stages[values["stage"]] = time.monotonic() - begun
            print(json.dumps(values, default=str), flush=True)

    outcome = corpus.run(recipe, folder / "run", emit=note)
    seconds = time.monotonic() - begun
    peaks = watch.stop()
    ray.shutdown()
    shards = TokenShards(outcome.version_dir)
    return {
        "seconds": seconds,
        "stage_ended_after": stages,
        "peak_bytes": peaks,
        "rows": shards.num_rows,
        "tokens": shards.num_tokens,
        "figures": outcome.metrics,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--megabytes", type=int, default=5000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--work", type=Path, help="where the text goes; temporary by default")
    parser.add_argument("--output", type=Path, default=HERE / "results" / "corpus.json")
    options = parser.parse_args()
    os.environ.update(ENVIRONMENT)  # before anything imports ray
    with tempfile.TemporaryDirectory(dir=options.work, prefix="corpus-") as name:
        folder = Path(name)
        planted = write_corpus(folder / "text", options.megabytes * 1_000_000)
        size = sum(path.stat().st_size for path in (folder / "text").iterdir())
        found = build(folder / "text", folder, options.workers)
    result = {
        "when": time.strftime("%Y-%m-%d"),
        "megabytes": size / 1e6,
        "documents": planted,
        "workers": options.workers,
        "megabytes_per_second": size / 1e6 / found["seconds"],
        **found,
        "holds": found["peak_bytes"]["worker"] < MOST_MEMORY,
    }
    options.output.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
