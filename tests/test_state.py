from __future__ import annotations

import logging
import stat
import threading
from pathlib import Path

import pytest

from pushcompat.errors import ConfigError
from pushcompat.state import KEY_FILE, default_state_dir, load_or_create_key, read_key, read_token, stored_key

from .harness import PATIENCE_S


def test_the_first_start_makes_a_key_that_only_its_owner_can_read(tmp_path: Path) -> None:
    directory = tmp_path / "a" / "state"
    key, path = load_or_create_key(directory)
    assert path == directory / KEY_FILE
    assert len(key) >= 40
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700


def test_the_next_start_has_the_same_key(tmp_path: Path) -> None:
    assert load_or_create_key(tmp_path) == load_or_create_key(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [KEY_FILE]


def test_servers_that_start_at_once_agree_on_one_key(tmp_path: Path) -> None:
    count = 16
    together = threading.Barrier(count)
    keys: list[str] = []

    def start() -> None:
        together.wait(PATIENCE_S)
        keys.append(load_or_create_key(tmp_path / "state")[0])

    threads = [threading.Thread(target=start) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
    assert len(keys) == count
    assert len(set(keys)) == 1
    assert [path.name for path in (tmp_path / "state").iterdir()] == [KEY_FILE]


def test_a_key_that_others_can_read_is_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    _, path = load_or_create_key(tmp_path)
    path.chmod(0o644)
    with caplog.at_level(logging.WARNING, "pushcompat"):
        load_or_create_key(tmp_path)
    assert f"chmod 600 {path}" in caplog.text


def test_a_directory_that_can_not_be_made_is_refused_with_advice(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"cannot write the publish key to .*--state-dir.*--publish-key-file"):
        load_or_create_key(tmp_path / "file" / "state")


@pytest.mark.parametrize(
    ("content", "advice"),
    [
        (b"", "is empty"),
        (b" \n", "is empty"),
        (b"a b\n", "has spaces"),
        (b"a\nb", "has spaces"),
        (b"\xff", "is not ASCII"),
    ],
)
def test_a_key_file_without_a_usable_key_is_refused(tmp_path: Path, content: bytes, advice: str) -> None:
    path = tmp_path / "key"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=advice):
        read_key(path)


def test_a_key_file_may_end_with_a_line_end(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_text("abc\r\n")
    assert read_key(path) == "abc"


def test_a_key_file_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(b"\xef\xbb\xbfabc\r\n")
    assert read_key(tmp_path / "key") == read_token(tmp_path / "key") == "abc"


def test_a_key_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot read the publish key in .*/gone: No such file"):
        read_key(tmp_path / "gone")


def test_the_state_directory_is_where_xdg_says() -> None:
    assert default_state_dir({"XDG_STATE_HOME": "/x"}) == Path("/x/pushcompat")
    assert default_state_dir({"PUSHCOMPAT_STATE_DIR": "/y", "XDG_STATE_HOME": "/x"}) == Path("/y")
    assert default_state_dir({"XDG_STATE_HOME": "relative"}) == Path.home() / ".local/state/pushcompat"
    assert default_state_dir({}) == Path.home() / ".local/state/pushcompat"


def test_a_token_is_read_from_a_file_of_one_line(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("a.b.c\n")
    assert read_token(path) == "a.b.c"
    for content, advice in [("", "one token"), ("a b", "one token"), ("a\nb", "one token"), ("é", "not ASCII")]:
        path.write_text(content)
        with pytest.raises(ConfigError, match=advice):
            read_token(path)
    with pytest.raises(ConfigError, match="cannot read the token"):
        read_token(tmp_path / "missing")


def test_a_key_is_not_created_for_a_check(tmp_path: Path) -> None:
    key, path = stored_key(tmp_path)
    assert (len(key), path, list(tmp_path.iterdir())) == (43, None, [])
    created = load_or_create_key(tmp_path)
    assert stored_key(tmp_path) == created


def test_a_state_directory_that_another_user_owns_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: Path) -> bool:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "exists", refuse)
    with pytest.raises(ConfigError, match=rf"cannot read the publish key in {tmp_path}/publish-key: Permission denied"):
        stored_key(tmp_path)
