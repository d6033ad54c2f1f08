from __future__ import annotations

import base64

import pytest

from pushcompat.access.webhook_secret import secret_bytes

SECRET = bytes(range(250, 256)) * 5


def test_a_secret_is_read_with_or_without_the_padding() -> None:
    for size in (24, 25, 26, 64):
        secret = bytes(range(size))
        text = f"whsec_{base64.b64encode(secret).decode()}"
        assert secret_bytes(text) == secret_bytes(text.rstrip("=")) == secret


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "begins with whsec_"),
        (base64.b64encode(SECRET).decode(), "begins with whsec_"),
        ("whsk_" + base64.b64encode(SECRET).decode(), "begins with whsk_, a key for ed25519"),
        ("whpk_" + base64.b64encode(SECRET).decode(), "begins with whpk_, a key for ed25519"),
        ("whsec_" + base64.urlsafe_b64encode(SECRET).decode(), "URL-safe alphabet"),
        ("whsec_", "24 to 64 bytes"),
        ("whsec_" + base64.b64encode(b"x" * 23).decode(), "24 to 64 bytes"),
        ("whsec_" + base64.b64encode(b"x" * 65).decode(), "24 to 64 bytes"),
        ("whsec_" + base64.b64encode(SECRET).decode()[:-1] + "!", "24 to 64 bytes"),
        ("whsec_" + base64.b64encode(SECRET).decode() + "A", "24 to 64 bytes"),
        ("whsec_" + base64.b64encode(b"x" * 25).decode()[:-3] + "B==", "24 to 64 bytes"),  # bits beyond the end
        ("whsec_" + base64.b64encode(SECRET).decode() + "\n", "24 to 64 bytes"),
        ("whsec_\xfc" + base64.b64encode(SECRET).decode(), "24 to 64 bytes"),
        (" whsec_" + base64.b64encode(SECRET).decode(), "begins with whsec_"),
    ],
)
def test_what_the_library_would_take_for_another_secret_is_refused_without_showing_it(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said) as refused:
        secret_bytes(text)
    assert text[6:16] == "" or text[6:16] not in str(refused.value)
