"""The server is killed while it is published to. Whoever was answered finds everything as it was told."""

from __future__ import annotations

import http.client
import json
import random
import signal
import threading
import urllib.error
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from pushcompat.message import parse_cursor

from ..harness import MS, PATIENCE_S, Server

PUBLISHERS = 4
KILLS = 6


class World:
    """The server of the moment, those who publish to it, and one who follows by polls."""

    def __init__(self, state_dir: Path, options: Sequence[str]) -> None:
        self._state_dir = state_dir
        self._options = options
        self.server = Server(state_dir, *options)
        self._port = str(self.server.port)
        self.first: str = self.server.publish("c", "first")["id"]
        self.answered: dict[str, str] = {}  # key → id
        self._stop = threading.Event()
        self._publishers = [threading.Thread(target=self._publish, args=(name,)) for name in "abcd"[:PUBLISHERS]]
        for publisher in self._publishers:
            publisher.start()

    def kill_and_restart(self) -> None:
        before = len(self.answered)
        deadline = threading.Event()
        while len(self.answered) < before + 20:
            deadline.wait(MS)
        deadline.wait(random.uniform(0, 20 * MS))
        self.server.stop(signal.SIGKILL)
        self.server = Server(self._state_dir, "--port", self._port, *self._options)

    def finish(self) -> None:
        self._stop.set()
        for publisher in self._publishers:
            publisher.join(PATIENCE_S)

    def _publish(self, name: str) -> None:
        number = 0
        while not self._stop.is_set():
            key = f"{name}{number}"
            try:
                self.answered[key] = self.server.publish("c", key, Idempotency_Key=key)["id"]
            except (urllib.error.URLError, OSError, http.client.HTTPException, json.JSONDecodeError):
                self._stop.wait(5 * MS)  # the same again
            else:
                number += 1


class Poller:
    """Follows the channel over all restarts, from one cursor to the next."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.cursor = world.first
        self.messages: list[dict[str, Any]] = []

    def poll(self) -> bool:
        """Whether there was anything new."""
        with self._world.server.connect() as client:
            answer = client.poll("c", f"cursor={self.cursor}")
        assert "reset" not in answer
        self.cursor = answer["cursor"]
        self.messages += answer["messages"]
        return bool(answer["messages"])


@pytest.mark.parametrize("options", [[], ["--store", "sqlite:?synchronous=full"], ["--workers", "2"]], ids=" ".join)
def test_kill_9_under_publishing_loses_nothing_that_was_answered_and_doubles_nothing(
    tmp_path: Path, options: list[str]
) -> None:
    world = World(tmp_path, ["--history", "100000", *options])
    poller = Poller(world)
    try:
        for _ in range(KILLS):
            world.kill_and_restart()
            poller.poll()
    finally:
        world.finish()
    while poller.poll():
        pass
    seen = [message["id"] for message in poller.messages]
    assert seen == sorted(set(seen))
    texts = {message["id"]: message["data"] for message in poller.messages}
    assert len(set(texts.values())) == len(texts), "a repeat with the same key was stored again"
    assert {key: texts.get(answer) for key, answer in world.answered.items()} == {key: key for key in world.answered}
    for key, answer in random.sample(sorted(world.answered.items()), 20):
        assert world.server.publish("c", key, Idempotency_Key=key)["id"] == answer
    epochs = {position[0] for answer in seen if (position := parse_cursor(answer))}
    assert len(epochs) == 1
    assert world.server.stop() == 0
    assert world.server.complaints() == []
