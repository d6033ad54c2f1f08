"""Comments in Flask: save, then publish to every open page. See README.md for how to run it."""

import os

from flask import Flask, redirect, render_template_string, request

from pushcompat.contrib.flask import Push

PAGE = """<!doctype html>
<title>Comments</title>
<form method="post"><input name="text" aria-label="Comment" required> <button>Send</button></form>
<ul>{% for comment in comments %}<li>{{ comment }}</li>{% endfor %}</ul>
{{ pushcompat("chat") }}
<script>
  var push = JSON.parse(document.getElementById("pushcompat").textContent)
  push.onMessage = push.onReset = function () { location.reload() }
  PushCompat.subscribe(push.url, push)
</script>"""

app = Flask(__name__)
app.config["PUSHCOMPAT_URL"] = os.environ.get("PUSHCOMPAT_URL")
push = Push(app)
comments: list[str] = []  # your database


@app.get("/")
@push.with_cursor  # before the comments are read, so that the page misses none
def show() -> str:
    return render_template_string(PAGE, comments=comments)


@app.post("/")
def add():
    comments.append(request.form["text"])
    push("chat")  # at the end of the request; it never waits for the push server
    return redirect("/", 303)
