"""The browser client as an ES module that sets no global, made from the one source, as npm/build.js makes it."""

from __future__ import annotations

import re
from functools import cache

from ..assets import STATIC

# Finds out who loads the file: a script tag, CommonJS or AMD.
_WRAPPER = re.compile(
    r"^\(function \(root, factory\) \{.*?\n\}\([^\n]*?, (?=function \(root\) \{\n)", re.MULTILINE | re.DOTALL
)
_END = re.compile(r"\}\)\);\s*$")
_EXPORTS = """}(typeof self !== "undefined" ? self : globalThis));

export const subscribe = api.subscribe, UpdateCheckSocket = api.UpdateCheckSocket;
export default api;
"""


@cache
def module() -> str:
    source = (STATIC / "pushcompat.js").read_text()
    return _END.sub(lambda _: _EXPORTS, _WRAPPER.sub("const api = (", source))
