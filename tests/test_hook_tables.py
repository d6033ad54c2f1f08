from __future__ import annotations

import re
from hashlib import sha256
from pathlib import Path

import pytest

from pushcompat.access.hooks import Challenge, Hook
from pushcompat.access.providers import PROVIDERS
from pushcompat.access.replays import REPLAY_S, TOLERANCE_S
from pushcompat.config_file import read_config
from pushcompat.errors import ConfigError
from pushcompat.hook_tables import KEYS, hooks_from

SECRET = "It's a Secret to Everybody"
TOKEN = "u" * 43
MINIMAL = f'name = "gh"\nchannels = ["orders"]\nverify = "github"\nsecrets = ["{SECRET}"]\n'


def read(tmp_path: Path, text: str) -> tuple[Hook, ...]:
    path = tmp_path / "push.toml"
    path.write_text(text, "utf-8")
    return hooks_from(read_config(path, ())[1])


def test_a_hook_needs_a_name_channels_and_a_way_to_verify_it(tmp_path: Path) -> None:
    (hook,) = read(tmp_path, f"[[hook]]\n{MINIMAL}")
    assert (hook.name, hook.channels, hook.provider.name) == ("gh", ("orders",), "github")
    assert hook.secrets == (SECRET.encode(),)
    assert (hook.publishes_body, hook.template, hook.allows_get, hook.line) == (False, None, False, 1)


def test_a_hook_can_have_all_of_this(tmp_path: Path) -> None:
    hooks = read(
        tmp_path,
        f"""
[[hook]]
name = "meta"
channels = "a"
verify = "github"
secrets = "{SECRET}"
publish = "body"
message_key = "k"
message-type = "t"
body-limit = "2MiB"
challenge = "meta"
verify-token = "ours"

[[hook]]
name = "fetched"
channels = ["a", "b", "a"]
verify = "token"
secrets = ["sha256:{sha256(TOKEN.encode()).hexdigest()}", "{TOKEN}"]
template = "{{what}}"
allow-get = true
challenge = "websub"
""",
    )
    first, second = hooks
    assert (first.publishes_body, first.key, first.type, first.body_bytes) == (True, "k", "t", 2 << 20)
    assert (first.challenge, first.verify_token) == (Challenge.META, b"ours")
    assert (second.channels, second.allows_get, second.challenge) == (("a", "b"), True, Challenge.WEBSUB)
    assert second.template is not None
    assert second.secrets == (sha256(TOKEN.encode()).digest(),) * 2
    assert (first.line, second.line) == (2, 14)


def test_secrets_can_be_lines_of_a_file_beside_the_configuration(tmp_path: Path) -> None:
    (tmp_path / "gh.secret").write_text(f"{SECRET}\n\n  another one, also long\n")
    (hook,) = read(tmp_path, "[[hook]]\n" + MINIMAL.replace(f'secrets = ["{SECRET}"]', 'secrets-file = "gh.secret"'))
    assert hook.secrets == (SECRET.encode(), b"another one, also long")


def test_secrets_can_be_in_the_environment(tmp_path: Path) -> None:
    text = "[[hook]]\n" + MINIMAL.replace(f'secrets = ["{SECRET}"]', 'secrets-env = "GH_SECRETS"')
    path = tmp_path / "push.toml"
    path.write_text(text)
    (hook,) = hooks_from(read_config(path, ())[1], {"GH_SECRETS": f"{SECRET}\nanother one, also long"})
    assert hook.secrets == (SECRET.encode(), b"another one, also long")
    with pytest.raises(ConfigError, match="line 5: the environment has no variable GH_SECRETS"):
        read(tmp_path, text)


def test_secrets_are_not_shown_where_the_hook_is(tmp_path: Path) -> None:
    (hook,) = read(tmp_path, f"[[hook]]\n{MINIMAL}")
    assert "Secret" not in repr(hook)


