"""The body of a received webhook, as what the fields of a template refer to. Raises Missing if it is something else."""

from __future__ import annotations

import json
from collections.abc import Mapping
from urllib.parse import parse_qsl

from ..errors import BadRequest
from .drafts import payload
from .templates import Missing

FORM = "application/x-www-form-urlencoded"
_MOST_FIELDS = 1000
_PAYLOAD = "payload"  # the field in which GitHub and Slack send their JSON in a form


def document(body: bytes, media_type: str, query: Mapping[str, str]) -> object:
    """What the fields of a template refer to: the JSON in the body, or the fields of a form. Of a request without a
    body, those of the query. Numbers are texts, as they were written. Raises Missing.
    """
    if not body:
        return dict(query)
    if media_type == FORM:
        return _form(body)
    return _json(body)


def unwrapped(body: bytes, media_type: str) -> tuple[bytes, str]:
    """A form with a field ``payload`` is the JSON in that field; any other body is what it is."""
    if media_type == FORM and body.lstrip().startswith(b"payload="):
        fields = _form(body)
        if len(fields) == 1:
            return fields[_PAYLOAD].encode(), "application/json"
    return body, media_type


def _form(body: bytes) -> dict[str, str]:
    try:
        return dict(parse_qsl(body.decode(), keep_blank_values=True, errors="strict", max_num_fields=_MOST_FIELDS))
    except ValueError:  # not UTF-8, or too many
        raise Missing("the body is no form") from None


def _json(body: bytes) -> object:
    try:
        return json.loads(payload(body, is_json=True), parse_int=str, parse_float=str)
    except BadRequest as error:
        raise Missing(error.detail) from None
