"""A language model's client gets tools: over standard input and output, and from the running service at /mcp."""

from __future__ import annotations

import asyncio
import base64
import json
import random
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx2
import pytest
from auditor import audit
from emulating import Provider, emulating, until
from gateway import Gateway, new_gateway
from mcp import Client, StdioServerParameters
from mcp.client.streamable_http import streamable_http_client
from mcp_types import CallToolResult, ImageContent, TextContent
from PIL import Image
from workshop import Workshop

from backend.cli.processes import COMMAND, answer_of, environment
from backend.web.mcp import route as web

TOOLS = {
    "generate_image",
    "generate_video",
    "get_generation",
    "look",
    "list_campaign",
    "list_campaigns",
    "create_campaign",
    "cancel_generation",
}
# The newest protocol, and the one with a handshake that most clients still speak.
WAYS = ["stdio", "stdio legacy", "http", "http legacy"]
HTTP = ["http", "http legacy"]
ACCEPT = {"Accept": "application/json, text/event-stream"}
LIST = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}


@dataclass
class House:
    """A service that asks for keys, with two clients of the agency that nobody used before."""

    gateway: Gateway
    provider: Provider
    admin: dict[str, str]
    keys: dict[str, str] = field(default_factory=dict)
    ids: dict[str, str] = field(default_factory=dict)
    paid_before: int = 0

    def __post_init__(self) -> None:
        self.provider.spoil()
        self.paid_before = self.creates
        for name in ("ours", "theirs"):
            self.ids[name] = str(self._post("/api/v2/clients", self.admin, name=name)["id"])
            self.keys[name] = self.key(name)

    def key(self, of: str, **more: str) -> str:
        return str(self._post("/api/v2/keys", self.admin, name=of, client_id=self.ids[of], **more)["key"])

    def campaign(self, name: str, of: str = "ours") -> str:
        return str(self._post("/api/v2/campaigns", self.authorization(of), name=name)["id"])

    def cancel(self, id: str) -> None:
        self._post(f"/api/v2/generations/{id}/cancel", self.authorization("ours"))

    def generations(self) -> list[dict[str, Any]]:
        answer = self.gateway.http.get("/api/v2/generations", headers=self.authorization("ours"))
        return list(answer.json()["items"])

    def authorization(self, of: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.keys[of]}"}

    @property
    def origin(self) -> str:
        return self.gateway.origin

    @property
    def creates(self) -> int:
        """How often the provider was paid since the story began."""
        return sum(1 for create in self.provider.ledger["creates"] if create["created"]) - self.paid_before

    def _post(self, path: str, headers: dict[str, str], **body: Any) -> Any:
        answer = self.gateway.http.post(path, json=body, headers=headers)
        assert answer.status_code in (200, 201, 202), answer.text
        return answer.json()


@dataclass(frozen=True)
class Place:
    """Where the stories happen: one service for all of them, restarted by some."""

    gateway: Gateway
    provider: Provider
    admin: dict[str, str]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("tools")
    with emulating() as provider:
        gateway = new_gateway(folder, provider, forked=True, AUTH_MODE="keys")
        try:
            gateway.start()
            key = answer_of(["keys", "create", "--name", "admin", "--admin", "--json"], folder, gateway.settings)
            yield Place(gateway, provider, {"Authorization": f"Bearer {json.loads(key)['key']}"})
            assert gateway.stop() == 0, gateway.log()[-3000:]
            audit(folder, provider.ledger, gateway.accepted)
            assert "request_failed" not in gateway.log() and "Traceback" not in gateway.log()
        finally:
            gateway.abandon()
            gateway.close()


@pytest.fixture
def house(place: Place) -> House:
    return House(place.gateway, place.provider, place.admin)


@asynccontextmanager
async def talking(
    house: House, way: str, key: str | None = None, *, campaign: str | None = None
) -> AsyncIterator[Client]:
    """The protocol's own client, connected one way or the other."""
    key, mode = key or house.keys["ours"], "legacy" if way.endswith("legacy") else "auto"
    if way.startswith("stdio"):
        arguments = [*COMMAND[1:], "mcp", *(["--campaign", campaign] if campaign else [])]
        env = environment({}) | {"REELHOOK_URL": house.origin, "REELHOOK_API_KEY": key}
        program = StdioServerParameters(command=COMMAND[0], args=arguments, env=env, cwd=house.gateway.folder)
        async with Client(program, mode=mode) as client:
            yield client
        return
    headers = {"Authorization": f"Bearer {key}"} | ({"X-Campaign-Id": campaign} if campaign else {})
    async with (
        httpx2.AsyncClient(headers=headers, timeout=60) as line,
        Client(streamable_http_client(f"{house.origin}/mcp", http_client=line), mode=mode) as client,
    ):
        yield client


