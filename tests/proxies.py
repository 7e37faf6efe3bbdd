"""Real proxies in front of a service: Caddy and nginx, set up as docs/operating.md says."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from webserving import until

DOCUMENT = Path(__file__).parent.parent / "docs" / "operating.md"
NAMES = ("caddy", "nginx", "nginx with websockets")

CADDY_ALONE = """
{{
    admin off
    auto_https off
    storage file_system {folder}/storage
}}
"""
NGINX_ALONE = """
daemon off;
master_process off;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{ worker_connections 512; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    map $http_upgrade $connection_upgrade {{ default upgrade; '' ''; }}
    {servers}
}}
"""
WEBSOCKETS = "proxy_set_header Upgrade $http_upgrade;\nproxy_set_header Connection $connection_upgrade;"


@contextmanager
def proxied(name: str, service: int, folder: Path) -> Iterator[int]:
    """The proxy in front of the service at that port; yields its own port. Skips when it is not installed."""
    program = _program(name.split()[0])
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = int(free.getsockname()[1])
    written = folder / "config"
    written.write_text(_caddy(port, service, folder) if name == "caddy" else _nginx(name, port, service, folder))
    if name == "caddy":
        command = [program, "run", "--adapter", "caddyfile", "--config", str(written)]
    else:
        command = [program, "-p", str(folder), "-c", str(written)]
    home = {"HOME": str(folder), "XDG_DATA_HOME": f"{folder}/data", "XDG_CONFIG_HOME": f"{folder}/config-home"}
    with (folder / "said").open("wb") as said:
        process = subprocess.Popen(command, env=os.environ | home, cwd=folder, stdout=said, stderr=said)
    try:
        until(lambda: _listens(port) or process.poll() is not None, 30)
        assert process.poll() is None, (folder / "said").read_text()
        yield port
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _program(name: str) -> str:
    found = shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/usr/local/sbin")
    if found is None:
        assert os.environ.get("REQUIRE_SERVICES") != "1", f"{name} is missing"
        pytest.skip(f"{name} is not installed")
    return found


def _documented(language: str, service: int) -> str:
    """What the document says, in front of a service of the test."""
    text = re.search(rf"```{language}\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    assert text and "127.0.0.1:8000" in text[1]
    return text[1].replace("127.0.0.1:8000", f"127.0.0.1:{service}")


def _caddy(port: int, service: int, folder: Path) -> str:
    here = f"http://:{port} {{\n    bind 127.0.0.1"
    return CADDY_ALONE.format(folder=folder) + _documented("caddyfile", service).replace("media.example.com {", here)


def _nginx(name: str, port: int, service: int, folder: Path) -> str:
    servers = _documented("nginx", service).replace("listen 443 ssl;", f"listen 127.0.0.1:{port};")
    servers = re.sub(r"ssl_certificate.*", "", servers)
    if name == "nginx with websockets":
        servers = servers.replace('proxy_set_header Connection "";', WEBSOCKETS)
    return NGINX_ALONE.format(folder=folder, servers=servers)


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True
