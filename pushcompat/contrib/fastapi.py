"""pushcompat in a FastAPI application. See docs/applications.md.

push = Push()
app = FastAPI(lifespan=push.lifespan)

@app.post("/comments")
async def add(comment: Comment, notify: Annotated[Notify, Depends(push.notify)]):
    await save(comment)
    notify("chat")  # published after the response, in one batch, and not after an exception
"""

from __future__ import annotations

from fastapi import BackgroundTasks

from ..client.async_publisher import AsyncPublisher
from . import starlette
from .starlette import Notify

__all__ = ["Notify", "Push"]


class Push(starlette.Push):
    """``Depends(push)`` is the ``AsyncPublisher``, ``Depends(push.notify)`` a ``Notify``."""

    async def __call__(self) -> AsyncPublisher:
        return self.publisher

    async def notify(self, tasks: BackgroundTasks) -> Notify:  # type: ignore[override]
        made = Notify(self)
        tasks.tasks.append(made.task)
        return made
