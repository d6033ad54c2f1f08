"""The answer of a language model, token by token. See README.md for how to run it.

The application keeps what the model has said; each message says how many tokens come before its own. So a page shows
each token once, whatever it was rendered with, and whichever messages it gets again: after a reload, in a second tab,
when the network or the transport has changed, and when the push server has lost its log.
"""

import os
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field

from flask import Flask, abort, redirect, render_template_string, request

from pushcompat.contrib.flask import Push

ASK = (
    '<!doctype html><title>Ask</title><form method="post"><input name="question" required> <button>Ask</button></form>'
)
PAGE = """<!doctype html>
<title>{{ question }}</title>
<h1>{{ question }}</h1>
<article id="answer" style="white-space: pre-wrap">{{ tokens | join }}</article>
<p id="end">{{ end }}</p>
{{ pushcompat("answer." + id) }}
<script>
  var push = JSON.parse(document.getElementById("pushcompat").textContent)
  var shown = {{ tokens | length }}
  push.onMessage = function (message) {
    var more = message.data
    if (more.before > shown) return reload()  // the application could not publish some: it has them
    var tokens = more.tokens.slice(shown - more.before)
    shown += tokens.length
    document.getElementById("answer").append(tokens.join(""))
    document.getElementById("end").textContent = more.end
  }
  push.onReset = reload
  if (!document.getElementById("end").textContent) var subscription = PushCompat.subscribe(push.url, push)

  function reload() {
    subscription.close()  // or each message until then would begin it again
    location.reload()
  }
</script>"""
PUBLISH_EVERY_S = 0.05  # a person does not see the difference, and a page draws less often

app = Flask(__name__)
app.config["PUSHCOMPAT_URL"] = os.environ.get("PUSHCOMPAT_URL")
app.config["PUSHCOMPAT_PUBLIC_URL"] = os.environ.get("PUSHCOMPAT_PUBLIC_URL")
push = Push(app)


@dataclass
class Answer:
    question: str
    tokens: list[str] = field(default_factory=list)
    end: str = ""


answers: dict[str, Answer] = {}  # your database


def model(question: str) -> Iterator[str]:
    """Stands in for a language model's stream."""
    for number in range(1, 41):
        for token in f"{number}. You asked: {question}\n".split(" "):
            time.sleep(0.01)
            yield token if token.endswith("\n") else f"{token} "


def write(id: str) -> None:
    """In a thread here; in a task of Celery's or the like, if an answer must outlive a deploy."""
    answer = answers[id]
    published, next_at = 0, 0.0
    with app.app_context():
        try:
            for token in model(answer.question):
                answer.tokens.append(token)
                if time.monotonic() >= next_at:
                    push(f"answer.{id}", {"before": published, "tokens": answer.tokens[published:], "end": ""})
                    published, next_at = len(answer.tokens), time.monotonic() + PUBLISH_EVERY_S
            answer.end = "That is all."
        except Exception:
            app.logger.exception("the model failed")
            answer.end = "The model failed: ask again."
        push(f"answer.{id}", {"before": published, "tokens": answer.tokens[published:], "end": answer.end})


@app.get("/")
def ask() -> str:
    return ASK


@app.post("/")
def begin():
    id = uuid.uuid4().hex
    answers[id] = Answer(request.form["question"])
    threading.Thread(target=write, args=(id,)).start()
    return redirect(f"/answers/{id}", 303)


@app.get("/answers/<id>")
@push.with_cursor  # before the tokens are read, so that the page misses none
def show(id: str) -> str:
    answer = answers.get(id) or abort(404)
    end, tokens = answer.end, list(answer.tokens)  # in this order: at the end there are all tokens
    return render_template_string(PAGE, id=id, question=answer.question, tokens=tokens, end=end)
