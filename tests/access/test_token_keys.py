from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import dsa, ec, rsa, x25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from pushcompat.access.token_keys import TokenKeys, load_token_keys
from pushcompat.errors import ConfigError

from .tokens import OTHER_SECRET, PRIVATE, SECRET, private_pem, public_jwk, public_pem


def load(tmp_path: Path, text: str | dict[str, Any] | list[Any]) -> TokenKeys:
    path = tmp_path / "keys"
    path.write_text(text if isinstance(text, str) else json.dumps(text))
    return load_token_keys([path])


def refusal(tmp_path: Path, text: str | dict[str, Any] | list[Any]) -> str:
    with pytest.raises(ConfigError) as refused:
        load(tmp_path, text)
    return str(refused.value)


def algorithms(keys: TokenKeys) -> list[str]:
    return [key.algorithm for key in keys._keys]


@pytest.mark.parametrize("algorithm", PRIVATE)
def test_a_public_key_in_pem_has_the_one_algorithm_of_its_kind(tmp_path: Path, algorithm: str) -> None:
    assert algorithms(load(tmp_path, public_pem(algorithm)))[0] == algorithm


def test_a_file_may_have_several_pem_keys(tmp_path: Path) -> None:
    assert algorithms(load(tmp_path, public_pem("RS256") + public_pem("ES256"))) == ["RS256", "ES256"]


def test_secrets_stand_one_in_a_line_so_that_they_can_be_rotated(tmp_path: Path) -> None:
    assert algorithms(load(tmp_path, f"{SECRET}\n\n{OTHER_SECRET}\n")) == ["HS256", "HS256"]


def test_the_secret_of_the_environment_is_a_key_beside_those_of_files(tmp_path: Path) -> None:
    (tmp_path / "keys").write_text(public_pem("ES256"))
    assert algorithms(load_token_keys([tmp_path / "keys"], SECRET)) == ["HS256", "ES256"]


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot read --token-key-file .*missing: No such file"):
        load_token_keys([tmp_path / "missing"])
    (tmp_path / "binary").write_bytes(b"\xff\x00")
    with pytest.raises(ConfigError, match="must be text"):
        load_token_keys([tmp_path / "binary"])


@pytest.mark.parametrize(
    ("text", "advice"),
    [
        ("", "no token key in it"),
        ("too short", "a secret has 9 bytes, and needs 32"),
        (private_pem("ES256"), "openssl pkey -in .* -pubout"),
        ("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----", "openssl x509 -in .* -noout -pubkey"),
        ("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----", "the PEM key cannot be read"),
        ("{", "is not valid JSON"),
        ('{"keys": 1}', "must be a JSON Web Key set"),
        ('{"keys": [1]}', "key 1 is not an object"),
        ('{"keys": []}', "no usable token key"),
    ],
)
def test_a_file_without_a_usable_key_is_refused_with_advice(tmp_path: Path, text: str, advice: str) -> None:
    assert re.search(advice, refusal(tmp_path, text))


def pem(key: Any) -> str:
    return str(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode())


@pytest.mark.parametrize(
    "key",
    [x25519.X25519PrivateKey.generate(), dsa.generate_private_key(2048), ec.generate_private_key(ec.SECP256K1())],
    ids=["X25519", "DSA", "secp256k1"],
)
def test_a_pem_key_of_another_kind_is_refused(tmp_path: Path, key: Any) -> None:
    assert "use RSA, EC (P-256, P-384, P-521) or Ed25519" in refusal(tmp_path, pem(key))


def test_an_rsa_key_under_2048_bits_is_refused(tmp_path: Path) -> None:
    assert "too short" in refusal(tmp_path, pem(rsa.generate_private_key(65537, 1024)))


def test_a_set_names_at_the_start_what_it_does_not_use(tmp_path: Path) -> None:
    keys = load(
        tmp_path,
        {
            "keys": [
                public_jwk("ES256", kid="a"),
                public_jwk("RS256", kid="b", use="enc"),
                {"kty": "OKP", "crv": "X25519", "x": "AA", "kid": "c"},
                {"kty": "other"},
                public_jwk("RS256", kid="d", alg="RSA-OAEP"),
                public_jwk("ES256", kid="e", key_ops=["encrypt"]),
            ]
        },
    )
    assert algorithms(keys) == ["ES256"]
    left_out = " ".join(keys.skipped)
    for name in ("key 2 (b)", "key 3 (c)", "key 4", "key 5 (d)", "key 6 (e)"):
        assert name in left_out


@pytest.mark.parametrize("member", [{"kty": "EC", "crv": "P-256", "x": "AA"}, {"kty": "RSA", "n": "AQAB"}])
def test_a_broken_member_of_a_set_is_an_error_and_not_left_out(tmp_path: Path, member: dict[str, Any]) -> None:
    refused = refusal(tmp_path, {"keys": [public_jwk("ES256"), member]})
    assert "key 2: the key cannot be read" in refused
    assert "'x': 'AA'" not in refused


def test_a_private_member_of_a_set_is_refused(tmp_path: Path) -> None:
    private = jwt.get_algorithm_by_name("ES256").to_jwk(PRIVATE["ES256"], as_dict=True)
    refused = refusal(tmp_path, {"keys": [private]})
    assert "a private key" in refused
    assert private["d"] not in refused


def test_a_short_secret_in_a_set_is_refused(tmp_path: Path) -> None:
    assert "too short" in refusal(tmp_path, {"kty": "oct", "k": "c2hvcnQ"})
    long_enough_for_256 = "QUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUE"
    assert algorithms(load(tmp_path, {"kty": "oct", "k": long_enough_for_256})) == ["HS256"]
    assert "too short" in refusal(tmp_path, {"kty": "oct", "k": long_enough_for_256, "alg": "HS512"})


@pytest.mark.parametrize("name", ["EdDSA", "Ed25519"])
def test_both_names_of_ed25519_are_the_same_algorithm(tmp_path: Path, name: str) -> None:
    assert algorithms(load(tmp_path, public_jwk("EdDSA", alg=name))) == ["EdDSA", "Ed25519"]


def test_a_key_of_a_set_has_the_algorithm_that_it_names(tmp_path: Path) -> None:
    assert algorithms(load(tmp_path, public_jwk("RS256", alg="PS512"))) == ["PS512"]


def test_too_many_keys_for_one_token_are_refused(tmp_path: Path) -> None:
    same = [public_jwk("ES256") for _ in range(9)]
    assert "more than 8 ES256 keys without a kid" in refusal(tmp_path, same)
    named = [public_jwk("ES256", kid="x") for _ in range(9)]
    assert "more than 8 ES256 keys for kid x" in refusal(tmp_path, named)
    assert len(load(tmp_path, [public_jwk("ES256", kid=str(n)) for n in range(20)])._keys) == 20
