"""What was notified in a test, instead of being published: as ``django.core.mail.outbox`` for mail.

    from pushcompat.contrib.django.testing import Message, outbox

    class OrderTest(TestCase):
        def test_a_new_order_is_announced(self):
            with self.captureOnCommitCallbacks(execute=True):
                self.client.post("/orders/", {"text": "hello"})
            self.assertEqual(outbox, [Message("orders")])

It is used as soon as tests run, so that they never reach a real server, and empty at the begin of each test.
"""

from __future__ import annotations

from django.core import mail

from ..messages import Message
from ..recorder import Recorder, pytest_test

__all__ = ["Message", "outbox"]


class _Test:
    """Equal in the same test: Django's test cases make a new list of mail for each, pytest names it."""

    def __init__(self) -> None:
        self._mail = getattr(mail, "outbox", None)
        self._name = pytest_test()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Test) and self._mail is other._mail and self._name == other._name

    __hash__ = None  # type: ignore[assignment]


outbox = Recorder(_Test)
