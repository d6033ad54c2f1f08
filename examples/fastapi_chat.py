"""Comments in FastAPI: save, then publish to every open page. See README.md for how to run it."""

import html
import json
from typing import Annotated
from urllib.parse import parse_qs

from fastapi import Depends, FastAPI, Request
from fastapi.responses import HTMLResponse, RedirectResponse

from pushcompat.contrib.fastapi import Notify, Push

PAGE = """<!doctype html>
<title>Comments</title>
<form method="post"><input name="text" aria-label="Comment" required> <button>Send</button></form>
<ul>{comments}</ul>
<script src="{server}/static/pushcompat.js"></script>
<script>
  var push = {push}
  push.onMessage = push.onReset = function () {{ location.reload() }}
  PushCompat.subscribe(push.url, push)
</script>"""

push = Push()
app = FastAPI(lifespan=push.lifespan)
comments: list[str] = []  # your database


@app.get("/")
async def show() -> HTMLResponse:
    subscription = await push.page("chat")  # before the comments are read, so that the page misses none
    items = "".join(f"<li>{html.escape(comment)}</li>" for comment in comments)
    return HTMLResponse(PAGE.format(comments=items, server=push.options.page_url, push=json.dumps(subscription)))


@app.post("/")
async def add(request: Request, notify: Annotated[Notify, Depends(push.notify)]) -> RedirectResponse:
    form = parse_qs((await request.body()).decode())
    comments.append(form["text"][0])
    notify("chat")  # after the response; it never fails the request
    return RedirectResponse("/", 303)
