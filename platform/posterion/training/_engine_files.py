"""The engine's part of a checkpoint: one safetensors file per worker, readable by any number.

Layout of ``engine/part-00000.safetensors``, ``part-00001...``, one per worker that wrote:

- tensors ``{kind}/{parameter name}``, one-dimensional: the range of the flattened parameter
  that this worker owns. Kinds: ``weight`` (fp32 master weights), ``exp_avg`` and ``exp_avg_sq``
  (Adam's moments, absent before the first step), ``frozen`` (weights that are not trained),
  ``buffer`` (persistent buffers);
- metadata ``posterion``: JSON with ``format``, ``step`` (Adam's, the same for all parameters),
  ``parts`` (number of files) and ``fragments``: for every tensor its ``start`` in the flattened
  parameter and the parameter's whole ``shape``.

All files together hold every element exactly once. A reader takes the ranges it needs.
"""

from __future__ import annotations

import json
import math
import os
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from posterion._exceptions import ArtifactError, WorkError

if TYPE_CHECKING:
    from torch import Tensor

FORMAT = 1
FOLDER = "engine"
"""Inside a checkpoint."""

WEIGHT, EXP_AVG, EXP_AVG_SQ = STATE_KINDS = ("weight", "exp_avg", "exp_avg_sq")
FROZEN, BUFFER = "frozen", "buffer"

_METADATA = "posterion"
_EXAMPLES = 3
"""How many names a message gives."""
_OPEN_FILES = 256

Shape = tuple[int, ...]


def part_path(directory: Path, rank: int) -> Path:
    """The file of one worker."""
    return directory / f"part-{rank:05d}.safetensors"


class PartWriter:
    """Collects what one worker owns and writes it as one file.

    Args:
        rank: Of this worker.
        parts: Number of workers.
        step: Adam's step.
    """

    def __init__(self, *, rank: int, parts: int, step: int) -> None:
        self._rank = rank
        self._header = {"format": FORMAT, "step": step, "parts": parts}
        self._tensors: dict[str, Tensor] = {}
        self._fragments: dict[str, dict[str, Any]] = {}

    def add(self, kind: str, name: str, values: Tensor, *, start: int, shape: Shape) -> None:
        """Take in a range of a flattened parameter.

        Args:
            kind: See the module's layout.
            name: Of the parameter.
            values: One-dimensional. Copied only if it is not in the processor's memory.
            start: Of the range.
            shape: Of the whole parameter.
        """
        key = f"{kind}/{name}"
        self._tensors[key] = values.detach().cpu().contiguous()
        self._fragments[key] = {"start": start, "shape": list(shape)}

    def write(self, directory: Path) -> None:
        """Write the file and wait until it is on disk.

        Raises:
            WorkError: The disk is full, or refuses for another reason.
        """
        from safetensors import SafetensorError
        from safetensors.torch import save_file

        path = part_path(directory, self._rank)
        metadata = json.dumps({**self._header, "fragments": self._fragments})
        try:
            directory.mkdir(parents=True, exist_ok=True)
            save_file(self._tensors, path, metadata={_METADATA: metadata})
            with path.open("rb") as stream:
                os.fsync(stream.fileno())
        except (SafetensorError, OSError) as error:
            raise WorkError(f"{path} cannot be written: {error}") from error


@dataclass(frozen=True)
class _Piece:
    path: Path
    start: int
    numel: int