@dataclass
class Progress:
    """What was told while a tool ran."""

    steps: list[tuple[float, float | None, str | None]] = field(default_factory=list)
    begun: asyncio.Event = field(default_factory=asyncio.Event)

    async def __call__(self, progress: float, total: float | None, message: str | None) -> None:
        self.steps.append((progress, total, message))
        if message and "processing" in message:
            self.begun.set()


def told(result: CallToolResult) -> dict[str, Any]:
    """The structured answer of a tool that worked."""
    assert not result.is_error, result.content
    assert result.structured_content is not None
    return result.structured_content


def complaint(result: CallToolResult) -> str:
    assert result.is_error and isinstance(result.content[0], TextContent)
    return result.content[0].text


def picture(result: CallToolResult) -> Image.Image:
    shown = result.content[0]
    assert isinstance(shown, ImageContent) and shown.mime_type == "image/jpeg"
    image = Image.open(BytesIO(base64.b64decode(shown.data)))
    image.load()
    return image


@pytest.mark.parametrize("way", WAYS)
async def test_a_model_makes_an_image_and_a_video_and_looks_at_them(house: House, way: str) -> None:
    """The whole way: a campaign, an image with its progress, a video from it, both seen and listed."""
    async with talking(house, way) as client:
        assert {tool.name for tool in (await client.list_tools()).tools} == TOOLS
        campaign = told(await client.call_tool("create_campaign", {"name": "Autumn"}))
        progress = Progress()
        made = told(await client.call_tool("generate_image", {"prompt": "a fox"}, progress_callback=progress))
        [image] = made["generations"]
        assert image["status"] == "completed" and image["campaign_id"] == campaign["id"] and image["url"]
        assert progress.steps[-1][:2] == (1.0, 1.0) and image["id"] in (progress.steps[-1][2] or "")
        assert [step[0] for step in progress.steps] == sorted(step[0] for step in progress.steps)
        wanted = {"prompt": "it runs", "image_id": image["id"], "duration": 5, "campaign_id": campaign["id"]}
        [video] = told(await client.call_tool("generate_video", wanted))["generations"]
        assert video["status"] == "completed" and video["kind"] == "video" and video["cost_usd"]
        for made in (image, video):
            seen = await client.call_tool("look", {"id": made["id"]})
            assert told(seen)["id"] == made["id"] and 100 <= picture(seen).width <= 640
        listed = told(await client.call_tool("list_campaign", {"campaign_id": campaign["id"], "limit": 1}))
        assert [one["id"] for one in listed["generations"]] == [video["id"]]
        more = {"campaign_id": campaign["id"], "kind": "image", "cursor": None}
        assert [one["id"] for one in told(await client.call_tool("list_campaign", more))["generations"]] == [
            image["id"]
        ]
        rest = {"campaign_id": campaign["id"], "cursor": listed["next_cursor"]}
        assert [one["id"] for one in told(await client.call_tool("list_campaign", rest))["generations"]] == [
            image["id"]
        ]
    assert house.creates == 2


@pytest.mark.parametrize("way", ["stdio", "http"])
async def test_a_wait_that_is_over_tells_the_id_and_what_is_made_goes_on(house: House, way: str) -> None:
    """The model is told to ask by the id; the same call under the same key makes nothing new."""
    house.provider.spoil({"kind": "stuck", "match": {"prompt_contains": "stuck"}})
    campaign = house.campaign("Autumn")
    async with talking(house, way) as client:
        wanted = {"prompt": "stuck", "wait_s": 1, "idempotency_key": "one fox"}
        first = told(await client.call_tool("generate_image", wanted))
        [image] = first["generations"]
        assert image["status"] in ("pending", "processing") and image["id"] in first["next_step"]
        assert "get_generation" in first["next_step"]
        again = told(await client.call_tool("generate_image", wanted | {"wait_s": 0}))
        assert [one["id"] for one in again["generations"]] == [image["id"]]
        ended = told(await client.call_tool("cancel_generation", {"id": image["id"]}))
        assert ended["generations"][0]["id"] == image["id"]
        last = told(await client.call_tool("get_generation", {"id": image["id"], "wait_s": 20}))
        assert last["generations"][0]["status"] == "canceled"
        nothing = await client.call_tool("look", {"id": image["id"]})
        assert "is canceled" in complaint(nothing)
    assert [one["id"] for one in house.generations()] == [image["id"]] and campaign == image["campaign_id"]


