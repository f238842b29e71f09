"""API keys: made here, shown once, stored as hashes.

A key is 256 random bits, so one round of SHA-256 is enough: there is nothing to guess.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import secrets
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from posterion import ArtifactError, NotFoundError, RequestError
from posterion.config import Home, did_you_mean

PREFIX = "psn_"
LOCAL_KEY = "local"


@dataclass(frozen=True)
class ApiKey:
    """A key as it is stored.

    Attributes:
        name: Who uses it.
        sha256: Hash of the secret, hexadecimal.
        created: Seconds since the epoch.
    """

    name: str
    sha256: str
    created: float


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def write_private(path: Path, text: str) -> None:
    """Write a file of mode 0600 atomically; its folder is made with mode 0700."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    partial.unlink(missing_ok=True)
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


class KeyStore:
    """The keys in one file, re-read when the file changes.

    Args:
        path: The file; absent means that there are no keys.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._stamp: tuple[int, int, int] | None = None
        self._keys: tuple[ApiKey, ...] = ()

    @classmethod
    def of(cls, home: Home) -> KeyStore:
        """The keys of a platform."""
        return cls(home.path / "serve" / "keys.json")

    def all(self) -> tuple[ApiKey, ...]:
        """All keys, oldest first.

        Raises:
            ArtifactError: The file is damaged.
        """
        try:
            info = self.path.stat()
        except FileNotFoundError:
            self._stamp, self._keys = None, ()
            return ()
        stamp = (info.st_mtime_ns, info.st_ino, info.st_size)
        if stamp != self._stamp:
            try:
                rows = json.loads(self.path.read_text())
                self._keys = tuple(ApiKey(**row) for row in rows)
            except (ValueError, TypeError) as error:
                raise ArtifactError(
                    f"The key file {self.path} is damaged ({error}). Restore it, or delete it and "
                    f"make new keys with `posterion serve key create NAME`."
                ) from error
            self._stamp = stamp
        return self._keys

    def create(self, name: str) -> str:
        """Make a key and return its secret, which is not stored and cannot be shown again.

        Raises:
            RequestError: The name is empty or taken.
        """
        if not name.strip():
            raise RequestError("A key needs a name that says who uses it, e.g. `laptop`.")
        keys = self.all()
        if any(key.name == name for key in keys):
            raise RequestError(
                f"A key named {name!r} exists already. Choose another name, or revoke it first "
                f"with `posterion serve key revoke {name}`."
            )
        secret = PREFIX + secrets.token_urlsafe(32)
        self._write((*keys, ApiKey(name, _hash(secret), time.time())))
        return secret

    def revoke(self, name: str) -> None:
        """Remove a key; replicas notice at once.

        Raises:
            NotFoundError: No key has the name.
        """
        keys = self.all()
        kept = tuple(key for key in keys if key.name != name)
        if len(kept) == len(keys):
            names = [key.name for key in keys]
            raise NotFoundError(f"No key is named {name!r}. {did_you_mean(name, names)}".strip())
        self._write(kept)

    def verify(self, secret: str) -> ApiKey | None:
        """The key that ``secret`` belongs to, by the file as it is now.

        Every stored hash is compared, in constant time, whichever matches.
        """
        digest = _hash(secret)
        found = None
        for key in self.all():
            if hmac.compare_digest(key.sha256, digest):
                found = key
        return found

    def _write(self, keys: tuple[ApiKey, ...]) -> None:
        write_private(self.path, json.dumps([asdict(key) for key in keys], indent=1))


def local_key_path(home: Home) -> Path:
    """Where the key of this machine's own commands lies."""
    return home.secrets_dir / "api-key"


def ensure_local_key(home: Home) -> None:
    """Give this machine's own commands a key, if they have no valid one."""
    store = KeyStore.of(home)
    path = local_key_path(home)
    if path.exists() and store.verify(path.read_text().strip()):
        return
    if any(key.name == LOCAL_KEY for key in store.all()):
        store.revoke(LOCAL_KEY)
    home.secrets_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_private(path, store.create(LOCAL_KEY) + "\n")


def read_local_key(home: Home) -> str:
    """The key of this machine's own commands.

    Raises:
        RequestError: The platform was never started.
    """
    try:
        return local_key_path(home).read_text().strip()
    except FileNotFoundError:
        raise RequestError(
            f"There is no API key at {local_key_path(home)}. `posterion up` makes one."
        ) from None