class SavedEngine:
    """Everything that the files of a checkpoint hold together; a context that keeps them open.

    Args:
        directory: The ``engine`` folder.

    Raises:
        ArtifactError: A file is missing, damaged, or does not fit the others; or an element is
            missing or there twice.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._pieces: dict[str, list[_Piece]] = defaultdict(list)
        self._shapes: dict[str, Shape] = {}
        self._files: dict[Path, Any] = {}
        try:
            self.step = self._index()
            """Adam's step; 0 when there are no moments."""
            self._check_coverage()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the files."""
        while self._files:
            self._files.popitem()[1].__exit__(None, None, None)

    def require(self, expected: Mapping[str, Shape]) -> None:
        """Check that the files hold exactly these tensors.

        Args:
            expected: Shapes by ``{kind}/{name}``. Parameters without elements are ignored.

        Raises:
            ArtifactError: Names what is missing, surplus or of another shape.
        """
        expected = {key: shape for key, shape in expected.items() if math.prod(shape)}
        problems = [
            *_some("not in the checkpoint", expected.keys() - self._shapes.keys()),
            *_some("not in the model", self._shapes.keys() - expected.keys()),
        ]
        for key in sorted(expected.keys() & self._shapes.keys()):
            if self._shapes[key] != expected[key]:
                problems.append(f"{key} has shape {self._shapes[key]} instead of {expected[key]}")
        if problems:
            raise ArtifactError(
                f"{self._directory} does not fit the model: {'; '.join(problems)}. It was written "
                "by a training of another model."
            )

    def read(self, key: str, start: int, numel: int) -> Tensor:
        """A range of a flattened parameter; only its bytes are read. Shape: (numel,)."""
        import torch

        parts = []
        for piece in self._pieces[key]:
            first = max(start - piece.start, 0)
            last = min(start + numel - piece.start, piece.numel)
            if first < last:
                parts.append(self._open(piece.path).get_slice(key)[first:last])
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def read_whole(self, key: str) -> Tensor:
        """A whole parameter in its own shape."""
        shape = self._shapes[key]
        return self.read(key, 0, math.prod(shape)).reshape(shape)

    def _index(self) -> int:
        """Read the headers of all files; returns Adam's step."""
        rank, header = 0, {"parts": 1}
        while rank < header["parts"]:
            path = part_path(self._directory, rank)
            own, fragments = self._read_header(path)
            if rank and own != header:
                raise ArtifactError(
                    f"{path} is of another checkpoint than the files beside it: it says {own}, "
                    f"they say {header}"
                )
            for key, fragment in fragments.items():
                self._add(path, key, fragment)
            rank, header = rank + 1, own
        return header["step"]

    def _read_header(self, path: Path) -> tuple[dict[str, int], dict[str, Any]]:
        from safetensors import SafetensorError

        try:
            file = self._open(path)
            content = json.loads((file.metadata() or {})[_METADATA])
            fragments = content.pop("fragments")
            if content["format"] != FORMAT:
                raise ArtifactError(f"{path} has format {content['format']!r}; this reads {FORMAT}")
            header = {name: int(content[name]) for name in ("format", "step", "parts")}
            if fragments.keys() != set(file.keys()):
                raise ValueError("its index does not name its tensors")
        except (OSError, SafetensorError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ArtifactError(f"{path} cannot be read ({error})") from error
        return header, fragments

    def _add(self, path: Path, key: str, fragment: Mapping[str, Any]) -> None:
        values = self._open(path).get_slice(key)
        try:
            start, shape = int(fragment["start"]), tuple(int(n) for n in fragment["shape"])
            (numel,) = values.get_shape()
            if key.partition("/")[0] in STATE_KINDS and values.get_dtype() != "F32":
                raise ValueError(f"{values.get_dtype()} instead of F32")
        except (KeyError, TypeError, ValueError) as error:
            raise ArtifactError(f"{path}: {key} is damaged ({error})") from error
        if self._shapes.setdefault(key, shape) != shape:
            raise ArtifactError(
                f"{path}: {key} has shape {shape} here and {self._shapes[key]} in another file"
            )
        self._pieces[key].append(_Piece(path, start, numel))

    def _open(self, path: Path) -> Any:
        """The open file; a limited number is kept open."""
        from safetensors import safe_open

        if path not in self._files:
            if len(self._files) >= _OPEN_FILES:
                oldest = next(iter(self._files))
                self._files.pop(oldest).__exit__(None, None, None)
            file: Any = safe_open(path, framework="pt")
            self._files[path] = file.__enter__()
        return self._files[path]

    def _check_coverage(self) -> None:
        for key, pieces in self._pieces.items():
            pieces.sort(key=lambda piece: (piece.start, piece.numel))
            size, end = math.prod(self._shapes[key]), 0
            for start, numel in [*((p.start, p.numel) for p in pieces), (size, 0)]:
                if start != end:
                    what = "missing" if start > end else "too many" if end > size else "there twice"
                    first, last = sorted((end, start))
                    raise ArtifactError(
                        f"{self._directory}: elements {first} to {last - 1} of {key} are {what}"
                    )
                end += numel


def _some(what: str, keys: set[str]) -> list[str]:
    if not keys:
        return []
    names = sorted(keys)
    more = f" and {len(names) - _EXAMPLES} more" if len(names) > _EXAMPLES else ""
    return [f"{', '.join(names[:_EXAMPLES])}{more}: {what}"]