async def test_looking_at_what_has_no_picture_says_why(house: House) -> None:
    house.provider.spoil({"kind": "output_file", "base64": "bm90IGEgcGljdHVyZQ=="})
    house.campaign("Autumn")
    async with talking(house, "stdio") as client:
        [made] = told(await client.call_tool("generate_image", {"prompt": "odd"}))["generations"]
        assert made["status"] == "completed" and made["url"]
        assert "only its url" in complaint(await client.call_tool("look", {"id": made["id"]}))


@pytest.mark.parametrize("way", ["stdio", "http"])
async def test_a_failure_is_told_with_its_reason_and_copies_are_all_waited_for(house: House, way: str) -> None:
    house.provider.spoil({"kind": "failed", "match": {"prompt_contains": "hopeless"}, "times": 1})
    house.campaign("Autumn")
    async with talking(house, way) as client:
        made = told(await client.call_tool("generate_image", {"prompt": "hopeless", "copies": 2}))
        assert sorted(one["status"] for one in made["generations"]) == ["completed", "failed"]
        assert [bool(one["error"]) for one in made["generations"]] == [
            one["status"] == "failed" for one in made["generations"]
        ]


@pytest.mark.parametrize("way", WAYS)
async def test_a_key_sees_its_own_client_alone(house: House, way: str) -> None:
    """What is another client's is not there: a tool error with a sentence, and nothing is made."""
    mine, foreign = house.campaign("Mine"), house.campaign("Theirs", "theirs")
    async with talking(house, way, house.keys["theirs"]) as client:
        [made] = told(await client.call_tool("generate_image", {"prompt": "a fox"}))["generations"]
        assert made["campaign_id"] == foreign
    async with talking(house, way) as client:
        assert [one["id"] for one in told(await client.call_tool("list_campaigns"))["campaigns"]] == [mine]
        for tool, wanted in (
            ("generate_image", {"prompt": "a fox", "campaign_id": foreign}),
            ("list_campaign", {"campaign_id": foreign}),
            ("get_generation", {"id": made["id"]}),
            ("look", {"id": made["id"]}),
            ("cancel_generation", {"id": made["id"]}),
            ("generate_video", {"prompt": "it runs", "image_id": made["id"]}),
        ):
            said = complaint(await client.call_tool(tool, wanted))
            assert "This key sees nothing with that id" in said or "image" in said, (tool, said)
    assert house.generations() == [] and house.creates == 1


async def test_a_wrong_key_is_a_tool_error_over_stdio_and_401_over_http(house: House) -> None:
    wrong = "sk_" + "x" * 43
    async with talking(house, "stdio", wrong) as client:
        said = complaint(await client.call_tool("list_campaigns"))
        assert "valid API key" in said and wrong not in said
    for headers in ({}, {"Authorization": f"Bearer {wrong}"}, {"X-API-Key": wrong}):
        refused = house.gateway.http.post("/mcp", json=LIST, headers=ACCEPT | headers)
        assert refused.status_code == 401 and refused.headers["www-authenticate"].startswith("Bearer")
    listed = house.gateway.http.post("/mcp", json=LIST, headers=ACCEPT | {"X-API-Key": house.keys["ours"]})
    assert listed.status_code == 200 and "generate_image" in listed.text


@pytest.mark.parametrize("way", ["stdio", "http"])
async def test_the_campaign_is_the_one_that_is_named_or_the_connections_own_or_the_only_one(
    house: House, way: str
) -> None:
    """With several and none named the model is told which there are, instead of guessing where the bill goes."""
    async with talking(house, way) as client:
        assert "create_campaign" in complaint(await client.call_tool("generate_image", {"prompt": "a fox"}))
        spring, autumn = house.campaign("Spring"), house.campaign("Autumn")
        said = complaint(await client.call_tool("generate_image", {"prompt": "a fox"}))
        assert f"{spring} (Spring)" in said and f"{autumn} (Autumn)" in said
    async with talking(house, way, campaign=spring) as client:
        for named, meant in ((None, spring), (autumn, autumn)):
            wanted = {"prompt": "a fox"} | ({"campaign_id": named} if named else {})
            [made] = told(await client.call_tool("generate_image", wanted))["generations"]
            assert made["campaign_id"] == meant


