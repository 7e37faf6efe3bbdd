"""Real proxies in front of a service: Caddy and nginx, as docs/operating.md says to set them up."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from webserving import until

CADDY = """
{{
    admin off
    auto_https off
    storage file_system {folder}/storage
}}
http://:{port} {{
    bind 127.0.0.1
    reverse_proxy 127.0.0.1:{service}
}}
"""
NGINX = """
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
    upstream reelhook {{ server 127.0.0.1:{service}; keepalive 8; }}
    server {{
        listen 127.0.0.1:{port};
        client_max_body_size 200m;
        location / {{
            proxy_pass http://reelhook;
            proxy_http_version 1.1;
            proxy_set_header Host $host;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection $connection_upgrade;
            proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
        }}
    }}
}}
"""
NAMES = ("caddy", "nginx")


@contextmanager
def proxied(name: str, service: int, folder: Path) -> Iterator[int]:
    """The proxy in front of the service at that port; yields its own port. Skips when it is not installed."""
    program = shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/usr/local/sbin")
    if program is None:
        assert os.environ.get("REQUIRE_SERVICES") != "1", f"{name} is missing"
        pytest.skip(f"{name} is not installed")
    port, written = _free_port(), folder / name
    text = CADDY if name == "caddy" else NGINX
    written.write_text(text.format(folder=folder, port=port, service=service))
    command = {
        "caddy": [program, "run", "--adapter", "caddyfile", "--config", str(written)],
        "nginx": [program, "-p", str(folder), "-c", str(written)],
    }[name]
    home = {"HOME": str(folder), "XDG_DATA_HOME": f"{folder}/data", "XDG_CONFIG_HOME": f"{folder}/config"}
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


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as one:
        return int(one.getsockname()[1])


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True
