"""Questions to the application: how many are asked, in which order, and how long an answer is kept."""

from __future__ import annotations

import pytest

from pushcompat.access.questions import Answer, Question, Questions
from pushcompat.errors import Forbidden, RequestError, Unauthorized, Unavailable

from .test_subscribers import Application, Waiter


def question(name: str, channel: str = "a") -> Question:
    return Question((channel,), (("Cookie", name),))


class Desk:
    def __init__(self, at_once: int = 2) -> None:
        self.now = 1000.0
        self.application = Application()
        self.questions = Questions(self.application, at_once, 300, 3600, lambda: self.now, lambda: 0.0)

    def ask(self, name: str) -> Waiter:
        waiter = Waiter()
        self.questions.ask(question(name), waiter)
        return waiter

    @property
    def asked(self) -> list[str]:
        return [asked.fields[0][1] for asked, _ in self.application.asked]

    def is_known(self, name: str) -> bool:
        return self.questions.find(question(name)) is not None


@pytest.fixture
def desk() -> Desk:
    return Desk()


def test_the_same_question_is_asked_once_at_a_time_and_all_get_the_answer(desk: Desk) -> None:
    waiters = [desk.ask("x") for _ in range(100)]
    assert desk.asked == ["x"]
    desk.application.answer(Answer())
    assert all(waiter.told == [None] for waiter in waiters)
    assert desk.is_known("x")


def test_a_question_is_another_one_with_other_channels_or_other_fields(desk: Desk) -> None:
    keys = {
        question("x").key,
        question("y").key,
        question("x", "b").key,
        Question(("a", "b"), (("Cookie", "x"),)).key,
        Question(("a",), (("Authorization", "x"),)).key,
        Question(("a",), (("Cookie", "x"), ("Origin", "x"))).key,
        Question(("a",), ()).key,
    }
    assert len(keys) == 7


def test_no_more_questions_are_asked_at_once_than_allowed_and_the_others_in_their_order(desk: Desk) -> None:
    for name in "vwxyz":
        desk.ask(name)
    assert desk.asked == ["v", "w"]
    desk.application.answer(Answer())
    assert desk.asked == ["w", "x"]
    for _ in range(3):
        desk.application.answer(Forbidden("no"))
    assert desk.asked == ["z"]


def test_a_question_that_nobody_waits_for_any_more_is_not_asked(desk: Desk) -> None:
    waiters = {name: desk.ask(name) for name in "wxyz"}
    waiters["y"].waits = False
    waiters["w"].waits = False
    desk.application.answer(Answer())
    assert desk.asked == ["x", "z"]
    assert waiters["w"].told == []
    assert desk.is_known("w")


def test_too_many_waiting_questions_are_refused(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pushcompat.access.questions._MOST_WAITING", 3)
    for name in "vwxyz":
        desk.ask(name)
    desk.ask("z")  # is asked already
    with pytest.raises(Unavailable) as refused:
        desk.ask("another")
    assert dict(refused.value.headers)["Retry-After"] == "5"


@pytest.mark.parametrize(
    ("outcome", "kept_s"),
    [
        (Answer(), 300),
        (Answer(expires_s=20), 20),
        (Answer(expires_s=20.9), 20),
        (Answer(expires_s=1e9), 3600),
        (Answer(expires_s=0.001), 2),
        (Forbidden("no"), 2),
        (Unauthorized("no"), 2),
    ],
)
def test_an_answer_is_kept_as_long_as_it_says_and_a_refusal_very_briefly(
    desk: Desk, outcome: Answer | RequestError, kept_s: int
) -> None:
    desk.ask("x")
    desk.application.answer(outcome)
    desk.now += kept_s - 0.1
    assert desk.is_known("x")
    desk.now += 0.1
    assert not desk.is_known("x")
    desk.ask("x")
    assert desk.asked == ["x"]


@pytest.mark.parametrize("sub", ["", "ann", "bob"])
def test_an_answer_that_was_on_its_way_when_somebody_was_revoked_is_asked_for_again(desk: Desk, sub: str) -> None:
    waiter = desk.ask("x")
    desk.questions.forget(sub)
    desk.application.answer(Answer(sub="ann"))
    assert (waiter.told, desk.asked) == ([], ["x"])
    desk.application.answer(Answer(sub="ann"))
    assert waiter.told == [None]
    assert desk.is_known("x")


def test_such_an_answer_is_not_kept_if_nobody_waits_for_it_any_more(desk: Desk) -> None:
    waiter = desk.ask("x")
    waiter.waits = False
    desk.questions.forget("ann")
    desk.application.answer(Answer(sub="ann"))
    assert desk.asked == []
    assert not desk.is_known("x")


def test_answers_about_others_are_kept_when_somebody_is_revoked(desk: Desk) -> None:
    for name, sub in (("x", "ann"), ("y", "bob"), ("z", "")):
        desk.ask(name)
        desk.application.answer(Answer(sub=sub))
    desk.questions.forget("ann")
    assert [desk.is_known(name) for name in "xyz"] == [False, True, False]


def test_an_error_is_told_to_all_that_wait_and_not_kept(desk: Desk) -> None:
    waiters = [desk.ask("x"), desk.ask("x")]
    down = Unavailable("down")
    desk.application.answer(down)
    assert all(waiter.told == [down] for waiter in waiters)
    assert not desk.is_known("x")


def test_who_was_allowed_stays_so_while_the_application_is_down(desk: Desk) -> None:
    desk.ask("x")
    desk.application.answer(Answer())
    desk.ask("y")
    desk.application.answer(Unavailable("down"))
    assert desk.is_known("x")


def test_the_number_of_answers_is_bounded(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pushcompat.access.questions._MOST_KEPT", 2)
    for name in "xyz":
        desk.ask(name)
        desk.application.answer(Answer())
    assert [desk.is_known(name) for name in "xyz"] == [False, True, True]