async def test_a_key_with_its_own_campaign_needs_no_name_over_http(house: House) -> None:
    house.campaign("Spring")
    autumn = house.campaign("Autumn")
    key = house.key("ours", campaign_id=autumn)
    async with talking(house, "http", key) as client:
        [made] = told(await client.call_tool("generate_image", {"prompt": "a fox"}))["generations"]
        assert made["campaign_id"] == autumn


async def test_a_service_killed_while_a_tool_waits_over_stdio_makes_it_once(house: House) -> None:
    """The tool goes on when the service is there again, and tells the result of the one that was asked for."""
    house.campaign("Autumn")
    house.provider.spoil({"kind": "stuck", "match": {"prompt_contains": "stuck"}})
    async with talking(house, "stdio") as client:
        progress = Progress()
        call = asyncio.create_task(
            client.call_tool("generate_image", {"prompt": "stuck", "wait_s": 60}, progress_callback=progress)
        )
        await asyncio.wait_for(progress.begun.wait(), 20)
        await asyncio.to_thread(house.gateway.restart)
        [id] = [one["id"] for one in house.generations()]
        house.cancel(id)
        [made] = told(await asyncio.wait_for(call, 60))["generations"]
        assert (made["id"], made["status"]) == (id, "canceled")
    assert house.creates == 1


async def test_a_service_killed_while_a_tool_waits_over_http_makes_it_once(house: House) -> None:
    """The connection is gone with the service; the same call under its key finds what the first one made."""
    house.campaign("Autumn")
    house.provider.spoil({"kind": "stuck", "match": {"prompt_contains": "stuck"}})
    wanted = {"prompt": "stuck", "wait_s": 60, "idempotency_key": "once"}
    call = {"name": "generate_image", "arguments": wanted, "_meta": {"progressToken": 1}}
    headers = ACCEPT | house.authorization("ours")
    with house.gateway.http.stream(
        "POST", "/mcp", json=LIST | {"method": "tools/call", "params": call}, headers=headers
    ) as answer:
        assert any("processing" in line for line in answer.iter_lines())
        house.gateway.abandon()
    house.gateway.restart()
    [before] = house.generations()
    async with talking(house, "http") as client:
        [made] = told(await client.call_tool("generate_image", wanted | {"wait_s": 0}))["generations"]
        told(await client.call_tool("cancel_generation", {"id": made["id"]}))
        told(await client.call_tool("get_generation", {"id": made["id"], "wait_s": 20}))
    assert made["id"] == before["id"] and house.creates == 1


@pytest.mark.parametrize("way", HTTP)
async def test_a_stop_waits_for_no_tool_and_who_waits_is_told_the_id(house: House, way: str) -> None:
    house.campaign("Autumn")
    house.provider.spoil({"kind": "stuck", "match": {"prompt_contains": "stuck"}})
    headers = ACCEPT | house.authorization("ours")
    call: dict[str, Any] = {"name": "generate_image", "arguments": {"prompt": "stuck", "wait_s": 600}}
    call["_meta"] = {"progressToken": 1}
    if way == "http":
        headers |= {"MCP-Protocol-Version": "2026-07-28", "Mcp-Method": "tools/call", "Mcp-Name": "generate_image"}
        call["_meta"] |= {
            "io.modelcontextprotocol/protocolVersion": "2026-07-28",
            "io.modelcontextprotocol/clientInfo": {"name": "test", "version": "1"},
            "io.modelcontextprotocol/clientCapabilities": {},
        }
    body = LIST | {"method": "tools/call", "params": call}
    lines: list[str] = []
    with house.gateway.http.stream("POST", "/mcp", json=body, headers=headers) as answer:
        for line in answer.iter_lines():
            lines.append(line)
            if "processing" in line and "progressToken" in line:
                assert house.gateway.process is not None
                house.gateway.process.terminate()
    last = json.loads([line for line in lines if line.startswith("data: {")][-1].removeprefix("data: "))
    made = last["result"]["structuredContent"]
    assert made["generations"][0]["status"] == "processing"
    assert made["generations"][0]["id"] in made["next_step"]
    assert house.gateway.process is not None and house.gateway.process.wait(10) == 0
    house.gateway.start()
    house.cancel(made["generations"][0]["id"])
    until(lambda: house.generations()[0]["status"] == "canceled")