@pytest.mark.parametrize(
    ("old", "new", "line", "advice"),
    [
        ('name = "gh"\n', "", 1, '[[hook]] without name; write for example name = "orders"'),
        ('channels = ["orders"]\n', "", 1, "[[hook]] without channels; write for example"),
        ('verify = "github"\n', "", 1, "[[hook]] without verify; write for example"),
        ('"github"', '"gihub"', 4, "verify must be one of github, stripe, slack, standard, shopify, gitlab, token"),
        ('"gh"', '"a/b"', 2, "it becomes part of the URL"),
        ('"gh"', '".."', 2, "it becomes part of the URL"),
        ('"gh"', "7", 2, "name must be 1 to 64 characters"),
        ('["orders"]', '["orders.*"]', 3, "patterns cannot be used"),
        ('["orders"]', "[]", 3, "channels must be names of channels"),
        ('["orders"]', "7", 3, "channels must be names of channels"),
        (f'secrets = ["{SECRET}"]\n', "", 1, "needs either secrets, secrets-file or secrets-env; pushcompat hooks add"),
        (f'["{SECRET}"]', "[]", 5, "a hook has 1 to 4 secrets"),
        (f'["{SECRET}"]', str([SECRET] * 5), 5, "a hook has 1 to 4 secrets"),
        (f'["{SECRET}"]', '["short"]', 5, "must have 16 characters or more"),
        (f'["{SECRET}"]', "[7]", 5, "secrets must be a text"),
        ("secrets =", "secret =", 5, "unknown key 'secret' in [[hook]]; did you mean secrets?"),
        (f'secrets = ["{SECRET}"]', 'secrets-file = "gone"', 5, "cannot read secrets-file"),
        ("\n", '\nsecrets-file = "x"\n', 1, "needs either secrets, secrets-file or secrets-env"),
        ("\n", '\npublish = "all"\n', 3, 'publish must be "UPDATED" or "body"'),
        ("\n", '\ntemplate = "{"\n', 3, "does not belong to a field"),
        ("\n", '\ntemplate = ""\n', 3, "template must be a text like"),
        ("\n", '\ntemplate = "x"\npublish = "body"\n', 4, "mutually exclusive"),
        ("\n", '\nmessage-key = "a b"\n', 3, "key='a b': use"),
        ("\n", '\nmessage-type = "control"\n', 3, 'must not start with "control"'),
        ("\n", '\nbody-limit = "many"\n', 3, "examples: 64KiB"),
        ("\n", "\nallow-get = 1\n", 3, "allow-get must be true or false"),
        ("\n", "\nallow-get = true\n", 3, 'allow-get needs verify = "token"'),
        ("\n", '\nchallenge = "x"\n', 3, 'challenge must be "meta" or "websub"'),
        ("\n", '\nchallenge = "meta"\n', 1, "belong together"),
        ("\n", '\nverify-token = "x"\n', 1, "belong together"),
        ("\n", '\nverify-token = ""\n', 3, "entered at Meta"),
    ],
)
def test_a_wrong_table_is_refused_with_its_line_and_advice(
    tmp_path: Path, old: str, new: str, line: int, advice: str
) -> None:
    with pytest.raises(ConfigError) as refused:
        read(tmp_path, "[[hook]]\n" + MINIMAL.replace(old, new, 1))
    text = str(refused.value)
    assert f"push.toml line {line}: " in text
    assert advice in text
    assert "\n" not in text
    assert SECRET not in text


def test_two_hooks_cannot_have_the_same_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="line 7: a hook 'gh' is in line 1 already; use another name"):
        read(tmp_path, f"[[hook]]\n{MINIMAL}[[hook]]\n{MINIMAL}")


# docs/access.md

ACCESS = (Path(__file__).parents[1] / "docs" / "access.md").read_text()
SECTION = ACCESS.partition("## Other people's webhooks\n")[2].partition("\n## ")[0]


def test_the_documented_keys_are_those_that_there_are() -> None:
    rows = re.findall(r"^\| (`[a-z-]+`(?:, `[a-z-]+`)*) \| .* \|$", SECTION.partition("### ")[0], re.MULTILINE)
    assert [name for row in rows for name in re.findall(r"`([a-z-]+)`", row)] == list(KEYS)


def test_every_provider_is_documented_with_what_to_enter_where() -> None:
    table = SECTION.partition("### What to enter where\n")[2].partition("\n### ")[0]
    assert set(re.findall(r"^\| [^|]+ \| `(\w+)`", table, re.MULTILINE)) == set(PROVIDERS)


def test_the_documented_times_are_those_that_there_are() -> None:
    text = " ".join(SECTION.split())
    assert TOLERANCE_S == 5 * 60
    assert "differ from the server's by five minutes" in text
    assert REPLAY_S == 11 * 60
    assert "publishes nothing for eleven minutes" in text
