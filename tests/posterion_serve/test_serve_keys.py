import json
import stat

import pytest

from posterion import ArtifactError, NotFoundError, RequestError
from posterion.config import Home
from posterion_serve import KeyStore
from posterion_serve._keys import ensure_local_key, local_key_path, read_local_key


@pytest.fixture
def home(tmp_path):
    return Home(tmp_path / "home")


def test_a_key_opens_until_it_is_revoked(key_store):
    secret = key_store.create("laptop")
    assert key_store.verify(secret).name == "laptop"
    assert key_store.verify(secret[:-1]) is None
    key_store.revoke("laptop")
    assert key_store.verify(secret) is None


def test_the_file_holds_hashes_only_and_is_private(key_store):
    secret = key_store.create("laptop")
    text = key_store.path.read_text()
    assert secret not in text
    assert secret.removeprefix("psn_") not in text
    assert stat.S_IMODE(key_store.path.stat().st_mode) == 0o600
    assert [path.name for path in key_store.path.parent.iterdir()] == ["keys.json"]


def test_keys_are_long_and_different(key_store):
    secrets = {key_store.create(f"user-{number}") for number in range(5)}
    assert len(secrets) == 5
    assert all(len(secret) >= 43 + len("psn_") for secret in secrets)


def test_another_process_revoking_a_key_is_noticed(key_store):
    secret = key_store.create("laptop")
    reader = KeyStore(key_store.path)
    assert reader.verify(secret) is not None
    key_store.revoke("laptop")
    assert reader.verify(secret) is None


def test_names_are_unique_and_not_empty(key_store):
    key_store.create("laptop")
    with pytest.raises(RequestError, match="exists already"):
        key_store.create("laptop")
    with pytest.raises(RequestError, match="needs a name"):
        key_store.create(" ")


def test_revoking_an_unknown_key_names_the_nearest(key_store):
    key_store.create("laptop")
    with pytest.raises(NotFoundError, match="laptop"):
        key_store.revoke("labtop")


def test_a_damaged_file_is_reported_not_ignored(key_store):
    key_store.create("laptop")
    key_store.path.write_text(json.dumps([{"name": "laptop"}]))
    with pytest.raises(ArtifactError, match="damaged"):
        KeyStore(key_store.path).all()


def test_no_file_means_no_key_opens(tmp_path):
    assert KeyStore(tmp_path / "absent.json").verify("psn_x") is None


def test_the_local_key_is_made_once_and_repaired(home):
    ensure_local_key(home)
    first = read_local_key(home)
    ensure_local_key(home)
    assert read_local_key(home) == first
    assert stat.S_IMODE(local_key_path(home).stat().st_mode) == 0o600
    assert stat.S_IMODE(home.secrets_dir.stat().st_mode) == 0o700

    KeyStore.of(home).revoke("local")
    ensure_local_key(home)
    assert read_local_key(home) != first
    assert KeyStore.of(home).verify(read_local_key(home)) is not None


def test_a_platform_that_was_never_up_says_so(home):
    with pytest.raises(RequestError, match="posterion up"):
        read_local_key(home)
