from __future__ import annotations

import io
import json
import tarfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from posterion import DataError
from posterion.data import _package, read_source, resolve_source
from posterion.data._archive import read_archive


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("POSTERION_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def test_path_is_relative_to_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "rows.csv").write_text("text\nhello\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    assert read_source("path:rows.csv").to_pylist() == [{"text": "hello"}]


def test_missing_file_names_the_nearest(tmp_path: Path) -> None:
    (tmp_path / "train_folds.csv").write_text("a\n1\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"train_fold\.csv: no such file.*'train_folds\.csv'"):
        resolve_source(f"path:{tmp_path}/train_fold.csv")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("rows.csv", "is not a data source"),
        ("s3:bucket/rows.csv", "is not a data source"),
        ("path:", "names no file"),
        ("package:no_such_package_here/rows.csv", "no package 'no_such_package_here'"),
        ("package:posterion", "names no file"),
        ("package:pip==/rows.csv", "names no release"),
        ("package:evil name==1/rows.csv", "names no release"),
        ("package:--index-url==1/rows.csv", "names no release"),
        ("package:x==1/../rows.csv", "names no file inside"),
        ("hub:alone", "names no data set"),
        ("path:/no/such/folder/rows.csv", "does not exist"),
    ],
)
def test_sources_that_name_nothing(source: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        resolve_source(source)


def test_folder_lists_its_files(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("x", encoding="utf-8")
    with pytest.raises(DataError, match=r"is a folder; name one file in it: a\.csv"):
        resolve_source(f"path:{tmp_path}")


def test_file_of_an_installed_package_is_found_without_import(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "carrier_of_rows"
    (package / "sub").mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('imported')", encoding="utf-8")
    (package / "sub" / "rows.csv").write_text("text\nhello\n", encoding="utf-8")
    (tmp_path / "secret.csv").write_text("text\nx\n", encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert read_source("package:carrier_of_rows/sub/rows.csv").num_rows == 1
    with pytest.raises(DataError, match=r"Did you mean 'sub/rows\.csv'"):
        resolve_source("package:carrier_of_rows/sub/row.csv")
    with pytest.raises(DataError, match="holds no file"):
        resolve_source("package:carrier_of_rows/../secret.csv")


def make_sdist(folder: Path, name: str, version: str, files: dict[str, str]) -> Path:
    """A source archive with a build script that pip can prepare offline."""
    top = f"{name}-{version}"
    script = f"from setuptools import setup\nsetup(name={name!r}, version={version!r})\n"
    info = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    path = folder / f"{top}.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        for inside, text in {"setup.py": script, "PKG-INFO": info, **files}.items():
            member = tarfile.TarInfo(f"{top}/{inside}")
            member.size = len(text.encode())
            tar.addfile(member, io.BytesIO(text.encode()))
    return path


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that pip takes for the package index."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    return folder


def test_release_is_fetched_once_and_read_as_data(index: Path, home: Path) -> None:
    archive = make_sdist(index, "rowcarrier", "1.2", {"data/rows.csv": "text\nhello\n"})
    source = "package:rowcarrier==1.2/data/rows.csv"
    assert read_source(source).to_pylist() == [{"text": "hello"}]
    archive.unlink()
    assert read_source(source).to_pylist() == [{"text": "hello"}]
    cached = home / "cache" / "packages" / "rowcarrier-1.2"
    assert json.loads((cached / "archive.json").read_text())["file"] == archive.name
    assert not list(cached.glob("download-*"))
    with pytest.raises(DataError, match=r"Did you mean 'data/rows\.csv'"):
        resolve_source("package:rowcarrier==1.2/data/row.csv")


def test_damaged_cache_is_fetched_again(index: Path, home: Path) -> None:
    make_sdist(index, "rowcarrier", "1.2", {"rows.csv": "text\nhello\n"})
    source = "package:rowcarrier==1.2/rows.csv"
    resolve_source(source)
    cached = home / "cache" / "packages" / "rowcarrier-1.2" / "rowcarrier-1.2.tar.gz"
    cached.write_bytes(cached.read_bytes()[:-20])
    assert read_source(source).num_rows == 1


def test_known_release_with_other_bytes_is_refused_unprepared(
    index: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    ran = tmp_path / "ran"
    script = f"open({str(ran)!r}, 'w').close()\n"
    make_sdist(index, "rowcarrier", "1.2", {"rows.csv": "a\n1\n", "setup.py": script})
    monkeypatch.setitem(_package.KNOWN_SHA256, ("rowcarrier", "1.2"), "0" * 64)
    with pytest.raises(DataError, match="other contents than the published release"):
        resolve_source("package:rowcarrier==1.2/rows.csv")
    assert not ran.exists()


def test_unknown_release(index: Path) -> None:
    with pytest.raises(DataError, match="no source archive of this release"):
        resolve_source("package:rowcarrier==9.9/rows.csv")


def test_archive_links_are_not_followed(tmp_path: Path) -> None:
    path = tmp_path / "links.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        link = tarfile.TarInfo("top/rows.csv")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
        real = tarfile.TarInfo("top/real.csv")
        real.size = 2
        tar.addfile(real, io.BytesIO(b"ok"))
    assert read_archive(path, strip_top=True) == {"real.csv": b"ok"}


def test_archive_member_sizes_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make_sdist(tmp_path, "big", "1", {"rows.csv": "x" * 5000})
    monkeypatch.setattr("posterion.data._archive.MAX_MEMBER_BYTES", 4000)
    with pytest.raises(DataError, match="would unpack to 5000 bytes"):
        read_archive(path, only="rows.csv", strip_top=True)


def test_cut_off_archive(tmp_path: Path) -> None:
    path = make_sdist(tmp_path, "cut", "1", {"rows.csv": "x" * 5000})
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(DataError, match="not a readable archive"):
        read_archive(path)


class _Hub(BaseHTTPRequestHandler):
    """The part of the hub's protocol that reading one file needs."""

    files = {"train.csv": b"text\nfrom the hub\n", "notes.md": b"#"}

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def _answer(self, *, with_body: bool) -> None:
        name = self.path.rpartition("/")[2]
        if self.path.startswith("/api/datasets/owner/rows"):
            siblings = [{"rfilename": file} for file in self.files]
            body = json.dumps({"id": "owner/rows", "siblings": siblings}).encode()
            status = 200
        elif "/owner/rows/" in self.path and name in self.files:
            body, status = self.files[name], 200
        else:
            body, status = b"{}", 404
        self.send_response(status)
        if status == 404:
            missing_file = "/owner/rows/" in self.path
            self.send_header("X-Error-Code", "EntryNotFound" if missing_file else "RepoNotFound")
        self.send_header("X-Repo-Commit", "1" * 40)
        self.send_header("ETag", f'"{name}"')
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if with_body:
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    from huggingface_hub import constants

    server = ThreadingHTTPServer(("127.0.0.1", 0), _Hub)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    address = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setenv("HF_ENDPOINT", address)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    yield address
    server.shutdown()
    server.server_close()
    thread.join()


def test_hub_file_and_the_only_data_file(hub: str) -> None:
    assert read_source("hub:owner/rows/train.csv").to_pylist() == [{"text": "from the hub"}]
    assert read_source("hub:owner/rows").num_rows == 1


def test_hub_names_that_do_not_exist(hub: str) -> None:
    with pytest.raises(DataError, match="has no such file"):
        resolve_source("hub:owner/rows/test.csv")
    with pytest.raises(DataError, match="the hub has no data set 'owner/other'"):
        resolve_source("hub:owner/other/train.csv")


def test_hub_out_of_reach(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from huggingface_hub import constants

    # The hub's library tries again several times, waiting longer each time.
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda _: None)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    with pytest.raises(DataError, match="the hub cannot be reached"):
        resolve_source("hub:owner/rows/train.csv")
    with pytest.raises(DataError, match="the hub cannot be reached"):
        resolve_source("hub:owner/rows")
