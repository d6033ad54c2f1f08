"""Comments in Django: save, then publish to every open page. See README.md for how to run it."""

from django.conf import settings
from django.core.management import execute_from_command_line
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.template import engines
from django.urls import path

from pushcompat.contrib.django import notify, push_cursor

PAGE = """{% load pushcompat %}<!doctype html>
<title>Comments</title>
<form method="post">{% csrf_token %}<input name="text" aria-label="Comment" required> <button>Send</button></form>
<ul>{% for comment in comments %}<li>{{ comment }}</li>{% endfor %}</ul>
{% pushcompat "chat" %}
<script>
  var push = JSON.parse(document.getElementById("pushcompat").textContent)
  push.onMessage = push.onReset = function () { location.reload() }
  PushCompat.subscribe(push.url, push)
</script>"""

comments: list[str] = []  # your models


@push_cursor  # before the comments are read, so that the page misses none
def chat(request: HttpRequest) -> HttpResponse:
    if request.method == "POST":
        comments.append(request.POST["text"])
        notify("chat")  # after the commit; it never waits for the push server
        return redirect("/")
    return HttpResponse(engines["django"].from_string(PAGE).render({"comments": comments}, request))


# What a project has in its settings.py, urls.py and manage.py
urlpatterns = [path("", chat)]
if __name__ == "__main__":
    settings.configure(
        DEBUG=True,
        SECRET_KEY="an example",
        ROOT_URLCONF=__name__,
        INSTALLED_APPS=["pushcompat.contrib.django"],
        MIDDLEWARE=["django.middleware.csrf.CsrfViewMiddleware"],
        TEMPLATES=[{"BACKEND": "django.template.backends.django.DjangoTemplates"}],
        DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
    )
    execute_from_command_line()
