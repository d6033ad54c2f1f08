from __future__ import annotations

import base64
import hmac
import json
import time
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from pushcompat.access.token_keys import TokenKeys, load_token_keys
from pushcompat.access.token_settings import TokenSettings
from pushcompat.access.tokens import Claims, Verifier
from pushcompat.errors import Unauthorized

from .tokens import OTHER_SECRET, PRIVATE, SECRET, by_hand, public_jwk, public_pem, token


def keys(tmp_path: Path, content: Any) -> TokenKeys:
    path = tmp_path / "keys"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return load_token_keys([path])


@pytest.fixture
def verifier(tmp_path: Path) -> Verifier:
    return Verifier(keys(tmp_path, SECRET))


def verify(verifier: Verifier, text: bytes) -> Claims:
    return verifier.verify(text, time.time())


def refusal(verifier: Verifier, text: bytes) -> str:
    with pytest.raises(Unauthorized) as refused:
        verify(verifier, text)
    assert text.decode("latin-1") not in refused.value.detail
    return refused.value.detail


def test_a_token_gives_the_subscriber_and_its_channels(verifier: Verifier) -> None:
    exp = int(time.time()) + 60
    claims = verify(verifier, token(sub="u1", jti="t1", iat=exp - 60, exp=exp, channels=["orders.*", "news"]))
    assert (claims.sub, claims.jti, claims.issued_at) == ("u1", "t1", exp - 60)
    assert claims.until == exp + 10
    assert claims.channels is not None
    assert [pattern.text for pattern in claims.channels] == ["orders.*", "news"]


def test_a_token_without_names_and_channels_is_nobodys(verifier: Verifier) -> None:
    assert verify(verifier, token())[:3] == ("", "", None)


# Signatures and keys


@pytest.mark.parametrize("algorithm", PRIVATE)
def test_a_token_is_verified_with_the_key_that_has_its_kid(tmp_path: Path, algorithm: str) -> None:
    verifier = Verifier(keys(tmp_path, [public_jwk(name, kid=name) for name in PRIVATE]))
    good = token(PRIVATE[algorithm], algorithm, {"kid": algorithm}, sub="u1")
    assert verify(verifier, good).sub == "u1"
    other = "ES256" if algorithm != "ES256" else "RS256"
    assert "fits none" in refusal(verifier, token(PRIVATE[algorithm], algorithm, {"kid": other}, sub="u1"))


def test_the_secret_before_the_last_rotation_is_still_accepted(tmp_path: Path) -> None:
    verifier = Verifier(keys(tmp_path, f"{SECRET}\n{OTHER_SECRET}"))
    for secret in (SECRET, OTHER_SECRET):
        assert verify(verifier, token(secret, sub="u1")).sub == "u1"
    assert "fits none" in refusal(verifier, token("a third secret of at least thirty-two bytes, wrong"))


def test_both_keys_of_one_kid_are_tried(tmp_path: Path) -> None:

    second = ec.generate_private_key(ec.SECP256R1())
    jwk = jwt.get_algorithm_by_name("ES256").to_jwk(second.public_key(), as_dict=True)
    verifier = Verifier(keys(tmp_path, [public_jwk("ES256", kid="k"), {**jwk, "kid": "k"}]))
    assert verify(verifier, token(second, "ES256", {"kid": "k"}, sub="u2")).sub == "u2"


def test_a_key_without_a_kid_may_have_signed_any_token_of_its_algorithm(tmp_path: Path) -> None:
    verifier = Verifier(keys(tmp_path, [public_jwk("ES256"), public_jwk("RS256", kid="r")]))
    assert verify(verifier, token(PRIVATE["ES256"], "ES256", {"kid": "unknown"}, sub="u1")).sub == "u1"


def test_a_token_without_a_kid_is_not_tried_with_every_key_of_a_large_set(tmp_path: Path) -> None:
    verifier = Verifier(keys(tmp_path, [public_jwk("ES512", kid=str(n)) for n in range(20)]))
    assert "kid" in refusal(verifier, token(PRIVATE["ES512"], "ES512"))
    assert verify(verifier, token(PRIVATE["ES512"], "ES512", {"kid": "7"}, sub="u1")).sub == "u1"


