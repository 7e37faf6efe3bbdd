"""What we use of libraries though they do not document it: each such door is listed here, has a ceiling, and a test.

Whoever raises a ceiling sees here what breaks. Whatever else is private in a library is used nowhere.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from io import StringIO
from pathlib import Path
from types import FunctionType

import dotenv.parser
import httptools
import pytest
import slowapi
import uvicorn
from packaging.requirements import Requirement
from python_multipart.multipart import parse_options_header
from sse_starlette.sse import AppStatus
from starlette.applications import Starlette
from starlette.routing import Route
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

import backend
from backend.emulator.kit.server import Server as EmulatorServer
from backend.http.cycles import Cycle
from backend.http.serving import StrictProtocol
from backend.web.callers import limits
from backend.web.callers.windows import Memory
from backend.web.mcp import serving
from backend.web.server.entry import Server
from backend.web.server.protocol import BoundedProtocol

ROOT = Path(__file__).parent.parent


@dataclass(frozen=True)
class Door:
    """What is used of a library, where, and why there is no public way to it."""

    library: str
    what: str
    where: str
    why: str


DOORS = [
    Door(
        "uvicorn",
        "HttpToolsProtocol, RequestResponseCycle",
        "http/serving.py",
        "no option bounds how long a request's head, a body or an answer may take, or refuses doubtful framing",
    ),
    Door(
        "uvicorn",
        "Server.capture_signals, Server.handle_exit",
        "web/server/entry.py",
        "uvicorn raises a signal anew after its stop, which would end the process before the worker is done",
    ),
    Door(
        "uvicorn",
        "Server.startup, Server.servers, Server.lifespan",
        "emulator/kit/server.py",
        "nothing else tells the port that was taken, or closes it for a while and opens it again",
    ),
    Door(
        "httptools",
        "HttpRequestParser.set_dangerous_leniencies, HttpParserUpgrade.args",
        "http/framing.py",
        "an offer to change the protocol must be read as a plain request",
    ),
    Door(
        "slowapi",
        "Limiter.get_app_config",
        "web/callers/limits.py",
        "it reads variables and an .env file that may be another program's",
    ),
    Door(
        "sse-starlette",
        "AppStatus.disable_automatic_graceful_drain",
        "web/calls/streams.py",
        "at a stop it would cut streams off in the middle",
    ),
    Door(
        "starlette",
        "Route.methods, Router.redirect_slashes",
        "web/calls/answering.py, web/server/stack.py",
        "a route for GET always takes HEAD; a redirect is built from the Host header",
    ),
    Door(
        "python-dotenv",
        "dotenv.parser.parse_stream",
        "config/sources.py",
        "dotenv_values leaves out in silence what it cannot read",
    ),
    Door(
        "python-multipart",
        "multipart.parse_options_header",
        "web/calls/multipart.py, web/calls/uploads.py",
        "Starlette reads the same headers with it, and nothing else splits them as it does",
    ),
    Door(
        "mcp",
        "Tool.fn_metadata.arg_model, MCPServer.session_manager.app",
        "web/mcp/serving.py",
        "a tool takes unknown parameters in silence; one session manager runs once, and each request needs its own",
    ),
]
PRIVATE = {"_start_asgi_task"}  # the only names of others with an underscore: uvicorn starts each request there


def requirements() -> dict[str, Requirement]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    every = [*project["dependencies"], *(text for extra in project["optional-dependencies"].values() for text in extra)]
    return {one.name: one for one in map(Requirement, every)}


@pytest.mark.parametrize("door", DOORS, ids=lambda door: door.what)
def test_each_door_has_a_ceiling_is_where_it_is_said_to_be_and_is_in_the_table(door: Door) -> None:
    specifier = requirements()[door.library].specifier
    assert any(one.operator == "<" for one in specifier)
    assert version(door.library) in specifier
    for place in door.where.split(", "):
        text = (ROOT / "backend" / place).read_text()
        assert any(name.rpartition(".")[2] in text for name in door.what.split(", ")), place
    table = (ROOT / "docs" / "architecture.md").read_text()
    row = next((line for line in table.splitlines() if line.startswith("|") and f"`{door.what}`" in line), "")
    assert row.startswith(f"| {door.library} | `{door.what}` |"), door.what


def own_names(tree: ast.AST) -> Iterator[str]:
    """Every name that this source gives to something: functions, classes, variables, attributes."""
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                yield name
            case ast.Attribute(attr=name, ctx=ast.Store()) | ast.Name(id=name, ctx=ast.Store()):
                yield name


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def foreign_private_names(sources: dict[str, str]) -> list[str]:
    """Private names that are read and that none of the sources gives: so they are somebody else's."""
    trees = {name: ast.parse(text) for name, text in sources.items()}
    own = {name for tree in trees.values() for name in own_names(tree)}
    modules = {part for name in trees for part in Path(name).with_suffix("").parts}
    found = []
    for file, tree in trees.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute):
                names = [node.attr]
            elif isinstance(node, ast.ImportFrom):
                names = [*(node.module or "").split("."), *(alias.name for alias in node.names)]
            elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("getattr", "setattr", "hasattr"):
                names = [str(given.value) for given in node.args if isinstance(given, ast.Constant)]
            else:
                continue
            strange = [name for name in names if is_private(name) and name not in own | modules | {"_exit"}]
            found += [f"{file}:{node.lineno}: {name}" for name in strange]
    return found


