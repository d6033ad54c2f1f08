from __future__ import annotations

import re
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path

import pytest

from pushcompat.access import webhook_secret
from pushcompat.access.named_key import NamedKey
from pushcompat.config_file import read_config
from pushcompat.errors import ConfigError
from pushcompat.key_tables import keys_from

from .access.signing import OTHER, OTHER_TEXT, SECRET, TEXT

DIGEST = sha256(b"the key").hexdigest()
GOOD = f'[[key]]\nname = "shop"\nchannels = ["orders.*"]\nsha256 = "{DIGEST}"\n'


def keys(tmp_path: Path, text: str, environ: Mapping[str, str] | None = None) -> tuple[NamedKey, ...]:
    path = tmp_path / "push.toml"
    path.write_text(text)
    return keys_from(read_config(path, ())[1], environ or {})


def test_a_table_is_a_key(tmp_path: Path) -> None:
    (key,) = keys(tmp_path, GOOD)
    assert (key.name, [pattern.text for pattern in key.channels]) == ("shop", ["orders.*"])
    assert (key.digest.hex(), key.secrets, key.prefix) == (DIGEST, (), "")


def test_secrets_are_in_the_file_in_another_file_or_in_the_environment(tmp_path: Path) -> None:
    table = '[[key]]\nname = "shop"\nchannels = ["*"]\n'
    (tmp_path / "secrets").write_text(f"{TEXT}\n{OTHER_TEXT}\n")
    for source in (
        f'webhook-secrets = ["{TEXT}", "{OTHER_TEXT}"]',
        'webhook-secrets-file = "secrets"',
        f'webhook_secrets_file = "{tmp_path}/secrets"',
        'webhook-secrets-env = "SHOP"',
    ):
        (key,) = keys(tmp_path, table + source, {"SHOP": f"{TEXT} {OTHER_TEXT}"})
        assert (key.secrets, key.digest) == ((SECRET, OTHER), b"")


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ('[[key]]\nchannels = ["a"]', 1, "without name"),
        ('[[key]]\nname = "shop"', 1, "without channels"),
        ('[[key]]\nname = "shop"\nchannels = ["a"]', 1, "without a key"),
        (GOOD + 'chanels = ["a"]', 5, "did you mean channels"),
        (GOOD.replace('"shop"', '"a b"'), 2, "use 1-64 characters"),
        (GOOD.replace('"shop"', "7"), 2, "must be a text"),
        (GOOD.replace('"shop"', '"root"'), 2, "choose another name"),
        (GOOD.replace('["orders.*"]', '"orders.*"'), 3, "must be a list of texts"),
        (GOOD.replace('["orders.*"]', "[]"), 3, "at least one pattern"),
        (GOOD.replace("orders.*", "{sub}"), 3, "use \\* instead"),
        (GOOD.replace(DIGEST, "the key"), 4, "64 hexadecimal digits"),
        (GOOD + f'webhook-secrets = ["{TEXT}x"]', 5, "24 to 64 bytes"),
        (GOOD + "webhook-secrets = []", 5, "0 secrets"),
        (GOOD + f'webhook-secrets = ["{TEXT}", "{TEXT}", "{TEXT}"]', 5, "3 secrets"),
        (GOOD + 'webhook-secrets-file = "missing"', 5, "No such file"),
        (GOOD + 'webhook-secrets-env = "MISSING"', 5, "no variable MISSING"),
        (GOOD + f'webhook-secrets = ["{TEXT}"]\nwebhook-secrets-env = "A"', 6, "mutually exclusive"),
        (GOOD + GOOD, 6, "given twice"),
        (GOOD + GOOD.replace("shop", "blog"), 5, "are the same secret"),
        (
            f'[[key]]\nname = "a"\nchannels = ["*"]\nwebhook-secrets = ["{TEXT}"]\n'
            f'[[key]]\nname = "b"\nchannels = ["*"]\nwebhook-secrets = ["{TEXT}"]\n',
            5,
            "keys 'a' and 'b' are the same secret",
        ),
    ],
)
def test_a_wrong_table_is_refused_with_its_line_and_without_the_secret(
    tmp_path: Path, text: str, line: int, said: str
) -> None:
    with pytest.raises(ConfigError, match=rf"push\.toml line {line}: .*{said}") as refused:
        keys(tmp_path, text)
    assert not re.search(TEXT[6:20], str(refused.value))


def test_the_documented_keys_are_those_that_there_are(tmp_path: Path) -> None:
    docs = (Path(__file__).parents[1] / "docs" / "access.md").read_text()
    section = docs.partition("## Publishing keys")[2].partition("## Other people")[0]
    for name in re.findall(r"^\| `([\w-]+)`", section, re.MULTILINE):
        with pytest.raises(ConfigError) as refused:
            keys(tmp_path, f"[[key]]\n{name} = 1\nunknown = 1\n")
        assert "unknown key 'unknown'" in str(refused.value)
    (tmp_path / "billing.secrets").write_text(TEXT)
    tables = "".join(re.findall(r"```toml\n(.*?)```", section, re.DOTALL))
    tables = tables.replace("3f4c…", DIGEST).replace("/etc/pushcompat", str(tmp_path))
    assert [key.name for key in keys(tmp_path, tables)] == ["shop", "billing"]


def test_signed_publishes_need_their_library_at_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhook_secret, "find_spec", lambda name: None)
    assert keys(tmp_path, GOOD)
    with pytest.raises(ConfigError, match=r'pip install "pushcompat\[access\]"'):
        keys(tmp_path, GOOD + f'webhook-secrets = ["{TEXT}"]')


def test_a_key_may_have_a_publish_rate(tmp_path: Path) -> None:
    assert [keys(tmp_path, GOOD + text)[0].rate for text in ("", "publish-rate = 0.5\n")] == [None, 0.5]


@pytest.mark.parametrize("rate", ["0", "-1", "true", '"5"', "inf", "nan"])
def test_a_publish_rate_is_a_positive_number(tmp_path: Path, rate: str) -> None:
    with pytest.raises(ConfigError, match=r"push\.toml.*publish-rate must be a number above 0, of messages a second"):
        keys(tmp_path, f"{GOOD}publish-rate = {rate}\n")
