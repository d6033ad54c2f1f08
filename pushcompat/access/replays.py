"""How long a signed request may be sent again. It is one number for what is accepted and for what is remembered."""

from __future__ import annotations

TOLERANCE_S = 300  # difference of clocks that Standard Webhooks, Stripe and Slack accept
# A request whose time is ahead by the tolerance is accepted until it is behind by it. One minute more, for servers
# that share a log and whose clocks differ
REPLAY_S = 2 * TOLERANCE_S + 60.0