def test_no_private_name_of_a_library_is_read() -> None:
    files = [*(ROOT / "backend").rglob("*.py"), *(ROOT / "reelhook").rglob("*.py")]
    assert foreign_private_names({str(file.relative_to(ROOT)): file.read_text() for file in files}) == []


@pytest.mark.parametrize(
    "text",
    [
        "import http\nhttp.HTTPStatus._value2member_map_",
        "from starlette._utils import is_async_callable",
        "from uvicorn import _types",
        "class Mine(Theirs):\n    def close(self):\n        self._current_part.clear()",
        "getattr(server, '_captured_signals')",
    ],
)
def test_a_private_name_is_noticed(text: str) -> None:
    assert len(foreign_private_names({"backend/some.py": text})) == 1


def test_a_name_of_our_own_and_os_exit_are_no_doors() -> None:
    text = "import os\nclass Mine:\n    _place = 1\n    def go(self, other):\n        return other._place, os._exit"
    assert foreign_private_names({"backend/some.py": text}) == []


def our_classes() -> Iterator[type]:
    for found in pkgutil.walk_packages(backend.__path__, "backend."):
        if not found.name.endswith("__main__"):
            module = importlib.import_module(found.name)
            yield from (one for _, one in inspect.getmembers(module, inspect.isclass) if one.__module__ == found.name)


OF_TYPING = {"_abc_impl", "_is_protocol", "_is_runtime_protocol"}


def private_names_of(made: type) -> set[str]:
    """The private names of a class, and those its methods use."""
    functions = [inspect.unwrap(one) for one in vars(made).values() if isinstance(one, FunctionType)]
    functions = [one for one in functions if one.__module__ == made.__module__]  # what typing and abc add is theirs
    used = {name for one in functions for name in one.__code__.co_names}
    return {name for name in {*vars(made), *used} if is_private(name) and not name.endswith("_")} - OF_TYPING


def test_no_class_of_ours_takes_a_private_name_of_its_base() -> None:
    """Such a name would change what the base does, in a way that a next version may not have."""
    taken = {}
    for made in our_classes():
        foreign = [base for base in made.__mro__ if base.__module__.split(".")[0] not in {"backend", "reelhook"}]
        foreign = [base for base in foreign if base.__module__.split(".")[0] not in sys.stdlib_module_names]
        theirs = {name for base in foreign for name in private_names_of(base)}
        if both := private_names_of(made) & theirs - PRIVATE:
            taken[made.__qualname__] = both
    assert taken == {}


def protocol() -> HttpToolsProtocol:
    config = uvicorn.Config(Starlette(), log_config=None)
    config.load()
    return HttpToolsProtocol(config, ServerState(), {}, _loop=object())  # type: ignore[arg-type]


def cycle() -> RequestResponseCycle:
    names = inspect.signature(RequestResponseCycle).parameters
    return RequestResponseCycle(**dict.fromkeys(names))  # type: ignore[arg-type]


BUILT_AROUND = [
    (StrictProtocol, protocol),
    (BoundedProtocol, protocol),
    (Cycle, cycle),
    (Server, lambda: uvicorn.Server(uvicorn.Config("none"))),
    (EmulatorServer, lambda: uvicorn.Server(uvicorn.Config("none"))),
]


def attributes_of_self(made: type) -> set[str]:
    """Which attributes the methods of a class read of themselves or of what `super()` gives."""
    tree = ast.parse(inspect.getsource(made))
    nodes = [node for node in ast.walk(tree) if isinstance(node, ast.Attribute)]
    return {node.attr for node in nodes if ast.unparse(node.value) in ("self", "super()")}


