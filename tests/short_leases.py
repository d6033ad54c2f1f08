"""A server whose leases end after 1 s, and which exchanges presence as often: ``python -m tests.short_leases``."""

from __future__ import annotations

from pushcompat import cli
from pushcompat.hub import occupancy, sharing
from pushcompat.store import presence

if __name__ == "__main__":
    presence.LEASE_S = occupancy.LEASE_S = 1.0
    sharing.EXCHANGES_APART_S = 0.1
    cli.main()