@pytest.mark.parametrize("header", ["EdDSA", "Ed25519"])
def test_a_token_may_call_ed25519_by_either_name(tmp_path: Path, header: str) -> None:
    verifier = Verifier(keys(tmp_path, public_jwk("EdDSA")))
    claims = {"exp": int(time.time()) + 60, "sub": "u1"}
    assert verify(verifier, by_hand({"alg": header}, claims, PRIVATE["EdDSA"].sign)).sub == "u1"


def test_a_token_cannot_choose_another_algorithm_for_a_key(tmp_path: Path, verifier: Verifier) -> None:
    for wrong in (token(SECRET * 2, "HS512"), token("", "none"), token(PRIVATE["ES256"], "ES256")):
        assert refusal(verifier, wrong)
    public = Verifier(keys(tmp_path, public_pem("RS256")))
    claims = {"exp": int(time.time()) + 60}
    secret = public_pem("RS256").encode()
    forged = by_hand({"alg": "HS256"}, claims, lambda signed: hmac.digest(secret, signed, "sha256"))
    assert refusal(public, forged)


@pytest.mark.parametrize("text", [b"", b"x", b"a.b", b"..", b"\xff\xfe", b"." * 1000, b"a.b.c.d.e"])
def test_what_is_no_token_is_refused(verifier: Verifier, text: bytes) -> None:
    with pytest.raises(Unauthorized, match="not a JSON Web Token"):
        verify(verifier, text)


def test_what_is_no_token_is_refused_with_several_keys_too(tmp_path: Path) -> None:
    verifier = Verifier(keys(tmp_path, f"{SECRET}\n{OTHER_SECRET}"))
    for text in (b"", b"a.b.c", b"\xff"):
        with pytest.raises(Unauthorized, match="not a JSON Web Token"):
            verify(verifier, text)


def test_a_payload_that_is_not_an_object_is_refused(verifier: Verifier) -> None:
    for payload in (b"[1]", b"not json", b"1"):
        assert "not a JSON Web Token" in refusal(verifier, jwt.api_jws.encode(payload, SECRET, "HS256").encode())


# Times


def test_an_expired_token_is_refused_and_one_within_the_leeway_is_not(verifier: Verifier) -> None:
    now = int(time.time())
    assert "expired" in refusal(verifier, token(exp=now - 60))
    assert verify(verifier, token(exp=now - 5)).until == now + 5
    exact = Verifier(verifier._keys, TokenSettings(leeway_s=0))
    assert "expired" in refusal(exact, token(exp=now))


def test_a_token_without_exp_is_refused(verifier: Verifier) -> None:
    assert "no exp" in refusal(verifier, token(exp=None))
    assert "no exp" in refusal(verifier, signed({"exp": None}))


@pytest.mark.parametrize("exp", ["9999999999", True, [9999999999], {}, "soon"])
def test_exp_is_a_number(verifier: Verifier, exp: Any) -> None:
    assert refusal(verifier, signed({"exp": exp}))


@pytest.mark.parametrize("text", ["1" + "0" * 400, "1e999", "NaN", "Infinity", "-1e999"])
def test_exp_is_finite(verifier: Verifier, text: str) -> None:
    assert refusal(verifier, signed_text(f'{{"exp": {text}}}'))


def test_exp_may_be_a_fraction(verifier: Verifier) -> None:
    exp = time.time() + 60.5
    assert verify(verifier, token(exp=exp)).until == exp + 10


def test_exp_is_at_most_the_maximum_age_ahead(verifier: Verifier) -> None:
    year = 366 * 86400
    assert "--token-max-age" in refusal(verifier, token(exp=int(time.time()) + year + 60))
    assert verify(verifier, token(exp=int(time.time()) + year - 60))


@pytest.mark.parametrize("claim", ["nbf", "iat"])
def test_a_token_of_the_future_is_refused_beyond_the_leeway(verifier: Verifier, claim: str) -> None:
    now = int(time.time())
    assert "in the future" in refusal(verifier, token(**{claim: now + 60}))
    assert verify(verifier, token(**{claim: now + 5}))


@pytest.mark.parametrize("claim", ["nbf", "iat"])
@pytest.mark.parametrize("value", ["1e999", "NaN", '"x"', "[]", "1" + "0" * 400])
def test_a_time_that_is_none_is_refused(verifier: Verifier, claim: str, value: str) -> None:
    exp = int(time.time()) + 60
    text = f'{{"exp": {exp}, "{claim}": {value}}}'
    assert refusal(verifier, signed_text(text))


