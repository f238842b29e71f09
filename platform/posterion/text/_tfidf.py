"""TF-IDF vectors with a state that is plain JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from posterion._exceptions import ArtifactError, DataError
from posterion.text._segments import split_words
from posterion.text._statistics import checked_texts

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

_FORMAT = "posterion-tfidf-1"


@dataclass(frozen=True, kw_only=True)
class TfidfOptions:
    """What a :class:`TfidfVectors` counts."""

    unit: Literal["word", "char", "char_wb"] = "word"
    """Words of :func:`split_words`; character n-grams; those inside of words."""
    shortest: int = 1
    """Units of the shortest n-gram."""
    longest: int = 1
    """Units of the longest n-gram."""
    min_texts: int = 2
    """Least number of texts that an n-gram must occur in."""
    max_features: int | None = None
    """Most n-grams to keep, the most frequent ones; all if None."""
    sublinear: bool = True
    """Count n occurrences as 1 + ln n."""

    def __post_init__(self) -> None:
        if self.unit not in ("word", "char", "char_wb"):
            raise DataError(f"unit: {self.unit!r} is unknown; use word, char or char_wb.")
        if not 1 <= self.shortest <= self.longest:
            raise DataError(
                f"shortest, longest: {self.shortest}, {self.longest}; "
                "n-grams need 1 <= shortest <= longest."
            )
        if self.min_texts < 1 or (self.max_features is not None and self.max_features < 1):
            raise DataError(
                f"min_texts, max_features: {self.min_texts}, {self.max_features}; "
                "both must be at least 1."
            )


class TfidfVectors:
    """Sparse vectors of n-grams, weighted by rarity and of length 1 (scikit-learn's TF-IDF).

    The weight of an n-gram that occurs in d of N texts is ln((1 + N) / (1 + d)) + 1; N-grams that
    no text of the fit held are left out, and a text of only such ones is a row of zeros.
    """

    def __init__(self, options: TfidfOptions, terms: Iterable[str], idf: np.ndarray[Any, Any]):
        self.options = options
        self.terms = tuple(terms)
        """The V n-grams, sorted; the names of the columns."""
        self.idf = np.asarray(idf, dtype=np.float64)
        """Shape (V,): their weights."""
        self._vectorizer = _vectorizer(options, vocabulary=list(self.terms))
        self._vectorizer.idf_ = self.idf

    @classmethod
    def fit(cls, texts: Iterable[str | None], options: TfidfOptions | None = None) -> TfidfVectors:
        """Choose n-grams and weights from texts.

        Raises:
            DataError: A row that is no text, or no n-gram that occurs often enough.
        """
        options = options or TfidfOptions()
        rows = checked_texts(texts)
        vectorizer = _vectorizer(options, min_df=options.min_texts)
        try:
            vectorizer.fit(rows)
        except ValueError as error:
            raise DataError(
                f"texts: no n-gram occurs in {options.min_texts} of the {len(rows)} texts; "
                "give more texts or lower min_texts."
            ) from error
        return cls(options, vectorizer.get_feature_names_out().tolist(), vectorizer.idf_)

    def transform(self, texts: Iterable[str | None]) -> csr_matrix:
        """Vectors of texts, shape (N, V), float64, rows of length 1 or 0."""
        return self._vectorizer.transform(checked_texts(texts))

    def save(self, path: Path) -> None:
        """Write the state as JSON; floats come back exactly."""
        state = {
            "format": _FORMAT,
            "options": asdict(self.options),
            "terms": self.terms,
            "idf": self.idf.tolist(),
        }
        path.write_text(json.dumps(state, ensure_ascii=False), encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> TfidfVectors:
        """Read what :meth:`save` wrote.

        Raises:
            ArtifactError: The file is not such a state, or damaged.
        """
        try:
            state = json.loads(path.read_text(encoding="utf-8"))
            if state["format"] != _FORMAT:
                raise ValueError(f"format {state['format']!r} is not {_FORMAT!r}")
            if len(state["terms"]) != len(state["idf"]):
                raise ValueError(f"{len(state['terms'])} terms, {len(state['idf'])} weights")
            return cls(TfidfOptions(**state["options"]), state["terms"], np.array(state["idf"]))
        except (ValueError, KeyError, TypeError, OSError, DataError) as error:
            raise ArtifactError(
                f"{path}: no TF-IDF state: {error}. Fit and save it anew."
            ) from error


def _vectorizer(options: TfidfOptions, **choice: Any) -> Any:
    from sklearn.feature_extraction.text import TfidfVectorizer

    return TfidfVectorizer(
        analyzer=options.unit,
        tokenizer=split_words if options.unit == "word" else None,
        token_pattern=None,
        ngram_range=(options.shortest, options.longest),
        max_features=None if "vocabulary" in choice else options.max_features,
        sublinear_tf=options.sublinear,
        **choice,
    )
