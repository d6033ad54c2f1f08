from __future__ import annotations

from collections.abc import Sequence

import msgspec
import pytest

from pushcompat.access.revocations import Revocation, Revocations, Target
from pushcompat.errors import Unauthorized
from pushcompat.message import ACCESS_LOG, Message

AT = 1_800_000_000.0
LIVES_S = 3600.0


class Known:
    """Revocations as a process knows them; the clock is the test's."""

    def __init__(self) -> None:
        self.now = AT
        self.revocations = Revocations(lambda: self.now)

    def revoke(self, expires_s: float = LIVES_S, **target: str) -> Message:
        message = self.revocations.message(Target(**target), expires_s)
        message.time_ms = int(self.now * 1000)
        self.revocations.apply(message)
        return message

    def refuses(
        self, sub: str = "", jti: str = "", names: Sequence[str] = ("a",), issued_at: float | None = None
    ) -> bool:
        try:
            self.revocations.check(sub, jti, issued_at, names)
        except Unauthorized:
            return True
        return False


@pytest.fixture
def known() -> Known:
    return Known()


def test_without_revocations_nobody_is_refused(known: Known) -> None:
    assert not known.refuses("ann", "1")


def test_a_subscriber_is_refused_by_name_whatever_its_token_and_channels(known: Known) -> None:
    known.revoke(sub="ann")
    assert known.refuses("ann", "1", ["a"])
    assert known.refuses("ann", "", ["b", "c"])
    assert not known.refuses("bob", "1")
    assert not known.refuses("", "ann")


def test_one_token_is_refused_by_its_id(known: Known) -> None:
    known.revoke(jti="1")
    assert known.refuses("ann", "1")
    assert known.refuses("", "1")
    assert not known.refuses("ann", "2")
    assert not known.refuses("1", "")


def test_all_tokens_are_refused_a_revoked_channel_and_no_other(known: Known) -> None:
    known.revoke(channel="a")
    assert known.refuses("ann", "1", ["a"])
    assert known.refuses("", "", ["b", "a"])
    assert not known.refuses("ann", "1", ["b"])


@pytest.mark.parametrize("members", [("sub", "jti"), ("sub", "channel"), ("jti", "channel"), ("sub", "jti", "channel")])
def test_all_that_a_revocation_names_must_match(known: Known, members: Sequence[str]) -> None:
    mine = {"sub": "ann", "jti": "1", "channel": "a"}
    known.revoke(**{member: mine[member] for member in members})
    assert known.refuses("ann", "1", ["b", "a"])
    for member in members:
        other = {**mine, member: "other"}
        assert not known.refuses(other["sub"], other["jti"], [other["channel"]])


def test_an_empty_name_is_nobodys(known: Known) -> None:
    known.revoke(sub="ann", channel="a")
    known.revocations.apply(Message(ACCESS_LOG, b"{}", True, "revoke:x", ttl_s=60.0, time_ms=int(AT * 1000)))
    known.revocations.apply(Message(ACCESS_LOG, b'{"sub":""}', True, "revoke:y", ttl_s=60.0, time_ms=int(AT * 1000)))
    assert not known.refuses("", "", ["a"])
    assert len(known.revocations) == 1


def test_a_token_issued_after_the_revocation_is_a_new_login(known: Known) -> None:
    known.revoke(sub="ann")
    assert known.refuses("ann", issued_at=AT - 1)
    assert known.refuses("ann", issued_at=AT)  # of the same second, which may be before
    assert not known.refuses("ann", issued_at=AT + 1)


def test_a_token_that_does_not_say_when_it_was_issued_stays_refused(known: Known) -> None:
    known.revoke(sub="ann")
    known.now += LIVES_S - 1
    assert known.refuses("ann")


def test_a_revocation_ends_when_no_token_that_it_refuses_can_be_valid(known: Known) -> None:
    known.revoke(sub="ann")
    known.now += LIVES_S
    assert not known.refuses("ann")


def test_a_repeat_refuses_later_tokens_too_and_never_ends_earlier(known: Known) -> None:
    known.revoke(sub="ann")
    known.now += 60
    message = known.revoke(10.0, sub="ann")
    assert message.ttl_s == LIVES_S - 60
    assert known.refuses("ann", issued_at=AT + 60)
    known.now = AT + LIVES_S - 1
    assert known.refuses("ann")


def test_a_repeat_by_a_process_that_does_not_know_the_first_ends_neither_earlier(known: Known) -> None:
    known.revoke(sub="ann")
    other = Revocations(lambda: known.now).message(Target("ann"), 10.0)
    other.time_ms = int(AT * 1000) - 60_000  # by a clock that is behind
    known.revocations.apply(other)
    known.now += LIVES_S - 1
    assert known.refuses("ann", issued_at=AT - 30)


def test_a_repeat_has_the_key_of_the_first_and_other_targets_have_others(known: Known) -> None:
    assert known.revoke(sub="ann").key == known.revoke(sub="ann").key
    keys = {known.revoke(sub="ann").key, known.revoke(jti="ann").key, known.revoke(sub="a", jti="nn").key}
    assert len(keys) == 3


def test_a_revocation_is_stored_with_what_it_names_only(known: Known) -> None:
    message = known.revoke(sub="ann")
    assert (message.channel, msgspec.json.decode(message.data)) == (ACCESS_LOG, {"sub": "ann"})


def test_members_of_a_later_version_are_ignored_so_that_more_is_refused_and_not_less(known: Known) -> None:
    data = b'{"sub":"ann","device":"phone"}'
    known.revocations.apply(Message(ACCESS_LOG, data, True, "revoke:x", ttl_s=60.0, time_ms=int(AT * 1000)))
    assert known.refuses("ann")


def test_who_ends_connections_gets_each_revocation(known: Known) -> None:
    got: list[Revocation] = []
    known.revocations.on_revoked(got.append)
    known.revoke(sub="ann")
    assert got == [Revocation(Target("ann"), AT + 0.001, AT + LIVES_S)]


def test_a_revocation_that_is_read_again_ends_nothing_again(known: Known) -> None:
    message = known.revoke(sub="ann")
    got: list[Revocation] = []
    known.revocations.on_revoked(got.append)
    known.revocations.apply(message)
    assert got == []
    assert known.refuses("ann")


def test_revocations_that_have_ended_use_no_memory_for_long(known: Known) -> None:
    for number in range(10_000):
        known.revoke(1.0, jti=str(number))
        known.now += 0.01
    assert len(known.revocations) < 2200


def test_a_check_does_not_depend_on_the_number_of_revocations(known: Known) -> None:
    for number in range(2000):
        known.revoke(jti=str(number))

    class Counting(dict[Target, Revocation]):
        looked_up = 0

        def get(self, *target: object) -> object:  # type: ignore[override]
            Counting.looked_up += 1
            return super().get(*target)  # type: ignore[call-overload]

    known.revocations._found = Counting(known.revocations._found)
    known.refuses("ann", "x", ["a"])
    assert Counting.looked_up == 8
