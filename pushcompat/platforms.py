"""Presets for ``--platform``: the limits of hosting platforms and proxies on the duration of a request.

Only a limit that ends active connections counts as a request cap. A limit on the time to the first byte, or on
silence, does not: a poll is answered after 25 s and a stream sends something every 15 s, which is within all known
limits. Where a platform has a default and a maximum, the default is listed; ``--request-cap`` overrides it.

The numbers are from the platforms' own documentation, named beside them, as of November 2026. They change.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from .limits import Limits

HEARTBEAT_S = Limits().heartbeat_s


@dataclass(frozen=True, slots=True)
class Platform:
    """``request_cap_s``: the longest lifetime of a request, also of an active one. ``idle_s``: the longest silence.
    ``sets_port``: it says in $PORT where the server must listen, on all addresses.
    """

    request_cap_s: float | None = None
    idle_s: float = math.inf
    sets_port: bool = False

    @property
    def heartbeat_s(self) -> float:
        """Twice per idle timeout, so that one lost or late heartbeat does not end the connection."""
        return min(HEARTBEAT_S, self.idle_s / 2)


PLATFORMS = {
    # Apache 2.4, mod_proxy, "ProxyTimeout" and core "Timeout": 60 s between two reads
    "apache": Platform(idle_s=60),
    # API Gateway quotas: REST 29 s, HTTP 30 s of integration time; edge-optimised streams end after 30 s of silence
    "api-gateway": Platform(request_cap_s=29, idle_s=30),
    # App Engine standard, "How requests are handled": 60 s in the first generation (30 s in 2009), 10 min in the
    # second. No WebSocket, and a stream is buffered until it ends: only polls work, and
    # any of these limits is long enough for one
    "app-engine": Platform(request_cap_s=60, sets_port=True),
    # App Engine flexible, "Using WebSockets": a connection is closed after 1 h
    "app-engine-flex": Platform(request_cap_s=3600, sets_port=True),
    # Elastic Load Balancing, Application Load Balancer attributes: idle_timeout.timeout_seconds, 60 by default
    "aws-alb": Platform(idle_s=60),
    # App Service, FAQ on web apps' performance: the front end's load balancer drops a request silent for 230 s
    "azure": Platform(idle_s=230, sets_port=True),
    # Azure Front Door, origin response timeout: 60 s by default. WebSockets: idle 5 min, 4 h at most
    "azure-front-door": Platform(request_cap_s=60, idle_s=60),
    # Google Cloud Run, "Request timeout": 300 s by default, 3600 s at most, WebSockets and streams alike
    "cloud-run": Platform(request_cap_s=300, sets_port=True),
    # Cloudflare, "Connection limits": error 524 after 120 s (100 s until 2025) without a byte
    "cloudflare": Platform(idle_s=100),
    # CloudFront, origin response timeout: 30 s to the first byte and between packets. WebSockets: 10 min idle
    "cloudfront": Platform(idle_s=30),
    # Envoy, config.route.v3.RouteAction "timeout": 15 s for the whole request, unless the route says 0s
    "envoy": Platform(request_cap_s=15),
    # Firebase Hosting, rewrites to Cloud Functions and Cloud Run: 60 s
    "firebase": Platform(request_cap_s=60),
    # Fly.io, fly-proxy: idle connections end after about 60 s
    "fly": Platform(idle_s=60, sets_port=True),
    # Google Cloud Load Balancing, backend service timeout: 30 s by default; the classic one cuts even active WebSockets
    "google-lb": Platform(request_cap_s=30),
    # Gunicorn settings, "timeout": the sync worker is killed 30 s into a request
    "gunicorn": Platform(request_cap_s=30),
    # h2o 2.2, "proxy.timeout.io": 30 s between two reads
    "h2o": Platform(idle_s=30),
    # Heroku, "Request timeout": H12 after 30 s to the first byte, then H15 after 55 s of silence
    "heroku": Platform(idle_s=55, sets_port=True),
    # lighttpd 1.4, "server.max-read-idle": 60 s, also of a WebSocket's client
    "lighttpd": Platform(idle_s=60),
    # Netlify, "Functions overview" and proxied rewrites: 60 s at most
    "netlify": Platform(request_cap_s=60),
    # nghttpx 1.52, "--backend-read-timeout": 1 min
    "nghttpx": Platform(idle_s=60),
    # nginx, ngx_http_proxy_module: proxy_read_timeout, 60 s between two reads
    "nginx": Platform(idle_s=60),
    # Railway, "Public networking specs & limits": 15 min for a request, 5 min of silence
    "railway": Platform(request_cap_s=900, idle_s=300, sets_port=True),
    # Render, "Web services": 100 min for a request
    "render": Platform(request_cap_s=6000, sets_port=True),
    # Apache Traffic Server 9, records.config as shipped: transaction_active_timeout_in 900 s,
    # transaction_no_activity_timeout_in and _out 30 s
    "trafficserver": Platform(request_cap_s=900, idle_s=30),
    # Varnish 7 parameters: between_bytes_timeout and pipe_timeout, 60 s each
    "varnish": Platform(idle_s=60),
    # Vercel, "Functions: max duration": 300 s by default, 800 s at most
    "vercel": Platform(request_cap_s=300),
}
