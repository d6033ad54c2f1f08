"""A page that shows how far a Celery task is. See README.md for how to run it."""

import os
import tempfile
from pathlib import Path

from celery import Celery
from flask import Flask, redirect, render_template_string

from pushcompat.contrib.celery import Progress
from pushcompat.contrib.flask import Push

START = '<!doctype html><title>Export</title><form method="post"><button>Export</button></form>'
PAGE = """<!doctype html>
<title>Export</title>
<progress id="bar" value="0"></progress> <a id="link" hidden>Download</a>
{{ pushcompat("task." + task) }}
<script>
  var push = JSON.parse(document.getElementById("pushcompat").textContent)
  push.cursor = "earliest"  // only the task's last message is kept: a page that comes late sees where it is
  push.onMessage = function (message) {
    var bar = document.getElementById("bar"), link = document.getElementById("link")
    if (message.type === "progress") { bar.max = message.data.total; bar.value = message.data.done; return }
    bar.value = bar.max
    link.href = message.data.url
    link.hidden = false
  }
  PushCompat.subscribe(push.url, push)
</script>"""

# The broker is a folder here, so that the example needs none.
folder = Path(tempfile.gettempdir(), "pushcompat-export")
(folder / "control").mkdir(parents=True, exist_ok=True)
tasks = Celery(__name__, broker="filesystem://")
tasks.conf.broker_transport_options = {
    "data_folder_in": str(folder),
    "data_folder_out": str(folder),
    "control_folder": str(folder / "control"),
}
app = Flask(__name__)
app.config["PUSHCOMPAT_URL"] = os.environ.get("PUSHCOMPAT_URL")
Push(app)


@tasks.task(bind=True)
def export(self, rows: int) -> None:
    progress = Progress(self)
    for number in range(rows):
        progress(number, rows)  # at most four times a second; it never waits for the push server
    progress.end({"url": "/exports/7"})


@app.get("/")
def start() -> str:
    return START


@app.post("/")
def begin():
    return redirect(f"/task/{export.delay(100_000).id}", 303)


@app.get("/task/<task>")
def show(task: str) -> str:
    return render_template_string(PAGE, task=task)
