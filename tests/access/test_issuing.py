from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from pushcompat.access.issuing import issue
from pushcompat.access.token_keys import load_token_keys
from pushcompat.access.tokens import Verifier
from pushcompat.errors import ConfigError

from .tokens import OTHER_SECRET, PRIVATE, SECRET, private_pem, public_pem


def file(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


@pytest.mark.parametrize("algorithm", PRIVATE)
def test_a_token_made_with_the_private_key_is_accepted_with_the_public_one(tmp_path: Path, algorithm: str) -> None:
    verifier = Verifier(load_token_keys([file(tmp_path / "public", public_pem(algorithm))]))
    made = issue(file(tmp_path / "private", private_pem(algorithm)), expires_s=60, sub="u1", channels=["orders.*"])
    claims = verifier.verify(made.encode(), time.time())
    assert (claims.sub, [pattern.text for pattern in claims.channels or ()]) == ("u1", ["orders.*"])
    assert claims.jti
    assert claims.issued_at


def test_a_token_is_made_with_the_first_secret_of_the_servers_file(tmp_path: Path) -> None:
    secrets = file(tmp_path / "secrets", f"{SECRET}\n{OTHER_SECRET}\n")
    verifier = Verifier(load_token_keys([], SECRET))
    for key in (secrets, SECRET):
        assert verifier.verify(issue(key, expires_s=60, jti="t1").encode(), time.time()).jti == "t1"


@pytest.mark.parametrize("content", ["", '{"keys": []}', "short", public_pem("ES256"), "-----BEGIN PRIVATE KEY-----\n"])
def test_a_file_without_a_signing_key_is_refused(tmp_path: Path, content: str) -> None:
    with pytest.raises(ConfigError, match=r"a secret|private key"):
        issue(file(tmp_path / "key", content), expires_s=60)


@pytest.mark.parametrize("more", [{"channels": ["a b"]}, {"key": "missing"}])
def test_what_is_wrong_is_named(tmp_path: Path, more: dict[str, Any]) -> None:
    key = more.pop("key", None)
    with pytest.raises(ConfigError, match=r"--channel|cannot read --token-key-file"):
        issue(tmp_path / key if key else SECRET, expires_s=60, **more)
