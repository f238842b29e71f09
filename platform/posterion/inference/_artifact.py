"""The folder of a model version: written whole, and checked before it is believed.

``model/`` (weights, tokenizer, ``posterion.json``), ``calibration.json``, ``metrics.json``,
``predictions.parquet``, ``card.md``, ``pictures/`` and ``manifest.json``.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from posterion._exceptions import ArtifactError
from posterion.tasks import replaced_directory, save_task_model
from posterion.trust import Calibration

if TYPE_CHECKING:
    import pyarrow as pa

MODEL_DIR = "model"
MANIFEST_FILE = "manifest.json"
CALIBRATION_FILE = "calibration.json"
METRICS_FILE = "metrics.json"
PREDICTIONS_FILE = "predictions.parquet"
CARD_FILE = "card.md"
PICTURES_DIR = "pictures"
FORMAT = 1

write_model_dir = save_task_model


def assemble_version(
    target: Path,
    *,
    model_dir: Path,
    calibration: Calibration,
    metrics: Mapping[str, Any],
    predictions: pa.Table,
    card: str,
    pictures: Sequence[Path] = (),
) -> Path:
    """Write the folder of a model version; it appears whole or not at all.

    Args:
        target: Folder to write; one that exists is replaced.
        model_dir: What :func:`~posterion.tasks.save_task_model` wrote; copied.
        calibration: Fitted on held-out rows, or :class:`~posterion.trust.Uncalibrated`.
        metrics: JSON-able figures, by part of the data.
        predictions: Answers for held-out rows.
        card: The model card in Markdown.
        pictures: PNG files the card shows; copied.

    Returns:
        The folder.
    """
    import pyarrow.parquet as pq

    with replaced_directory(Path(target)) as new_dir:
        shutil.copytree(model_dir, new_dir / MODEL_DIR)
        _write_json(new_dir / CALIBRATION_FILE, calibration.to_json())
        _write_json(new_dir / METRICS_FILE, metrics)
        pq.write_table(predictions, new_dir / PREDICTIONS_FILE)
        (new_dir / CARD_FILE).write_text(card, encoding="utf-8")
        for picture in pictures:
            (new_dir / PICTURES_DIR).mkdir(exist_ok=True)
            shutil.copyfile(picture, new_dir / PICTURES_DIR / picture.name)
        write_manifest(new_dir)
    return Path(target)


def write_manifest(directory: Path) -> Path:
    """Write ``manifest.json``: size and SHA-256 of every other file below the folder."""
    directory = Path(directory)
    files = {
        name: {"bytes": (directory / name).stat().st_size, "sha256": _sha256(directory / name)}
        for name in _file_names(directory)
        if name != MANIFEST_FILE
    }
    partial = directory / f".{MANIFEST_FILE}.part"
    _write_json(partial, {"format": FORMAT, "files": files})
    return partial.replace(directory / MANIFEST_FILE)


def manifest_digest(directory: Path) -> str:
    """SHA-256 of the manifest itself: kept elsewhere (a registry tag), it seals the folder."""
    return _sha256(Path(directory) / MANIFEST_FILE)


def verify_manifest(directory: Path, *, digest: str | None = None) -> None:
    """Check every file of a model version against its manifest.

    Args:
        directory: The version's folder. Files beside those of the manifest are tolerated
            (stores add their own), except in ``model/``, where loaders look around.
        digest: Expected :func:`manifest_digest`.

    Raises:
        ArtifactError: Names the file that is missing, changed or does not belong there.
    """
    directory = Path(directory)
    files = _read_manifest(directory, digest)
    present = set(_file_names(directory))
    for name, entry in sorted(files.items()):
        if name not in present:
            raise _damaged(directory, name, "is listed in manifest.json but does not exist")
        size = (directory / name).stat().st_size
        if size != entry["bytes"]:
            reason = f"has {size} bytes, manifest.json says {entry['bytes']}"
            raise _damaged(directory, name, reason)
        if _sha256(directory / name) != entry["sha256"]:
            raise _damaged(directory, name, "does not have the SHA-256 that manifest.json says")
    strangers = sorted(name for name in present - files.keys() if name.startswith(f"{MODEL_DIR}/"))
    if strangers:
        raise _damaged(directory, strangers[0], "is not listed in manifest.json")


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object of a model version.

    Raises:
        ArtifactError: Missing, or no JSON object.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise _damaged(path.parent, path.name, "does not exist") from None
    except (OSError, ValueError) as error:
        raise _damaged(path.parent, path.name, f"is not readable JSON ({error})") from error
    if not isinstance(values, dict):
        raise _damaged(path.parent, path.name, f"holds a {type(values).__name__}, not an object")
    return values


def _read_manifest(directory: Path, digest: str | None) -> dict[str, dict[str, Any]]:
    path = directory / MANIFEST_FILE
    manifest = read_json(path)
    if digest is not None and _sha256(path) != digest:
        raise _damaged(directory, MANIFEST_FILE, "is not the one that was registered")
    files = manifest.get("files")
    if manifest.get("format") != FORMAT or not isinstance(files, dict) or not files:
        raise _damaged(directory, MANIFEST_FILE, f"is no manifest of format {FORMAT}")
    for name, entry in files.items():
        inside = not Path(name).is_absolute() and ".." not in Path(name).parts
        if not inside or not isinstance(entry, dict) or not {"bytes", "sha256"} <= entry.keys():
            raise _damaged(directory, MANIFEST_FILE, f"has an impossible entry {name!r}")
    return files


def _damaged(directory: Path, name: str, reason: str) -> ArtifactError:
    return ArtifactError(
        f"{directory / name} {reason}. The model version is damaged or was tampered with and "
        "will not be used: fetch it again from the registry, or register the run again."
    )


def _file_names(directory: Path) -> list[str]:
    """Relative POSIX paths of all files below a folder."""
    paths = (path for path in directory.rglob("*") if path.is_file())
    return sorted(path.relative_to(directory).as_posix() for path in paths)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _write_json(path: Path, values: Mapping[str, Any]) -> None:
    text = json.dumps(values, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    path.write_text(text, encoding="utf-8")
