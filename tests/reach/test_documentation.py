"""docs/proxies.md: its snippets are those that browsers are tried behind, and its tables name what there is."""

from __future__ import annotations

import re

from pushcompat.platforms import PLATFORMS
from pushcompat.wire.damage import DAMAGES

from .intermediaries import INTERMEDIARIES
from .intermediary import ROOT

DOCUMENT = (ROOT / "docs" / "proxies.md").read_text()
SECTIONS = dict(section.split("\n", 1) for section in DOCUMENT.split("\n## ")[1:])


def test_browsers_are_tried_behind_each_proxy_that_has_a_snippet() -> None:
    tried = {between.name.partition(",")[0] for between in INTERMEDIARIES}
    assert {title for title, text in SECTIONS.items() if "```" in text} <= tried


def test_each_proxy_that_browsers_are_tried_behind_is_in_the_first_table() -> None:
    rows = re.findall(r"^\| \[?([\w.-]+(?: \w+)?)", DOCUMENT.partition("\n## ")[0], re.MULTILINE)
    tried = {between.name.partition(",")[0] for between in INTERMEDIARIES if between.program}
    assert {name for name in tried if not any(row.startswith(name) for row in rows)} == set()


def test_the_presets_that_it_names_exist() -> None:
    named = set(re.findall(r"\| `([a-z0-9]+)`[^|]*\|$", DOCUMENT.partition("\n## ")[0], re.MULTILINE))
    named |= set(re.findall(r"`--platform (\w+)`", DOCUMENT))
    assert named
    assert named <= set(PLATFORMS)


def test_the_kinds_of_damage_that_it_lists_are_those_that_are_counted() -> None:
    assert re.findall(r"^\| `(\w+)` \|", SECTIONS["What each needs"], re.MULTILINE) == ["damage", *DAMAGES]
