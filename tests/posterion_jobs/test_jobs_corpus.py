"""The corpus and vocabulary jobs in this process: text to a tokenizer to packed rows."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from posterion import DataError, RequestError
from posterion.config import CorpusRecipe, VocabularyRecipe
from posterion.data import TokenShards
from posterion.tasks import parse_recipe
from posterion.testing import running_documents
from posterion.text import Tokenizer
from posterion_jobs import corpus, vocabulary
from posterion_jobs._corpora import Builder
from posterion_jobs._events import no_events
from posterion_jobs._progress import EventLines, describe
from posterion_jobs._runs import RunFolder
from posterion_jobs._stages import Stopped


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.jsonl"
    lines = [json.dumps({"text": each}) for each in running_documents(900, seed=1)]
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def recipe(text: Path, **changes: Any) -> CorpusRecipe:
    values = {
        "job": "corpus",
        "corpus": {
            "text": {"sources": [f"path:{text}"]},
            "packing": {"max_length": 64},
            "validation": 0.1,
            "split_megabytes": 1,
        },
        "tokenizer": f"path:{text.parent}/words",
    }
    parsed = parse_recipe({**values, **changes})
    assert isinstance(parsed, CorpusRecipe)
    return parsed


def words(text: Path, **changes: Any) -> VocabularyRecipe:
    values = {
        "job": "vocabulary",
        "corpus": {"text": {"sources": [f"path:{text}"]}},
        "vocabulary": {"size": 500},
        "output": f"{text.parent}/words",
    }
    parsed = parse_recipe({**values, **changes})
    assert isinstance(parsed, VocabularyRecipe)
    return parsed


class Story:
    """Keeps events, and does something at one of them."""

    def __init__(self, at: str = "", then: Callable[[], Any] | None = None) -> None:
        self.events: list[dict[str, Any]] = []
        self._at, self._then = at, then

    def __call__(self, event: str, /, **fields: Any) -> None:
        self.events.append({"event": event, "time": float(len(self.events)), **fields})
        if event == self._at and self._then is not None:
            self._then()

    def stages(self) -> list[tuple[str, str]]:
        return [
            (event["stage"], event["status"]) for event in self.events if event["event"] == "stage"
        ]


class Figures:
    """A tracker that keeps what it is given."""

    def __init__(self) -> None:
        self.metrics: dict[str, float] = {}
        self.tags: dict[str, Any] = {}
        self.artifacts: list[str] = []

    def log_metrics(self, metrics: Any, *, step: int) -> None:
        self.metrics.update(metrics)

    def log_params(self, params: Any) -> None:
        assert params["job"] in ("corpus", "vocabulary")

    def set_tags(self, tags: Any) -> None:
        self.tags.update(tags)

    def log_artifact(self, path: Path, *, folder: str = "") -> None:
        assert path.is_file()
        self.artifacts.append(path.name)

    def wait_run_id(self, timeout: float) -> str:
        return ""


def test_text_becomes_a_tokenizer_and_rows(text: Path, tmp_path: Path) -> None:
    tracker, story = Figures(), Story()
    made = vocabulary.run(words(text), tmp_path / "first", tracker=tracker, emit=story)
    tokenizer = Tokenizer.load(text.parent / "words")
    assert made.metrics == {"vocabulary_size": tokenizer.vocabulary_size}
    assert tracker.tags == {"tokenizer": tokenizer.fingerprint}
    assert {event["stage"] for event in story.events} == {"vocabulary"}
    outcome = corpus.run(recipe(text), tmp_path / "run", tracker=tracker, emit=story)
    shards = TokenShards(tmp_path / "run" / "corpus")
    shards.verify()
    assert outcome.version_dir == tmp_path / "run" / "corpus"
    assert outcome.metrics["train.tokens"] == shards.num_tokens
    assert tracker.tags["corpus"] == shards.content_hash
    assert tracker.metrics["train.rows"] == shards.num_rows
    assert tracker.metrics["corpus.read.megabytes_per_second"] > 0
    assert tracker.artifacts == ["tokenizer.json", "index.json"]
    assert Tokenizer.load(shards.directory / "tokenizer").fingerprint == tokenizer.fingerprint
    again = Story()
    assert corpus.run(recipe(text), tmp_path / "run", emit=again).metrics == outcome.metrics
    assert again.stages() == [("tokenizer", "kept"), ("corpus", "kept")]
    # A corpus that was damaged since is built again.
    (shards.directory / "train-lengths.npy").unlink()
    corpus.run(recipe(text), tmp_path / "run")
    assert TokenShards(tmp_path / "run" / "corpus").content_hash == shards.content_hash


def test_progress_is_told_in_lines(text: Path, tmp_path: Path) -> None:
    vocabulary.run(words(text), tmp_path / "first")
    story, lines = Story(), []
    corpus.run(recipe(text), tmp_path / "run", emit=story)
    write = EventLines(lines.append)
    for event in story.events:
        write.line(json.dumps(event))
    told = "\n".join(lines)
    for part in ("reading text 3/3", "comparing documents", "packing rows", "MB/s", "0 s left"):
        assert part in told
    assert all(describe(event) for event in story.events)


def test_a_job_that_was_stopped_goes_on(text: Path, tmp_path: Path) -> None:
    vocabulary.run(words(text), tmp_path / "first")
    whole = corpus.run(recipe(text), tmp_path / "whole").metrics
    stop = RunFolder(tmp_path / "run").stop_path
    with pytest.raises(Stopped):
        corpus.run(recipe(text), tmp_path / "run", emit=Story("corpus", stop.touch))
    stop.unlink()
    story = Story()
    assert corpus.run(recipe(text), tmp_path / "run", emit=story).metrics == whole
    first = next(event for event in story.events if event["event"] == "corpus")
    assert first["done"] > 1
    hashes = {TokenShards(tmp_path / name / "corpus").content_hash for name in ("run", "whole")}
    assert len(hashes) == 1


def test_a_vocabulary_stops_between_texts(text: Path, tmp_path: Path) -> None:
    stop = RunFolder(tmp_path / "run").stop_path
    with pytest.raises(Stopped):
        vocabulary.run(words(text), tmp_path / "run", emit=Story("corpus", stop.touch))
    assert not (text.parent / "words").exists()


def test_what_is_wrong_is_named(text: Path, tmp_path: Path) -> None:
    vocabulary.run(words(text), tmp_path / "first")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    with pytest.raises(RequestError, match="holds something that is no corpus"):
        corpus.run(recipe(text, output=f"{tmp_path}/full"), tmp_path / "run")
    text.write_bytes(b'{"text": "caf\xe9"}\n')
    with pytest.raises(DataError, match=r"text\.jsonl: byte 13 .*is not utf-8"):
        corpus.run(recipe(text), tmp_path / "other")
    with pytest.raises(DataError, match=r"text\.jsonl: byte 13 .*is not utf-8"):
        vocabulary.run(words(text), tmp_path / "another")


def test_runs_that_describe_the_same_share_a_corpus(text: Path, tmp_path: Path) -> None:
    vocabulary.run(words(text), tmp_path / "first")
    wanted = recipe(text)
    tokenizer = Tokenizer.load(text.parent / "words")
    story = Story()
    for name in ("one", "two"):
        folder = RunFolder(tmp_path / name)
        emit = no_events if name == "one" else story
        builder = Builder(folder, emit, Figures())
        builder.corpus(wanted.corpus, tokenizer, tmp_path / "cache" / "corpus")
    assert story.events == []
