"""Configurations of which one thing is dangerous."""

from __future__ import annotations

from typing import Any

from pushcompat.access.hooks import Hook
from pushcompat.access.patterns import Pattern
from pushcompat.access.providers import PROVIDERS
from pushcompat.access.rules import Rule, Rules, Subscribe
from pushcompat.config import Config

KEY = "x" * 32


def rule(text: str, line: int, **fields: Any) -> Rule:
    return Rule(Pattern(text), line=line, **fields)


def hook(name: str, *channels: str) -> Hook:
    return Hook(name, channels, PROVIDERS["github"], (b"x" * 32,))


def config(*rules: Rule, default: Rule | None = None, **fields: Any) -> Config:
    default = default or Rule(Pattern("*"), subscribe=Subscribe.TOKEN)
    return Config(**{"publish_key": KEY, "rules": Rules(rules, default), **fields})
