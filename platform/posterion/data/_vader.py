"""Reader of the sentences and ratings published with VADER."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pyarrow as pa

from posterion._exceptions import DataError
from posterion.data._archive import read_archive
from posterion.data._formats import register_format

_VADER_DOMAINS = {
    "amazonReviewSnippets": "amazon",
    "movieReviewSnippets": "movies",
    "nytEditorialSnippets": "nyt",
    "tweets": "tweets",
}
_TRUTH, _RATINGS = "_GroundTruth.txt", "_anonDataRatings.txt"
_VARIANT_OVERLAP = 0.6


@register_format(
    "vader_ratings",
    "*hutto_icwsm_2014*.tar.gz",
    description="sentences with each rater's valence: Hutto and Gilbert, ICWSM 2014",
)
def read_vader_ratings(path: Path) -> pa.Table:
    """Sentences rated for valence from -4 to 4 by at least 15 people each.

    Columns: ``id`` (domain and published id), ``text``, ``domain`` (amazon, movies, nyt,
    tweets), ``group`` (the document a sentence comes from; ids ``D_S`` are sentence S of
    document D), ``target`` (mean rating), ``standard_error`` (sample standard deviation of
    the ratings over the root of their number), ``raters``.

    The target is computed from the ratings themselves: for 199 of the 4,200 tweets, all of
    them sentences made in several variants, the published mean is that of other ratings.
    Tweets that are variants of one sentence ("Anger is ugly.", "Anger is UGLY!!") share
    a group, or near copies of training rows would be tested.

    Source: C. J. Hutto and E. Gilbert, "VADER: A Parsimonious Rule-based Model for Sentiment
    Analysis of Social Media Text", ICWSM 2014; MIT licence.
    """
    members = {
        PurePosixPath(name).name: content
        for name, content in read_archive(path, pattern=f"({_TRUTH}|{_RATINGS})$").items()
    }
    stems = sorted(name.removesuffix(_TRUTH) for name in members if name.endswith(_TRUTH))
    if not stems:
        raise DataError(f"{path}: holds no *{_TRUTH}; vader_ratings reads hutto_ICWSM_2014.tar.gz")
    return pa.concat_tables(_vader_domain(path, stem, members) for stem in stems)


def _vader_domain(path: Path, stem: str, members: dict[str, bytes]) -> pa.Table:
    """One domain: texts joined with their ratings by id."""
    if stem + _RATINGS not in members:
        raise DataError(f"{path}: holds {stem}{_TRUTH} but no {stem}{_RATINGS}")
    truth = dict(_vader_lines(path, stem + _TRUTH, members, fields=3))
    ratings = dict(_vader_lines(path, stem + _RATINGS, members, fields=4))
    if truth.keys() != ratings.keys():
        odd = sorted(truth.keys() ^ ratings.keys())
        raise DataError(
            f"{path}: {stem}: {len(odd)} id(s) have a text or ratings but not both: "
            f"{', '.join(odd[:10])}"
        )
    domain = _VADER_DOMAINS.get(stem, stem)
    texts = [fields[-1] for fields in truth.values()]
    documents = [key.partition("_")[0] for key in truth]
    if domain == "tweets":
        documents = [documents[first] for first in _variants(texts)]
    means, errors, counts = [], [], []
    for key in truth:
        values = _vader_ratings(path, stem, key, ratings[key][-1])
        means.append(values.mean())
        errors.append(values.std(ddof=1) / np.sqrt(len(values)))
        counts.append(len(values))
    return pa.table(
        {
            "id": [f"{domain}/{key}" for key in truth],
            "text": texts,
            "domain": [domain] * len(truth),
            "group": [f"{domain}/{document}" for document in documents],
            "target": pa.array(means, pa.float64()),
            "standard_error": pa.array(errors, pa.float64()),
            "raters": pa.array(counts, pa.int64()),
        }
    )


def _vader_lines(
    path: Path, name: str, members: dict[str, bytes], fields: int
) -> Iterator[tuple[str, list[str]]]:
    """Pairs of id and remaining fields."""
    try:
        # Some of the files begin with a byte-order mark, others do not.
        text = members[name].decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: {name}: byte {error.start} is not UTF-8") from None
    for number, line in enumerate(text.replace("\r\n", "\n").split("\n"), start=1):
        if not line.strip():
            continue
        key, *rest = line.split("\t", fields - 1)
        if len(rest) != fields - 1:
            raise DataError(f"{path}: {name}: line {number} does not have {fields} fields")
        yield key.strip(), rest


def _vader_ratings(
    path: Path, stem: str, key: str, text: str
) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Ratings of one sentence, from ``[1, -2, ...]``."""
    try:
        values = np.array([int(item) for item in text.strip().strip("[]").split(",")], np.float64)
    except ValueError:
        values = np.empty(0)
    if len(values) < 2:
        raise DataError(f"{path}: {stem}{_RATINGS}: id {key}: no list of ratings: {text[:60]!r}")
    return values


def _variants(texts: list[str]) -> list[int]:
    """For each text the first one of which it is a variant, itself included.

    Variants share at least ``_VARIANT_OVERLAP`` of their words (Jaccard index), directly or
    through a chain. Words in a tenth of all texts say nothing and do not count.
    """
    from scipy.sparse import coo_matrix, csr_matrix
    from scipy.sparse.csgraph import connected_components

    vocabulary: dict[str, int] = {}
    words = [set(re.findall(r"[\w']+", text.lower())) for text in texts]
    rows = np.repeat(np.arange(len(texts)), [len(found) for found in words])
    columns = np.array(
        [vocabulary.setdefault(word, len(vocabulary)) for found in words for word in found],
        np.int64,
    )
    frequency = np.bincount(columns)
    telling = frequency[columns] <= max(len(texts) / 10, 10)
    rows, columns = rows[telling], columns[telling]
    ones = np.ones(len(rows), np.float32)
    incidence = csr_matrix((ones, (rows, columns)), shape=(len(texts), len(vocabulary)))
    shared = (incidence @ incidence.T).tocoo()
    size = np.bincount(rows, minlength=len(texts))
    alike = shared.data >= _VARIANT_OVERLAP * (size[shared.row] + size[shared.col] - shared.data)
    pairs = (np.ones(alike.sum(), np.bool_), (shared.row[alike], shared.col[alike]))
    graph = coo_matrix(pairs, shape=(len(texts), len(texts)))
    labels = connected_components(graph, directed=False)[1]
    _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    return [int(row) for row in first[inverse]]
