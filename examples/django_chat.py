"""Comments in Django: save, then publish to every open page. See README.md for how to run it."""

import os

from django.conf import settings
from django.core.management import execute_from_command_line
from django.db import transaction
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.template import engines
from django.urls import path

from pushcompat import publish

PUSH = os.environ.get("PUSHCOMPAT_URL", "http://127.0.0.1:8888")
PAGE = """<!doctype html>
<title>Comments</title>
<form method="post">{% csrf_token %}<input name="text" aria-label="Comment" required> <button>Send</button></form>
<ul>{% for comment in comments %}<li>{{ comment }}</li>{% endfor %}</ul>
<script src="{{ push }}/static/pushcompat.js"></script>
<script>
  function again() { location.reload() }
  PushCompat.subscribe("{{ push }}/channels/chat", {onMessage: again, onReset: again})
</script>"""

comments: list[str] = []  # your models


def chat(request: HttpRequest) -> HttpResponse:
    if request.method == "POST":
        comments.append(request.POST["text"])
        # Publish only after the commit: pages refetch at once. robust: a failed publish must not fail the request.
        transaction.on_commit(lambda: publish("chat"), robust=True)
        return redirect("/")
    page = engines["django"].from_string(PAGE)
    return HttpResponse(page.render({"comments": comments, "push": PUSH}, request))


# What a project has in its settings.py, urls.py and manage.py
urlpatterns = [path("", chat)]
if __name__ == "__main__":
    settings.configure(
        DEBUG=True,
        SECRET_KEY="an example",
        ROOT_URLCONF=__name__,
        MIDDLEWARE=["django.middleware.csrf.CsrfViewMiddleware"],
        TEMPLATES=[{"BACKEND": "django.template.backends.django.DjangoTemplates"}],
        DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
    )
    execute_from_command_line()
