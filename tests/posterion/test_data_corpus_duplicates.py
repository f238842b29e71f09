"""Duplicates: sketches estimate what they should, and only later documents go."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from posterion.config.corpus import CorpusSection, DeduplicationSection
from posterion.data import TokenShards, near_duplicates
from posterion.data.corpus import _matching as matching
from posterion.data.corpus import build_corpus
from posterion.data.corpus._matching import Match, dropped_of_block, match_exact, match_near
from posterion.data.corpus._references import (
    Bands,
    are_validation,
    blocks_of,
    indices_of,
    reference,
)
from posterion.data.corpus._sketches import sequences
from posterion.testing import running_documents
from posterion.text import Tokenizer, split_words, train_tokenizer


def altered(text: str, share: float, generator: np.random.Generator) -> str:
    """A text with this share of its words replaced."""
    words = text.split(" ")
    for place in generator.choice(len(words), max(1, int(share * len(words))), replace=False):
        words[place] = f"other{generator.integers(1 << 30)}"
    return " ".join(words)


def exact_similarity(first: str, second: str, n: int) -> float:
    """Share of word sequences in common, from the words themselves."""
    sets = []
    for text in (first, second):
        words = [word.lower() for word in split_words(text)]
        sets.append({tuple(words[at : at + n]) for at in range(max(1, len(words) - n + 1))})
    return len(sets[0] & sets[1]) / len(sets[0] | sets[1])


def test_signatures_estimate_the_share_in_common() -> None:
    """Over 300 pairs at all similarities, within the error that the theory gives."""
    generator = np.random.default_rng(0)
    documents = running_documents(300, seed=1)
    shares = np.linspace(0.0, 0.3, 300)
    others = [
        altered(text, share, generator) for text, share in zip(documents, shares, strict=True)
    ]
    truth = np.array([exact_similarity(a, b, 5) for a, b in zip(documents, others, strict=True)])
    first, second = (sequences(texts, 5).signatures(128) for texts in (documents, others))
    estimate = (first == second).mean(axis=1)
    error = estimate - truth
    deviation = np.sqrt(truth * (1 - truth) / 128)
    assert truth.min() < 0.2 < 0.9 < truth.max()
    assert abs(error.mean()) < 0.01
    assert np.sqrt((error**2).mean()) < 1.3 * np.sqrt((deviation**2).mean())


def test_words_count_whatever_case_punctuation_and_script() -> None:
    def hashes(text: str, n: int = 2) -> list[int]:
        return sequences([text], n).hashes.tolist()

    assert hashes("Don't panic, Mr. DENT!") == hashes("don t panic mr dent")
    assert hashes("a\u2014b \u201cc\u201d") == hashes("a b c")
    assert hashes("\u4e2d\u6587\u5b57") == hashes("\u4e2d\u3002\u6587 \u5b57")
    assert len(hashes("\u4e2d\u6587\u5b57")) == 2
    assert len(hashes("\u0440\u0443\u0441\u0441\u043a\u0438\u0439 \u044f\u0437\u044b\u043a")) == 1
    assert hashes("one two three", 5) == hashes("One, two: three.", 5)
    assert len(hashes("one", 5)) == 1
    assert hashes("...") == []
    assert hashes("a b") != hashes("b a")
    both = sequences(["a b c", "", "x y z"], 2)
    assert both.offsets.tolist() == [0, 2, 2, 4]
    assert both.hashes.tolist() == hashes("a b c") + hashes("x y z")


def test_repetition_is_the_share_that_stood_before() -> None:
    lines = "the same five words here\n" * 10
    shares = sequences([lines, "all of these words are different ones", ""], 5).repetition()
    assert shares.tolist() == [pytest.approx(41 / 46), 0.0, 0.0]


@pytest.mark.parametrize("threshold", [0.5, 0.7, 0.8, 0.9, 1.0])
def test_bands_find_what_is_alike(threshold: float) -> None:
    bands = Bands.of(DeduplicationSection(threshold=threshold))
    assert bands.num_bands * bands.rows <= 128
    assert 1 - (1 - threshold**bands.rows) ** bands.num_bands >= 0.98
    # Signatures that agree at a place with this probability share a band as often as that.
    generator = np.random.default_rng(0)
    first = generator.integers(0, 1 << 32, (4000, 128), dtype=np.uint32)
    agree = generator.random((4000, 128)) < threshold
    second = np.where(agree, first, first + 1)
    found = (bands.keys(first) == bands.keys(second)).any(axis=1).mean()
    assert found == pytest.approx(1 - (1 - threshold**bands.rows) ** bands.num_bands, abs=0.01)
    assert not (bands.keys(first)[:-1] == bands.keys(first)[1:]).any()


def test_references_tell_part_block_and_place() -> None:
    found = reference(7, np.array([0, 5, 5]), np.array([False, True, False]))
    assert are_validation(found).tolist() == [False, True, False]
    assert blocks_of(found).tolist() == [7, 7, 7]
    assert indices_of(found).tolist() == [0, 5, 5]
    assert np.argsort(found).tolist() == [1, 0, 2]
    assert reference(6, 9, False) < found[0]


documents = st.lists(
    st.tuples(st.integers(0, 4), st.booleans()), min_size=1, max_size=30
)  # What a document says, and whether it is held out
repeatable = settings(max_examples=80, derandomize=True, deadline=None, database=None)


def write_block(folder: Path, number: int, said: Any, generator: np.random.Generator) -> np.ndarray:
    """A block of documents that say one of five things, equal or nearly so."""
    folder.mkdir(parents=True)
    owners = reference(number, np.arange(len(said)), np.array([held for _, held in said]))
    exact = np.zeros(
        len(said), dtype=[("hash", np.uint64), ("check", np.uint64), ("owner", np.uint64)]
    )
    meanings = np.array([meaning for meaning, _ in said], dtype=np.uint64)
    exact["hash"], exact["check"], exact["owner"] = meanings << np.uint64(61), 7, owners
    np.save(folder / "exact.npy", exact[np.argsort(exact["hash"], kind="stable")])
    signatures = meanings[:, None].astype(np.uint16) * 1000 + np.arange(16, dtype=np.uint16)
    noise = generator.random(signatures.shape) < 0.05
    signatures = np.where(noise, signatures + 500, signatures).astype(np.uint16)
    keys = np.repeat(meanings << np.uint64(61), 2)
    order = np.argsort(keys, kind="stable")
    np.save(folder / "keys.npy", keys[order])
    np.save(folder / "owners.npy", np.repeat(owners, 2)[order])
    np.save(folder / "signatures.npy", signatures)
    return owners


@repeatable
@given(blocks=st.lists(documents, min_size=1, max_size=3), everywhere=st.booleans())
def test_of_equal_documents_the_first_stays(
    tmp_path_factory: pytest.TempPathFactory, blocks: Any, everywhere: bool
) -> None:
    root = tmp_path_factory.mktemp("blocks")
    generator = np.random.default_rng(0)
    owners = [
        write_block(root / str(number), number, said, generator)
        for number, said in enumerate(blocks)
    ]
    said = dict(
        zip(
            np.concatenate(owners).tolist(),
            [meaning for block in blocks for meaning, _ in block],
            strict=True,
        )
    )
    expected = set()
    kept: dict[int, bool] = {}
    for owner in sorted(said):
        held_out = bool(are_validation(np.array([owner], np.uint64))[0])
        if said[owner] not in kept:
            kept[said[owner]] = held_out
        elif everywhere or (kept[said[owner]] and not held_out):
            expected.add(owner)
    folders = [root / str(number) for number in range(len(blocks))]
    for parts in (1, 3):
        exact = [match_exact(folders, part, parts, everywhere=everywhere) for part in range(parts)]
        near = [
            match_near(
                folders,
                range(len(folders)),
                part,
                parts,
                threshold=0.6,
                everywhere=everywhere,
            )
            for part in range(parts)
        ]
        for matches in (exact, near):
            assert {int(one) for match in matches for one in match.dropped} == expected
        in_blocks = [
            (number, int(index))
            for number in range(len(blocks))
            for index in dropped_of_block((match.dropped for match in exact), number)
        ]
        found = np.array(sorted(expected), dtype=np.uint64)
        pairs = zip(blocks_of(found).tolist(), indices_of(found).tolist(), strict=True)
        assert sorted(in_blocks) == sorted(pairs)


def test_unlike_documents_of_one_hash_are_compared_again() -> None:
    """A B A B B with one key: the first A and the first B stay."""
    owners = reference(0, np.arange(5), np.zeros(5, dtype=bool))
    says = {int(owner): letter for owner, letter in zip(owners, "ABABB", strict=True)}

    def alike(first: Any, second: Any) -> Any:
        return np.array([says[int(a)] == says[int(b)] for a, b in zip(first, second, strict=True)])

    match: Match = matching._drop(np.zeros(5, dtype=np.uint64), owners, alike, True)
    assert indices_of(match.dropped).tolist() == [2, 3, 4]
    assert match.num_compared == 4 + 2


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer("bpe", running_documents(100, seed=9), 1000)


def write(path: Path, texts: list[str]) -> dict[str, Any]:
    path.write_text("\n".join(json.dumps({"text": text}) for text in texts))
    return {"text": {"sources": [f"path:{path}"]}, "split_megabytes": 1}


def test_planted_duplicates_go(tmp_path: Path, tokenizer: Tokenizer) -> None:
    generator = np.random.default_rng(0)
    texts = running_documents(900, seed=1)
    near = [altered(text, 0.01, generator) for text in texts[:60]]
    unlike = [altered(text, 0.2, generator) for text in texts[60:120]]
    exact = texts[120:180]
    values = write(tmp_path / "text.jsonl", [*texts, *near, *unlike, *exact])
    section = CorpusSection.model_validate({**values, "validation": 0})
    corpus = build_corpus(section, tokenizer, tmp_path / "corpus")
    assert corpus.index.dropped == {"exact_duplicate": 60, "near_duplicate": 60}
    assert corpus.num_documents == 960
    off = section.model_copy(
        update={"deduplication": DeduplicationSection(near=False, exact=False)}
    )
    assert build_corpus(off, tokenizer, tmp_path / "all").num_documents == 1080


@pytest.mark.parametrize("deduplicate", [True, False])
def test_nothing_like_a_validation_document_is_trained_on(
    tmp_path: Path, tokenizer: Tokenizer, deduplicate: bool
) -> None:
    generator = np.random.default_rng(1)
    texts = running_documents(400, seed=2)
    # Those that are like another stand before and after it.
    texts = [*(altered(text, 0.01, generator) for text in texts[:200]), *texts, *texts[:100]]
    values = write(tmp_path / "text.jsonl", texts)
    options = {"near": deduplicate, "exact": deduplicate}
    section = CorpusSection.model_validate({**values, "validation": 0.3, "deduplication": options})
    build_corpus(section, tokenizer, tmp_path / "corpus")
    parts = []
    for part in ("train", "validation"):
        shards = TokenShards(tmp_path / "corpus", part)  # type: ignore[arg-type]
        rows = shards.take(np.arange(len(shards)))
        order = np.argsort(rows.documents, kind="stable")
        bounds = np.searchsorted(rows.documents[order], np.arange(shards.num_documents + 1))
        parts.append(
            [
                tokenizer.decode(rows.tokens[order[start:end]].tolist())
                for start, end in pairwise(bounds)
            ]
        )
    train, validation = parts
    assert len(validation) > 60
    similar = near_duplicates(train, validation, threshold=0.5)
    assert similar.num_rows == 0
    within = near_duplicates(train, threshold=0.7).num_rows
    assert within == 0 if deduplicate else within > 60
