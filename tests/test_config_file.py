from __future__ import annotations

import stat
from pathlib import Path

import pytest

from pushcompat.config_file import Table, read_config
from pushcompat.errors import ConfigError


def toml(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "push.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_file_names_options_with_hyphens_or_underscores(tmp_path: Path) -> None:
    path = toml(tmp_path, 'request-cap = 30\npoll_window = "20s"\ncors-origin = ["https://a", "https://b"]\n')
    options = {"request-cap", "poll-window", "cors-origin"}
    settings, tables = read_config(path, options, lists={"cors-origin"})
    assert settings == {"request-cap": "30", "poll-window": "20s", "cors-origin": ["https://a", "https://b"]}
    assert not tables


def test_a_file_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    settings, tables = read_config(toml(tmp_path, '\ufeffport = 1\n[[channel]]\npattern = "x"\n'), {"port"})
    assert settings == {"port": "1"}
    assert [table.line for table in tables] == [2]


@pytest.mark.parametrize(
    ("text", "advice"),
    [
        ("prot = 1", "unknown option 'prot'; did you mean port?"),
        ("[[keys]]", "unknown option 'keys'; did you mean [[key]]?"),
        ("hoost = 1", "unknown option 'hoost'; did you mean host?"),
        ('port = 1\n"z.z" = 1', "line 2: unknown option 'z.z'; see --help"),
        ("z.z = 1", "line 1: unknown option 'z'; see --help"),
        ("zzz = 1", "line 1: unknown option 'zzz'; see --help for all options"),
        ("port = true", "port must be a string or a number"),
        ("port = 2026-11-23", "port must be a string or a number"),
        ("port = [", "is not valid TOML"),
        ('host = ["a", "b"]', "host takes one value, not a list"),
        ('listen-on = "a"\nlisten_on = "b"', "listen-on is given twice"),
        ("port = 1\n\n[[chanel]]\npattern = 'a'", "line 3: unknown option 'chanel'; did you mean [[channel]]?"),
        ("[port]\na = 1", "port must be a string or a number"),
    ],
)
def test_a_file_that_can_not_be_taken_is_refused_in_one_line(tmp_path: Path, text: str, advice: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        read_config(toml(tmp_path, text), {"port", "host", "listen-on"})
    assert advice in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_one_value_of_an_option_that_takes_several_need_not_be_a_list(tmp_path: Path) -> None:
    path = toml(tmp_path, 'cors-origin = "https://a"')
    assert read_config(path, {"cors-origin"}, lists={"cors-origin"})[0] == {"cors-origin": ["https://a"]}


@pytest.mark.parametrize("text", ['demo = "true"', "demo = 1", "demo = [true]"])
def test_a_switch_in_a_file_is_true_or_false(tmp_path: Path, text: str) -> None:
    assert read_config(toml(tmp_path, "demo = true"), {"demo"}, {"demo"})[0] == {"demo": "True"}
    with pytest.raises(ConfigError, match="demo must be true or false"):
        read_config(toml(tmp_path, text), {"demo"}, {"demo"})


def test_a_file_that_is_not_utf_8_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "push.toml"
    path.write_bytes(b'host = "\xff"')
    with pytest.raises(ConfigError, match="not valid TOML"):
        read_config(path, {"host"})


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot read --config .*gone\.toml: No such file"):
        read_config(tmp_path / "gone.toml", set())


def test_a_directory_is_no_file(tmp_path: Path) -> None:
    assert stat.S_ISDIR(tmp_path.stat().st_mode)
    with pytest.raises(ConfigError, match="Is a directory"):
        read_config(tmp_path, set())


# Tables


def tables(tmp_path: Path, text: str) -> list[Table]:
    return list(read_config(toml(tmp_path, text), {"port", "host", "cors-origin"}, lists={"cors-origin"})[1])


def test_a_table_knows_its_line_and_those_of_its_keys(tmp_path: Path) -> None:
    (first, second) = tables(
        tmp_path, 'port = 1\n\n[[channel]]\npattern = "a"\nhistory = 1\n\n[[channel]]\n\npattern = "b"\n'
    )
    assert (first.line, first.lines, first.values) == (3, {"pattern": 4, "history": 5}, {"pattern": "a", "history": 1})
    assert (second.line, second.lines) == (7, {"pattern": 9})


MISLEADING = """\
# [[channel]]
host = '''
[[channel]]
pattern = "not this"
'''
cors-origin = [ # [[channel]]
  "https://a", # "
  "[[channel]]",
]
   [[ "channel" ]] # ''' the first
"pattern" = QUOTES
[[channel]]
history = 1
QUOTES
'history-age' = "# 1"
  history_age = 2
""".replace("QUOTES", '"' * 3)


def test_comments_strings_and_arrays_that_look_like_tables_are_none(tmp_path: Path) -> None:
    text = MISLEADING.replace("  history_age", "  history")
    (table,) = tables(tmp_path, text)
    assert table.line == 10
    assert table.lines == {"pattern": 11, "history-age": 15, "history": 16}
    assert table.values == {"pattern": "[[channel]]\nhistory = 1\n", "history-age": "# 1", "history": 2}


def test_an_error_in_a_table_names_the_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"push\.toml line 16: history-age is given twice"):
        tables(tmp_path, MISLEADING)


def test_lines_are_right_in_a_file_from_windows(tmp_path: Path) -> None:
    path = tmp_path / "push.toml"
    path.write_bytes(b'port = 1\r\n[[channel]]\r\npattern = """\r\na"""\r\nhistory = 1\r\n')
    (table,) = read_config(path, {"port"})[1]
    assert (table.line, table.lines) == (2, {"pattern": 3, "history": 5})


def test_tables_in_one_array_have_the_line_of_the_array(tmp_path: Path) -> None:
    text = 'port = 1\nchannel = [\n  {pattern = "a", history = 1},\n  {pattern = "b"},\n]\nhost = "a"\n'
    first, second = tables(tmp_path, text)
    assert (first.values, second.values) == ({"pattern": "a", "history": 1}, {"pattern": "b"})
    assert {str(table.error("x", "pattern")) for table in (first, second)} == {f"{first.path} line 2: x"}
    assert not tables(tmp_path, "channel = []")


@pytest.mark.parametrize(
    "text",
    [
        'port = 1\n[channel]\npattern = "a"',
        "port = 1\nchannel = 1",
        "port = 1\nchannel = [1]",
        'port = 1\nchannel.pattern = "a"\nchannel.history = 1',
        "port = 1\nchannel = {}",
        "port = 1\n[channel.a]\nx = 1",
    ],
)
def test_what_is_no_array_of_tables_is_refused_with_how_to_write_it(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError, match=r"line 2: write each channel as a table of its own: \[\[channel\]\]"):
        tables(tmp_path, text)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('[[channel]]\npattern = "a"\n[channel.history]\nchannel = 1', 3),
        ('[[channel]]\npattern = "a"\n[[channel.history]]\n[[channel]]', 3),
        ('[[channel]]\npattern = "a"\nhistory.count = 1\nhistory.age = 1', 3),
        ('[[channel]]\npattern = "a"\nhistory = {channel = 1}', 3),
    ],
)
def test_a_table_in_a_table_is_a_value_in_its_line(tmp_path: Path, text: str, line: int) -> None:
    table = tables(tmp_path, text)[0]
    assert table.lines == {"pattern": 2, "history": line}


def test_an_unknown_key_of_a_table_is_refused_with_the_one_that_was_meant(tmp_path: Path) -> None:
    (table,) = tables(tmp_path, '[[channel]]\npatern = "a"')
    with pytest.raises(ConfigError, match=r"line 2: unknown key 'patern' in \[\[channel\]\]; did you mean pattern\?"):
        table.check_keys(("pattern", "ttl"))
    with pytest.raises(ConfigError, match=r"did you mean channel\?"):
        Table("hook", tmp_path, 1, {"chanel": "a"}).check_keys(("channel",))
    with pytest.raises(ConfigError, match="it may have x, y"):
        table.check_keys(("x", "y"))
    table.check_keys(("patern",))
