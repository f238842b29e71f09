"""A corpus built by Ray Data on a real platform: the bits of one process, whoever is killed."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from posterion.data import TokenShards
from posterion.data.corpus import build_corpus
from posterion.tasks import parse_recipe
from posterion.testing import running_documents
from posterion.text import train_tokenizer

pytestmark = pytest.mark.integration


def test_killed_workers_change_no_bit(platform: Any, tmp_path: Path) -> None:
    text = tmp_path / "text.jsonl"
    lines = [json.dumps({"text": each}) for each in running_documents(3000, seed=1)]
    text.write_text("\n".join(lines), encoding="utf-8")
    tokenizer = train_tokenizer("bpe", running_documents(200, seed=9), 500)
    tokenizer.save(tmp_path / "words")
    values = {
        "job": "corpus",
        "corpus": {
            "text": {"sources": [f"path:{text}"]},
            "packing": {"max_length": 64},
            "validation": 0.1,
            "split_megabytes": 1,
        },
        "tokenizer": f"path:{tmp_path}/words",
        "output": f"{tmp_path}/corpus",
        "engine": {"workers": 2},
    }
    path = tmp_path / "corpus.yaml"
    path.write_text(yaml.safe_dump(values))
    killed: list[str] = []
    end = threading.Event()
    killer = threading.Thread(target=_kill_two, args=(platform, killed, end))
    killer.start()
    try:
        done = platform.command("submit", path, timeout=300)
    finally:
        end.set()
        killer.join()
    assert "reading text 8/8" in done.stdout
    assert len(killed) == 2, done.stdout
    parsed: Any = parse_recipe(values)
    here = build_corpus(parsed.corpus, tokenizer, tmp_path / "here")
    shards = TokenShards(tmp_path / "corpus")
    shards.verify()
    assert shards.content_hash == here.content_hash


def _kill_two(platform: Any, killed: list[str], end: threading.Event) -> None:
    """SIGKILL two workers while they do tasks, one after the other."""
    while len(killed) < 2 and not end.is_set():
        for process in platform.processes():
            try:
                title = " ".join(process.cmdline())
                if title.startswith("ray::") and "_do" in title and process.pid not in killed:
                    process.kill()
                    killed.append(title)
                    time.sleep(2.0)
                    break
            except psutil.Error:
                continue
        time.sleep(0.05)
