"""Tasks of the worker in test_celery.py. The broker is a folder."""

from __future__ import annotations

import os
import time
from typing import Any

from celery import Celery

from pushcompat import Publisher
from pushcompat.client.publisher import default_publisher
from pushcompat.contrib.celery import Progress

folder = os.environ["CELERY_FOLDER"]
app = Celery("tasks", broker="filesystem://")
app.conf.broker_transport_options = {
    "data_folder_in": folder, "data_folder_out": folder, "control_folder": f"{folder}/control",
}  # fmt: skip
app.conf.worker_max_tasks_per_child = 1


@app.task(bind=True)
def count(self: Any, total: int) -> None:
    progress = Progress(self)
    for done in range(1, total + 1):
        progress(done, total)
    progress.end({"url": "/exports/7"})


@app.task
def leave() -> None:
    """Ends, and its process with it, before the queue was published."""
    publisher: Publisher = default_publisher()
    queue = publisher._later()
    deliver = queue._deliver
    queue._deliver = lambda batch: (time.sleep(1), deliver(batch))  # type: ignore[method-assign]
    publisher.later("left", "behind")
