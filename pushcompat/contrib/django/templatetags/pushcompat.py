"""``{% load pushcompat %} {% pushcompat "orders" %}``"""

from __future__ import annotations

from typing import Any

from django import template
from django.utils.safestring import mark_safe

from ...page import markup, page
from ..conf import push_options
from ..page import cursor, make_token

register = template.Library()


@register.simple_tag(takes_context=True)
def pushcompat(context: dict[str, Any], *channels: str, sub: str | None = None, id: str = "pushcompat") -> str:
    """The client's script, and a JSON document with that ``id``: what ``PushCompat.subscribe`` needs.

    <script>
      var push = JSON.parse(document.getElementById("pushcompat").textContent);
      push.onMessage = push.onReset = refetch;
      PushCompat.subscribe(push.url, push);
    </script>

    The cursor is that of ``@push_cursor``; without the decorator that of now, so put the tag before what it protects.
    ``sub``: of the token, by default the user's primary key.
    """
    if not channels:
        raise template.TemplateSyntaxError('give the pushcompat tag a channel: {% pushcompat "orders" %}')
    request = context.get("request")
    known = getattr(request, "push_cursor", None)
    user = getattr(request, "user", None)
    if sub is None and user is not None and user.is_authenticated:
        sub = str(user.pk)
    url = push_options().page_url
    data = page(url, channels, cursor(channels[0]) if known is None else known, make_token(channels, sub))
    return mark_safe(markup(url, data, id))
