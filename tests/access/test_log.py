from __future__ import annotations

import pytest

from pushcompat.access import log
from pushcompat.access.log import AccessLog
from pushcompat.access.revocations import KIND, Revocations, Target
from pushcompat.errors import StoreFull, Unauthorized
from pushcompat.message import ACCESS_LOG, Message
from pushcompat.wire.names import NAME


def entry(key: str, ttl_s: float | None = None, time_ms: int = 0) -> Message:
    return Message(ACCESS_LOG, b"{}", True, key, ttl_s=ttl_s, time_ms=time_ms)


def test_no_client_can_name_the_access_log() -> None:
    assert not NAME.fullmatch(ACCESS_LOG)


def test_each_kind_of_entry_is_applied_by_its_own_and_unknown_kinds_are_ignored() -> None:
    applied: list[tuple[str, str | None]] = []
    access = AccessLog({kind: lambda m, kind=kind: applied.append((kind, m.key)) for kind in ("key", "revoke")})  # type: ignore[misc]
    access.load([entry("revoke:1"), entry("later:2")])
    access.apply(entry("key:a"))
    assert applied == [("revoke", "revoke:1"), ("key", "key:a")]


def test_the_number_of_entries_is_limited_and_a_known_key_can_always_be_replaced(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(log, "MOST_ENTRIES", 2)
    access = AccessLog({})
    access.load([entry("key:a"), entry("key:b")])
    access.check_room("key:a")
    with pytest.raises(StoreFull, match="access log is full"):
        access.check_room("key:c")


def test_entries_that_have_expired_use_no_memory_for_long_where_others_make_them() -> None:
    now = 0.0
    access = AccessLog({}, lambda: now)
    for number in range(10_000):
        now += 1
        access.apply(entry(f"revoke:{number}", ttl_s=60.0, time_ms=int(now * 1000)))
    assert len(access._until) < 2048


def test_what_the_log_has_lost_stays_in_force_where_it_is_known() -> None:
    revocations = Revocations(lambda: 100.0)
    access = AccessLog({KIND: revocations.apply})
    message = revocations.message(Target(sub="ann"), 60.0)
    message.time_ms = 100_000
    access.apply(message)
    access.load([])
    with pytest.raises(Unauthorized):
        revocations.check("ann", "", None, ["a"])


def test_entries_that_have_expired_make_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log, "MOST_ENTRIES", 2)
    now = 100.0
    access = AccessLog({}, lambda: now)
    access.load([entry("key:a"), entry("revoke:b", ttl_s=10.0, time_ms=95_000)])
    with pytest.raises(StoreFull):
        access.check_room("key:c")
    now = 105.0
    access.check_room("key:c")
