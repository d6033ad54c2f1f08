"""What stands between browsers and servers: proxies, each in the foreground with a configuration of its own.

Where it is configured at all, it is as documented: the snippets are read from README.md and docs/proxies.md. Three know
one server only (or any, as a forward proxy): there the test's page is of another origin than the channels.
"""

from __future__ import annotations

import re
from pathlib import Path

from .dev_servers import DEV_SERVERS
from .intermediary import Intermediary, Ports, snippet, write
from .relay import EVENTSOURCE, LONGPOLL, TRANSPORTS
from .reverse_proxies import REVERSE_PROXIES

SQUID = Path("/etc/squid/squid.conf")
BEHIND = "push.test"  # the server's name where only the forward proxy can reach it


# nginx

_NGINX = """
daemon off;
pid nginx.pid;
events {{ }}
http {{
    access_log off;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    {}
}}
"""


def _nginx(folder: Path, servers: str) -> list[str]:
    return ["nginx", "-p", str(folder), "-e", "stderr", "-c", write(folder, _NGINX.format(servers))]


def nginx_plain(folder: Path, ports: Ports, more: str = "") -> list[str]:
    return _nginx(
        folder,
        f"""server {{
            listen 127.0.0.1:{ports.own};
            location /push/ {{ proxy_pass http://127.0.0.1:{ports.push}; {more} }}
            location / {{ proxy_pass http://127.0.0.1:{ports.app}; }}
        }}""",
    )


def _nginx_deaf(folder: Path, ports: Ports) -> list[str]:
    return nginx_plain(folder, ports, "proxy_ignore_headers X-Accel-Buffering;")


def _nginx_tuned(folder: Path, ports: Ports) -> list[str]:
    app = f"location / {{ proxy_pass http://127.0.0.1:{ports.app}; }}"
    servers = snippet("nginx", ports)
    return _nginx(folder, servers.replace("listen 80;", f"listen 127.0.0.1:{ports.own}; {app}"))


# Others


def _haproxy(folder: Path, ports: Ports) -> list[str]:
    routes = f"""
frontend web
    bind 127.0.0.1:{ports.own}
    use_backend push if {{ path_beg /push/ }}
    default_backend app
backend push
    server push 127.0.0.1:{ports.push}
backend app
    server app 127.0.0.1:{ports.app}
"""
    return ["haproxy", "-db", "-f", write(folder, snippet("haproxy", ports) + routes)]


def _apache(folder: Path, ports: Ports) -> list[str]:
    modules = "".join(
        f"LoadModule {name}_module /usr/lib/apache2/modules/mod_{name}.so\n"
        for name in ("mpm_event", "authz_core", "proxy", "proxy_http")
    )
    server = f"""
ServerName reach
ServerRoot {folder}
DefaultRuntimeDir {folder}
PidFile apache.pid
ErrorLog /dev/stderr
Listen 127.0.0.1:{ports.own}
"""
    app = f"ProxyPass / http://127.0.0.1:{ports.app}/\n"
    configuration = modules + server + snippet("apache", ports) + app
    return ["apache2", "-DFOREGROUND", "-f", write(folder, configuration)]


def _varnish(folder: Path, ports: Ports, *backend: str) -> list[str]:
    own = f"127.0.0.1:{ports.own}"
    return ["varnishd", "-F", "-j", "none", "-n", str(folder), "-a", own, "-s", "default,16m", *backend]


def _varnish_plain(folder: Path, ports: Ports) -> list[str]:
    return _varnish(folder, ports, "-b", f"127.0.0.1:{ports.push}")


def _varnish_tuned(folder: Path, ports: Ports) -> list[str]:
    backend = f'vcl 4.1;\nbackend push {{ .host = "127.0.0.1"; .port = "{ports.push}"; }}\n'
    return _varnish(folder, ports, "-f", write(folder, backend + snippet("vcl", ports)))


def _squid(folder: Path, ports: Ports) -> list[str]:
    """Its stock rules. What is changed is where it listens and writes, and that it knows where the server is."""
    hosts = folder / "hosts"
    hosts.write_text(f"127.0.0.1 {BEHIND}\n")
    own = f"""
hosts_file {hosts}
http_port 127.0.0.1:{ports.own}
pid_filename none
access_log none
cache_log {folder}/cache.log
shutdown_lifetime 0 seconds
"""
    stock = re.sub(r"^(http_port|coredump_dir|include) .*", "", SQUID.read_text(), flags=re.MULTILINE)
    return ["squid", "-N", "-n", f"reach{ports.own}", "-f", write(folder, stock + own)]


INTERMEDIARIES = (
    Intermediary("none", "pages of another origin, allowed with `--cors-origin`", None, None, TRANSPORTS),
    Intermediary(
        "nginx, defaults", "nothing but `proxy_pass`",
        "nginx", "nginx", (EVENTSOURCE, LONGPOLL), nginx_plain, routes=True,
    ),
    Intermediary(
        "nginx, buffering", "also ignores `X-Accel-Buffering`",
        "nginx", "nginx", (LONGPOLL,), _nginx_deaf, routes=True,
    ),
    Intermediary("nginx, tuned", "as documented", "nginx", "nginx", TRANSPORTS, _nginx_tuned, routes=True),
    Intermediary("HAProxy", "as documented", "haproxy", "haproxy", TRANSPORTS, _haproxy, routes=True),
    Intermediary("Apache", "as documented", "apache2", "apache2", TRANSPORTS, _apache, routes=True),
    Intermediary(
        "Varnish, defaults", "the default VCL, which blocks WebSocket; pages of another origin",
        "varnish", "varnishd", (EVENTSOURCE, LONGPOLL), _varnish_plain,
    ),
    Intermediary(
        "Varnish, tuned", "as documented; pages of another origin",
        "varnish", "varnishd", TRANSPORTS, _varnish_tuned,
    ),
    Intermediary(
        "Squid", "forward proxy with Debian's rules, which block WebSocket; pages of another origin",
        "squid", "squid", (EVENTSOURCE, LONGPOLL), _squid, forward=True,
    ),
    *REVERSE_PROXIES,
    *DEV_SERVERS,
)  # fmt: skip