@pytest.mark.parametrize("value", ["-1" + "0" * 400, "true", '"5"', "-1"])
def test_iat_is_a_time_since_1970(verifier: Verifier, value: str) -> None:
    assert "iat" in refusal(verifier, signed_text(f'{{"exp": {int(time.time()) + 60}, "iat": {value}}}'))


# Names


@pytest.mark.parametrize("claim", ["sub", "jti"])
@pytest.mark.parametrize("value", [7, "", [], None, {"a": 1}, "x" * 257, True])
def test_a_name_is_a_text_that_is_not_empty(verifier: Verifier, claim: str, value: Any) -> None:
    assert refusal(verifier, signed({"exp": int(time.time()) + 60, claim: value}))


def test_the_audience_is_checked_where_one_is_configured(verifier: Verifier, tmp_path: Path) -> None:
    assert "set --token-audience" in refusal(verifier, token(aud="push"))
    assert verify(verifier, token(aud=[]))
    asks = Verifier(verifier._keys, TokenSettings(audience=("push", "other")))
    assert verify(asks, token(aud=["push", "web"], sub="u1")).sub == "u1"
    assert refusal(asks, token(aud="web")) == "the token is for another audience"
    for nothing in ([], ""):
        assert "no aud" in refusal(asks, token(aud=nothing))
    assert "no aud" in refusal(asks, token())


def test_the_issuer_is_checked_where_one_is_configured(verifier: Verifier) -> None:
    assert verify(verifier, token(iss="anyone"))
    asks = Verifier(verifier._keys, TokenSettings(issuer="https://app.example"))
    assert verify(asks, token(iss="https://app.example"))
    assert "another issuer" in refusal(asks, token(iss="https://other.example"))
    assert "no iss" in refusal(asks, token())


# Channels


@pytest.mark.parametrize(
    "channels", ["orders", {"a": 1}, [1], [["a"]], None, ["a b"], [""], ["user:{sub}"], ["x"] * 65, 7]
)
def test_channels_are_a_list_of_names_and_patterns(verifier: Verifier, channels: Any) -> None:
    assert "channels in the token" in refusal(verifier, token(channels=channels))


def test_an_empty_list_of_channels_covers_none(verifier: Verifier) -> None:
    assert verify(verifier, token(channels=[])).channels == ()


def signed(claims: dict[str, Any]) -> bytes:
    return signed_text(json.dumps(claims))


def signed_text(payload: str) -> bytes:
    """PyJWT refuses to make some of these."""
    return jwt.api_jws.encode(payload.encode(), SECRET, "HS256").encode()


def test_a_token_with_padding_is_the_same_token(verifier: Verifier) -> None:
    """So a token is revoked by its claims, never by its text."""
    text = token(sub="u1", jti="t1")
    signature = text.rpartition(b".")[2]
    assert len(base64.urlsafe_b64decode(signature + b"=" * (-len(signature) % 4))) == 32
    padded = text + b"=" * (-len(signature) % 4)
    assert verify(verifier, padded) == verify(verifier, text)


# When the keys have changed


def test_claims_are_trusted_by_the_keys_and_requirements_that_would_verify_them_again(tmp_path: Path) -> None:
    both = Verifier(keys(tmp_path, f"{SECRET}\n{OTHER_SECRET}"))
    old, new = (verify(both, token(secret, sub="u1")) for secret in (SECRET, OTHER_SECRET))
    after = Verifier(keys(tmp_path, OTHER_SECRET))
    assert [both.trusts(claims) for claims in (old, new)] == [True, True]
    assert [after.trusts(claims) for claims in (old, new)] == [False, True]
    for settings in (TokenSettings(audience=("chat",)), TokenSettings(issuer="app")):
        assert not Verifier(keys(tmp_path, OTHER_SECRET), settings).trusts(new)


def test_a_key_is_the_same_under_another_kid_and_in_another_file(tmp_path: Path) -> None:
    before = Verifier(keys(tmp_path, public_pem("ES256")))
    claims = verify(before, token(PRIVATE["ES256"], "ES256", sub="u1"))
    assert Verifier(keys(tmp_path, [public_jwk("ES256", kid="new"), public_jwk("RS256")])).trusts(claims)
    assert not Verifier(keys(tmp_path, public_jwk("RS256"))).trusts(claims)
