"""Development servers and a proxy of Node.js, configured as in docs/proxies.md."""

from __future__ import annotations

from pathlib import Path

from .intermediary import Intermediary, Ports, change, snippet_of, write
from .relay import TRANSPORTS

MODULES = Path(__file__).parent / "node_modules"  # of package.json


def _tool(name: str) -> str:
    return str(MODULES / ".bin" / name)


def _folder(folder: Path) -> Path:
    (folder / "node_modules").symlink_to(MODULES)
    return folder


def _vite(folder: Path, ports: Ports) -> list[str]:
    app = f'    proxy: {{ "^/(page|away)": "http://127.0.0.1:{ports.app}",'
    write(_folder(folder), change(snippet_of("Vite", ports), ("    proxy: {", app)), "vite.config.mjs")
    return [_tool("vite"), "--host", "127.0.0.1", "--port", str(ports.own), "--strictPort"]


def _webpack(folder: Path, ports: Ports) -> list[str]:
    app = f'    proxy: [{{ context: ["/page", "/away"], target: "http://127.0.0.1:{ports.app}" }}, '
    build = 'module.exports = { mode: "development", entry: "./entry.js",'
    configuration = change(
        snippet_of("webpack-dev-server", ports), ("    proxy: [", app), ("module.exports = {", build)
    )
    write(_folder(folder), configuration, "webpack.config.cjs")
    write(folder, "", "entry.js")
    start = f"""
const webpack = require("webpack"), DevServer = require("webpack-dev-server");
const options = require("./webpack.config.cjs");
const server = new DevServer({{ ...options.devServer, host: "127.0.0.1", port: {ports.own} }}, webpack(options));
server.start();
"""
    return ["node", write(folder, start, "start.cjs")]


def _next(folder: Path, ports: Ports) -> list[str]:
    app = f"""    return [
      {{ source: "/page", destination: "http://127.0.0.1:{ports.app}/page" }},
      {{ source: "/away", destination: "http://127.0.0.1:{ports.app}/away" }},
      {{ source: "/push"""
    configuration = change(snippet_of("Next.js", ports), ('    return [{ source: "/push', app))
    write(_folder(folder), configuration, "next.config.mjs")
    write(folder, "export default function Page() { return null; }\n", "pages/index.js")
    return [_tool("next"), "dev", "--webpack", "--hostname", "127.0.0.1", "--port", str(ports.own)]


def _middleware(folder: Path, ports: Ports) -> list[str]:
    app = f'app.use(push);\napp.use(createProxyMiddleware({{ target: "http://127.0.0.1:{ports.app}" }}));'
    listen = ("app.listen(3000)", f'app.listen({ports.own}, "127.0.0.1")')
    configuration = change(snippet_of("http-proxy-middleware", ports), ("app.use(push);", app), listen)
    return ["node", write(_folder(folder), configuration, "start.mjs")]


DEV_SERVERS = (
    Intermediary("Vite", "as documented", "vite", _tool("vite"), TRANSPORTS, _vite, routes=True),
    Intermediary(
        "webpack-dev-server", "as documented",
        "webpack-dev-server", _tool("webpack-dev-server"), TRANSPORTS, _webpack, routes=True,
    ),
    Intermediary("Next.js", "as documented", "next", _tool("next"), TRANSPORTS, _next, routes=True, large=True),
    Intermediary(
        "http-proxy-middleware", "as documented",
        "http-proxy-middleware", str(MODULES / "http-proxy-middleware" / "package.json"), TRANSPORTS, _middleware,
        routes=True,
    ),
)  # fmt: skip