@pytest.mark.parametrize("way", ["stdio", "http"])
async def test_every_tool_says_what_it_takes_costs_and_gives(house: House, way: str) -> None:
    async with talking(house, way) as client:
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}
        assert "cost money" in (client.instructions or "")
        misspelt = await client.call_tool("generate_image", {"promt": "a fox"})
        assert "promt" in complaint(misspelt)
        for wrong in ({"wait_s": 10_000}, {"wait_s": -1}, {"copies": 9}, {"frame": "middle"}):
            assert next(iter(wrong)) in complaint(await client.call_tool("generate_image", {"prompt": "x"} | wrong))
    for name, tool in tools.items():
        assert tool.description and tool.title and tool.output_schema
        assert tool.input_schema["additionalProperties"] is False
        assert tool.annotations and tool.annotations.read_only_hint == (
            name in ("get_generation", "look", "list_campaign", "list_campaigns")
        )
        assert "ctx" not in tool.input_schema["properties"]
        assert ("costs money" in tool.description) == name.startswith("generate_")
    assert house.generations() == []


@pytest.mark.parametrize("way", ["stdio", "http"])
async def test_a_refusal_of_the_service_is_told_in_its_own_words(house: House, way: str) -> None:
    house.campaign("Autumn")
    async with talking(house, way) as client:
        said = complaint(await client.call_tool("generate_image", {"prompt": "x", "model": "no/such-model"}))
        assert "no/such-model" in said or "model" in said
        assert "prompt" in complaint(await client.call_tool("generate_image", {}))
        for id in ("../keys", "x?y=1", "nonsense", "é"):
            assert complaint(await client.call_tool("get_generation", {"id": id}))
    assert house.generations() == []