@pytest.mark.parametrize(("ours", "make"), BUILT_AROUND, ids=lambda one: getattr(one, "__name__", ""))
def test_what_we_take_from_uvicorns_classes_is_there(ours: type, make: object) -> None:
    theirs = set(dir(make())) | {"servers", "lifespan"}  # which there are once the server has begun
    own = {name for base in ours.__mro__ if base.__module__.startswith("backend.") for name in vars(base)}
    given = {
        name
        for base in ours.__mro__
        if base.__module__.startswith("backend.")
        for name in own_names(ast.parse(inspect.getsource(base)))
    }
    assert attributes_of_self(ours) - own - given <= theirs


def test_uvicorn_starts_each_request_and_refuses_each_error_where_we_stand() -> None:
    """Our protocol changes what these methods do: they must be what uvicorn calls."""
    calls = {
        "on_headers_complete": {"_start_asgi_task", "RequestResponseCycle", "on_response_complete", "pipeline"},
        "on_response_complete": {"_start_asgi_task", "pipeline", "timeout_keep_alive_task"},
        "data_received": {"feed_data", "send_400_response"},
        "shutdown": {"cycle", "keep_alive", "response_complete"},
        "connection_lost": {"disconnected", "message_event", "resume_writing"},
    }
    for name, used in calls.items():
        assert used <= set(getattr(HttpToolsProtocol, name).__code__.co_names), name
    assert "run_asgi" in HttpToolsProtocol._start_asgi_task.__code__.co_names
    assert {"receive", "send"} <= set(RequestResponseCycle.run_asgi.__code__.co_names)
    fields = "keep_alive more_body response_complete chunked_encoding expected_content_length disconnected"
    assert set(f"{fields} message_event waiting_for_100_continue scope".split()) <= set(vars(cycle()))


def test_uvicorns_server_takes_signals_where_we_stand() -> None:
    assert "capture_signals" in uvicorn.Server.serve.__code__.co_names
    assert list(inspect.signature(uvicorn.Server.handle_exit).parameters)[-2:] in (["sig", "frame"], ["args", "kwargs"])
    assert "startup" in uvicorn.Server._serve.__code__.co_names
    assert "servers" in uvicorn.Server.startup.__code__.co_names
    assert "lifespan" in uvicorn.Server._serve.__code__.co_names


def test_httptools_tells_where_the_offer_to_change_the_protocol_ends() -> None:
    parser = httptools.HttpRequestParser(object())
    parser.set_dangerous_leniencies(lenient_data_after_close=True)
    head = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: other\r\n\r\n"
    with pytest.raises(httptools.HttpParserUpgrade) as upgrade:
        parser.feed_data(head + b"the rest")
    assert upgrade.value.args == (len(head),)


def test_slowapi_asks_one_method_for_every_setting_of_its_own() -> None:
    assert "get_app_config" in slowapi.Limiter.__init__.__code__.co_names
    assert list(inspect.signature(slowapi.Limiter.get_app_config).parameters) == ["self", "key", "default_value"]
    assert isinstance(limits.build({}).memory.limiter.storage, Memory)


def test_sse_starlette_leaves_streams_alone_at_a_stop() -> None:
    from backend.web.calls import streams

    assert streams.AppStatus is AppStatus
    assert AppStatus.enable_automatic_graceful_drain is False


def test_starlette_asks_a_route_for_its_methods_and_a_router_for_redirects() -> None:
    assert "methods" in Route.handle.__code__.co_names
    assert Starlette().router.redirect_slashes is True


def test_dotenv_tells_of_lines_that_it_cannot_read() -> None:
    found = list(dotenv.parser.parse_stream(StringIO("A=1\n=x\n")))
    assert [(one.key, one.error, one.original.line) for one in found] == [("A", False, 1), (None, True, 2)]


def test_python_multipart_splits_a_header_into_its_parameters() -> None:
    assert parse_options_header('form-data; name="a b"; filename="c.png"') == (
        b"form-data",
        {b"name": b"a b", b"filename": b"c.png"},
    )
    assert parse_options_header(b"") == (b"", {})


def test_the_protocol_for_tools_has_what_a_tool_and_a_request_need() -> None:
    server = serving.build(lambda _: serving.Access("http://x", None))
    server.streamable_http_app(stateless_http=True)
    assert server.session_manager.app is not None

    def look(id: str) -> str:
        """Look."""
        return id

    tool = serving.Tool.from_function(look)
    assert tool.fn_metadata.arg_model.model_json_schema(by_alias=True) == tool.parameters
