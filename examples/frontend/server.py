"""Comments, which pages of several frameworks keep up to date. See docs/frontend.md."""

import os
from pathlib import Path

from flask import Flask, redirect, render_template_string, request, send_from_directory
from markupsafe import escape

from pushcompat.contrib.flask import Push

FOLDER = Path(__file__).parent
app = Flask(__name__, static_folder=FOLDER / "dist" / "assets", static_url_path="/assets")
app.config["PUSHCOMPAT_URL"] = os.environ.get("PUSHCOMPAT_URL")
push = Push(app)
comments: list[str] = []  # your database


def items() -> str:
    return "".join(f"<li>{escape(comment)}</li>" for comment in comments)


@app.get("/")
def index() -> str:
    names = sorted({page.stem for page in FOLDER.glob("*.html")})
    return "".join(f'<p><a href="/{name}">{name}</a></p>' for name in names)


@app.get("/<name>")
@push.with_cursor
def page(name: str) -> str:
    """Each page finds what ``subscribe`` needs in ``{{ pushcompat(…) }}``."""
    built = FOLDER / "dist" / f"{name}.html"
    source = built if built.exists() else FOLDER / f"{name}.html"
    return render_template_string(source.read_text(), items=items)


@app.get("/comments")
def fragment() -> str:
    return items()


@app.get("/comments.json")
def as_json() -> list[str]:
    return comments


@app.post("/")
def add():
    comments.append(request.form["text"])
    push("comments")
    # For pages that get HTML instead of fetching it
    push("turbo", f'<turbo-stream action="update" target="comments"><template>{items()}</template></turbo-stream>')
    push("htmx", items())
    push("datastar", f'fragments <ul id="comments">{items()}</ul>', type="datastar-merge-fragments")
    return redirect("/", 303)


@app.get("/node_modules/<path:path>")
def node_module(path: str):
    return send_from_directory(FOLDER / "node_modules", path)