def test_nothing_but_the_protocol_is_on_standard_output(house: House) -> None:
    """Whatever a client sends: each line that comes back is a message, and no line anywhere has the key."""
    lines = [
        '{"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {"protocolVersion": "2025-06-18", '
        '"capabilities": {}, "clientInfo": {"name": "test", "version": "1"}}}',
        '{"jsonrpc": "2.0", "method": "notifications/initialized"}',
        "this is no JSON",
        '{"jsonrpc": "2.0", "id": 2, "method": "no/such/method"}',
        '{"jsonrpc": "2.0", "id": 3, "method": "tools/call", "params": {"name": "list_campaigns", "arguments": {}}}',
    ]
    settings = {"REELHOOK_URL": house.origin, "REELHOOK_API_KEY": house.keys["ours"]}
    with subprocess.Popen(
        [*COMMAND, "mcp"],
        cwd=house.gateway.folder,
        env=environment({}) | settings,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin and process.stdout and process.stderr
        process.stdin.write("\n".join(lines) + "\n")
        process.stdin.flush()
        got = []
        while not any(message.get("id") == 3 for message in got):
            got.append(json.loads(process.stdout.readline()))
        process.stdin.close()
        rest, said = process.stdout.read(), process.stderr.read()
        assert process.wait(10) == 0
    assert {message["jsonrpc"] for message in got} == {"2.0"} and not rest.strip()
    assert house.keys["ours"] not in json.dumps(got) + said


def test_the_service_answers_tools_only_to_who_may_ask(shop: Workshop) -> None:
    """A page of another site is refused; what is no message of the protocol is the client's mistake."""

    def post(**how: Any) -> Any:
        return shop.http.post("/mcp", **({"json": LIST, "headers": ACCEPT} | how))

    assert post().status_code == 200
    assert post(headers=ACCEPT | {"Origin": shop.origin}).status_code == 200
    foreign = post(headers=ACCEPT | {"Origin": "http://localhost:1"})
    assert (foreign.status_code, foreign.json()["code"]) == (403, "foreign_origin")
    assert post(headers=ACCEPT | {"Origin": "https://evil.example"}).status_code == 403
    assert post(json=None, content=b"{" * 50).status_code == 400
    assert post(json=None, content=b'{"jsonrpc": "2.0", "jsonrpc": "2.0"}').status_code == 400
    assert post(json=None, content=b"x" * (web.bodies.CAP_BYTES + 1)).status_code == 413
    assert post(json=None, content=b"{}", headers=ACCEPT | {"Content-Type": "text/plain"}).status_code == 415
    assert post(headers={"Accept": "text/html"}).status_code == 406
    assert post(headers=[*ACCEPT.items(), ("X-Campaign-Id", "a"), ("X-Campaign-Id", "b")]).status_code == 422
    for method in ("GET", "DELETE", "PUT"):
        refused = shop.http.request(method, "/mcp", headers=ACCEPT)
        assert refused.status_code == 405 and refused.headers["allow"] == "POST"
    for junk in ([], [LIST], 5, {"jsonrpc": "2.0"}, LIST | {"method": 5}, LIST | {"params": [1]}):
        assert post(json=junk).status_code == 400, junk


def test_no_message_makes_the_service_fail(shop: Workshop) -> None:
    """Three hundred messages of both protocols, each wrong in some way."""
    dice = random.Random(7)
    odd = [None, True, -1, 1e300, 2**63 - 1, "", "x", "\u2028", "tools/call", [], {}, [[]], {"a": {}}, "2026-07-28"]
    methods = ["tools/call", "tools/list", "initialize", "server/discover", "resources/read", "subscriptions/listen"]
    methods += ["completion/complete", "logging/setLevel", "notifications/cancelled", "notifications/progress", "ping"]
    names = ["get_generation", "list_campaign", "look", "cancel_generation", "no_such_tool"]
    headers = {"MCP-Protocol-Version": ["2026-07-28", "2025-06-18", "junk"], "Mcp-Method": [*methods, "x"]}
    headers |= {"Mcp-Name": names, "Mcp-Session-Id": ["x"], "Last-Event-ID": ["x"], "Accept": [ACCEPT["Accept"], "x/y"]}
    for _ in range(300):
        arguments = {name: dice.choice(odd) for name in ("id", "campaign_id", "limit", "cursor") if dice.random() < 0.5}
        params: Any = {"name": dice.choice([*names, 5]), "arguments": dice.choice([arguments, arguments, *odd])}
        params |= {"_meta": dice.choice([*odd, {"progressToken": dice.choice(odd)}])} if dice.random() < 0.5 else {}
        body: Any = {"jsonrpc": "2.0", "id": dice.choice([1, "a", *odd]), "method": dice.choice([*methods, None])}
        body |= {"params": dice.choice([params, params, params, *odd])}
        body = dice.choice([body] * 9 + [[body, body], dice.choice(odd)])
        given = {name: dice.choice(values) for name, values in headers.items() if dice.random() < 0.5}
        answer = shop.http.post("/mcp", json=body, headers=ACCEPT | given)
        assert answer.status_code < 500, (body, given, answer.text)
    assert shop.http.post("/mcp", json=LIST, headers=ACCEPT).status_code == 200


def test_open_tools_have_an_end_for_all_and_for_each_key(shop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(web._open, "somebody", web.MOST)
    full = shop.http.post("/mcp", json=LIST, headers=ACCEPT)
    assert (full.status_code, full.headers["retry-after"]) == (503, "5")
    monkeypatch.setitem(web._open, "somebody", 0)
    monkeypatch.setitem(web._open, "dev", web.MOST_OF_ONE)
    assert shop.http.post("/mcp", json=LIST, headers=ACCEPT).status_code == 429
    monkeypatch.delitem(web._open, "dev")
    assert shop.http.post("/mcp", json=LIST, headers=ACCEPT).status_code == 200
    until(lambda: "dev" not in web._open)  # the answer may come before its place is free


def test_a_tool_whose_client_leaves_holds_nothing(shop: Workshop, provider: Provider) -> None:
    provider.spoil({"kind": "stuck", "match": {"prompt_contains": "stuck"}})
    call = {"name": "generate_image", "arguments": {"prompt": "stuck", "wait_s": 600}, "_meta": {"progressToken": 1}}
    with shop.http.stream("POST", "/mcp", json=LIST | {"method": "tools/call", "params": call}, headers=ACCEPT) as got:
        lines = got.iter_lines()  # kept: with it the client leaves
        assert any("processing" in line for line in lines)
        assert web._open["dev"] == 1
    until(lambda: "dev" not in web._open)
    [made] = shop.http.get("/api/v2/generations").json()["items"]
    assert made["status"] == "processing"
    shop.cancel(made["id"])


def test_without_the_extra_the_service_says_how_to_get_the_tools(
    shop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("backend.web.mcp.is_installed", lambda: False)
    missing = shop.http.post("/mcp", json=LIST, headers=ACCEPT)
    assert missing.status_code == 404 and "reelhook[mcp]" in missing.json()["detail"]


def test_without_the_extra_the_command_says_how_to_get_it(tmp_path: Path) -> None:
    program = (
        "import sys; sys.modules['mcp'] = None; sys.argv = ['reelhook', 'mcp']\nfrom backend.cli import main\nmain()"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=environment({}), capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1 and "pip install 'reelhook[mcp]'" in done.stderr and not done.stdout
