"""What of a request can be seen to be wrong before a job starts: files that are not there."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from posterion import ArtifactError, DataError, ModelSourceError
from posterion.config import did_you_mean

_SOURCES = ("source", "tokenizer")
"""Fields that hold a source, wherever they stand."""


def absolute_sources(values: dict[str, Any]) -> dict[str, Any]:
    """The recipe with files made absolute: a job has another working folder."""

    def walk(value: Any, key: str = "") -> Any:
        if isinstance(value, dict):
            return {name: walk(item, name) for name, item in value.items()}
        if isinstance(value, list | tuple):
            return [absolute(item) if key == "sources" else walk(item) for item in value]
        if key == "output" and isinstance(value, str):
            return str(Path(value).expanduser().absolute())
        return absolute(value) if key in _SOURCES else value

    def absolute(source: Any) -> Any:
        scheme, _, rest = source.partition(":") if isinstance(source, str) else ("", "", "")
        path = Path(rest).expanduser()
        if scheme == "path" or (scheme == "new" and path.exists()):
            return f"{scheme}:{path.absolute()}"
        return source

    result: dict[str, Any] = walk(values)
    return result


def check_paths(values: Mapping[str, Any]) -> None:
    """Refuse a recipe that names files which are not there.

    Raises:
        DataError: A data source or a text is missing.
        ModelSourceError: A model or a tokenizer is missing.
        ArtifactError: The model's weights are damaged.
    """
    data = values.get("data")
    if data:
        _check_file("data.source", data["source"])
        for part in ("test", "validation", "calibration"):
            if data.get(part) and data[part].get("source"):
                _check_file(f"data.{part}.source", data[part]["source"])
    corpus = values.get("corpus") or {}
    for number, source in enumerate((corpus.get("text") or {}).get("sources", ())):
        _check_text(f"corpus.text.sources[{number}]", source)
    if corpus.get("source"):
        _check_file("corpus.source", corpus["source"])
    model = values.get("model") or {}
    _check_model("model.source", model.get("source"))
    _check_tokenizer("model.tokenizer", model.get("tokenizer"))
    _check_tokenizer("tokenizer", values.get("tokenizer"))


def _check_file(location: str, source: str) -> None:
    path = _path_of(source)
    if path is not None and not path.exists():
        near = [entry.name for entry in path.parent.glob("*")]
        raise DataError(
            f"{location}: there is no file {str(path)!r}.{did_you_mean(path.name, near)} "
            "Correct the path; it is taken from the folder in which the command runs."
        )


def _check_text(location: str, source: str) -> None:
    """A file, a folder, or a pattern whose fixed part exists."""
    path = _path_of(source)
    if path is None:
        return
    fixed = Path(*(part for part in _before_pattern(path)))
    if not fixed.exists():
        _check_file(location, f"path:{fixed}")


def _before_pattern(path: Path) -> list[str]:
    parts: list[str] = []
    for part in path.parts:
        if set(part) & set("*?["):
            break
        parts.append(part)
    return parts


def _check_model(location: str, source: str | None) -> None:
    path = _path_of(source)
    if path is None:
        return
    if not path.is_dir():
        raise ModelSourceError(
            f"{location}: there is no folder {str(path)!r}. It should hold config.json, the "
            "weights and the tokenizer."
        )
    _check_weights(path)


def _check_tokenizer(location: str, source: str | None) -> None:
    path = _path_of(source)
    if path is not None and not path.is_dir():
        raise ModelSourceError(
            f"{location}: there is no folder {str(path)!r}. It should hold tokenizer.json or a "
            "vocabulary."
        )


def _path_of(source: str | None) -> Path | None:
    """The path of a ``path:`` source."""
    if source is None or not source.startswith("path:"):
        return None
    return Path(source.removeprefix("path:")).expanduser()


def _check_weights(directory: Path) -> None:
    """Refuse weights whose file was cut off; only headers and sizes are looked at."""
    from safetensors import SafetensorError, safe_open

    for path in sorted(directory.glob("*.safetensors")):
        try:
            with safe_open(path, framework="np"):
                pass
        except (SafetensorError, OSError) as error:
            raise ArtifactError(
                f"model.source: {path} is damaged and cannot be read ({error}). Fetch the model "
                "again."
            ) from error
