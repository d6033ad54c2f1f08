"""Comments in Flask: save, then publish to every open page. See README.md for how to run it."""

import os

from flask import Flask, redirect, render_template_string, request

from pushcompat import PublishError, publish

PUSH = os.environ.get("PUSHCOMPAT_URL", "http://127.0.0.1:8888")
PAGE = """<!doctype html>
<title>Comments</title>
<form method="post"><input name="text" aria-label="Comment" required> <button>Send</button></form>
<ul>{% for comment in comments %}<li>{{ comment }}</li>{% endfor %}</ul>
<script src="{{ push }}/static/pushcompat.js"></script>
<script>
  function again() { location.reload() }
  PushCompat.subscribe("{{ push }}/channels/chat", {onMessage: again, onReset: again})
</script>"""

app = Flask(__name__)
comments: list[str] = []  # your database


@app.get("/")
def show() -> str:
    return render_template_string(PAGE, comments=comments, push=PUSH)


@app.post("/")
def add():
    comments.append(request.form["text"])
    try:
        publish("chat")  # after saving, because pages refetch at once
    except PublishError:
        app.logger.exception("comment saved, but publishing failed")
    return redirect("/", 303)
