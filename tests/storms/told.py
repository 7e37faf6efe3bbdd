"""Those who are told: a listener of everything, one of each client, and receivers that are not always well."""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from typing import Any

from auditor import LOST, STUCK, UNTRUE, Finding
from emulating import until
from listening import Ear
from peers import Peer
from receivers import OK, Letter, Receiver, hanging, receiving, status
from standardwebhooks import Webhook, WebhookVerificationError

# Every event in the order of the commits, also when it is deleted later.
WITNESS = """
CREATE TABLE happened (at INTEGER PRIMARY KEY, id TEXT, generation_id TEXT, client_id TEXT);
CREATE TRIGGER witness_tells AFTER INSERT ON events
BEGIN INSERT INTO happened (id, generation_id, client_id) VALUES (new.id, new.generation_id, new.client_id); END;
"""
PENDING = "SELECT id FROM webhook_deliveries WHERE status = 'pending'"
ALL_DUE = "UPDATE webhook_deliveries SET due_at = 1 WHERE status = 'pending' AND lease_owner IS NULL"
ENDPOINT, OWN = "/endpoint", "/own"
Rows = Callable[[str], list[tuple[Any, ...]]]


async def resetting(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Hangs up without an answer."""
    writer.transport.abort()


async def late(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """An answer that a kill may be faster than."""
    await asyncio.sleep(0.4)  # slow on purpose
    writer.write(OK)


MOODS: dict[str, tuple[int, bytes | Peer]] = {
    "well": (70, OK),
    "late": (12, late),
    "500": (5, status(500, body=b"we are so sorry")),
    "429": (4, status(429, "Retry-After: 7\r\n")),
    "redirect": (3, status(302, "Location: /endpoint\r\n")),
    "reset": (4, resetting),
    "nonsense": (1, b"nonsense\r\n\r\n"),
    "hang": (1, hanging),
}
TAKEN = ("well", "late")


@dataclass
class Mailbox:
    """One client's receiver: `ENDPOINT` is told of everything, `OWN` of what was asked for with this address."""

    client_id: str
    receiver: Receiver
    chance: random.Random
    secrets: dict[str, str] = field(default_factory=dict)  # by path
    taken: dict[str, set[str]] = field(default_factory=lambda: {ENDPOINT: set(), OWN: set()})
    moods: Counter[str] = field(default_factory=Counter)
    found: list[Finding] = field(default_factory=list)
    calm: bool = False

    def __post_init__(self) -> None:
        self.receiver.usual = self.answer

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """As the mood is; the letter is looked at first, as of now."""
        letter = self.receiver.got[-1]
        self._verify(letter)
        weights = [weight for weight, _ in MOODS.values()]
        mood = "well" if self.calm else self.chance.choices([*MOODS], weights)[0]
        self.moods[mood] += 1
        if mood in TAKEN:
            self.taken[letter.path].add(letter.id)
        answer = MOODS[mood][1]
        if callable(answer):
            await answer(reader, writer)
        else:
            writer.write(answer)

    def _verify(self, letter: Letter) -> None:
        try:
            said = Webhook(self.secrets[letter.path]).verify(letter.body, letter.headers)
        except WebhookVerificationError as error:
            self.found.append(Finding(UNTRUE, f"the signature of {letter.id} to {letter.path}: {error}"))
            return
        if said["id"] != letter.id:
            self.found.append(Finding(UNTRUE, f"{said['id']} came under the id {letter.id}"))


@dataclass
class Told:
    """Everybody who is told in one storm."""

    origin: str
    closing: ExitStack = field(default_factory=ExitStack)
    ears: list[tuple[str | None, Ear]] = field(default_factory=list)  # each with its client; None: of all
    mailboxes: list[Mailbox] = field(default_factory=list)

    def listen(self, key: str, client_id: str | None = None) -> None:
        """One more that comes back with the last id it knows, and has heard of nothing yet."""
        ear = Ear(self.origin, "/api/v2/events", key, again=True)
        self.closing.callback(ear.close)
        self.ears.append((client_id, ear))
        until(lambda: ear.open)

    def receive(self, client_id: str, chance: random.Random) -> Mailbox:
        """A receiver on a port of its own."""
        mailbox = Mailbox(client_id, self.closing.enter_context(receiving()), chance)
        self.mailboxes.append(mailbox)
        return mailbox

    def calm(self) -> None:
        """Every receiver is well from now on."""
        for mailbox in self.mailboxes:
            mailbox.calm = True

    def wait(self, rows: Rows) -> None:
        """Until everybody has what there is, or for half a minute."""
        with suppress(AssertionError):
            until(lambda: not rows(PENDING), 30)
        latest = max((id for (id,) in rows("SELECT id FROM events")), default="")
        with suppress(AssertionError):
            until(lambda: all(ear.last_id and ear.last_id >= latest for who, ear in self.ears if who is None), 30)
        with suppress(AssertionError):
            until(lambda: not [*self._of_ears(rows)], 10)

    def findings(self, rows: Rows, own: Iterable[str]) -> list[Finding]:
        """What was not told, told twice or told otherwise; `own` are generations that came with an address."""
        found = [one for mailbox in self.mailboxes for one in mailbox.found]
        order = [id for (id,) in rows("SELECT id FROM happened ORDER BY at")]
        if order != sorted(set(order)):
            found.append(Finding(UNTRUE, "ids of events did not grow in the order of the commits"))
        found += [*self._of_ears(rows), *self._of_mailboxes(rows), *self._of_words()]
        return [*found, *_of_deliveries(rows, set(own))]

    def figures(self, rows: Rows) -> dict[str, int]:
        """How much of what there was."""
        return {
            "events": rows("SELECT COUNT(*) FROM happened")[0][0],
            "listeners": len(self.ears),
            "streams": sum(ear.statuses.count(200) for _, ear in self.ears),
            "heard": sum(len(ear.ids) for _, ear in self.ears),
            "deliveries": rows("SELECT COUNT(*) FROM webhook_deliveries")[0][0],
            "attempts": rows("SELECT COUNT(*) FROM webhook_attempts")[0][0],
            "letters": sum(len(mailbox.receiver.got) for mailbox in self.mailboxes),
        }

    def moods(self) -> Counter[str]:
        """What receivers answered, all together."""
        return sum((mailbox.moods for mailbox in self.mailboxes), Counter[str]())

    def _of_ears(self, rows: Rows) -> Iterator[Finding]:
        """Each heard all there is; and of all there ever was nothing twice and nothing out of order."""
        happened = rows("SELECT id, client_id FROM happened ORDER BY at")
        there = {id for (id,) in rows("SELECT id FROM events")}
        for client_id, ear in self.ears:
            whose = f"the listener of {client_id or 'all'}"
            expected, heard = [id for id, of in happened if client_id in (None, of)], set(ear.ids)
            for id in sorted((there & set(expected)) - heard):
                yield Finding(LOST, f"{whose} never heard {id}")
            if ear.ids != [id for id in expected if id in heard]:
                twice = [id for id, times in Counter(ear.ids).items() if times > 1]
                strange = sorted(heard - set(expected))
                yield Finding(UNTRUE, f"{whose} heard twice {twice}, never happened {strange}, or out of order")

    def _of_mailboxes(self, rows: Rows) -> Iterator[Finding]:
        """Each took what it was to be told, and was sent nothing else; of what was deleted it may have been."""
        events = rows(
            "SELECT events.id, events.client_id, webhook_url FROM events "
            "LEFT JOIN generations ON generations.id = generation_id"
        )
        there, happened = {id for id, _, _ in events}, {id for (id,) in rows("SELECT id FROM happened")}
        for box in self.mailboxes:
            for path, taken in box.taken.items():
                url = None if path == ENDPOINT else box.receiver.origin + path
                wanted = {id for id, of, own in events if of == box.client_id and url in (None, own)}
                sent = {letter.id for letter in box.receiver.got if letter.path == path}
                yield from (
                    Finding(LOST, f"{path} of {box.client_id} never took {id}") for id in sorted(wanted - taken)
                )
                if strange := (sent & there) - wanted | (sent - happened):
                    yield Finding(UNTRUE, f"{path} of {box.client_id} was told {sorted(strange)}")

    def _of_words(self) -> Iterator[Finding]:
        """Whoever is told of an event, and however often, is told the same."""
        said: dict[str, str] = {}
        letters = ((one.id, json.loads(one.body)) for box in self.mailboxes for one in box.receiver.got)
        messages = ((one.id, one.data) for _, ear in self.ears for one in ear.messages if one.id)
        for id, body in [*letters, *messages]:
            words = json.dumps(body)
            if said.setdefault(id, words) != words:
                yield Finding(UNTRUE, f"of {id} was said {said[id]} and {words}")


def _of_deliveries(rows: Rows, own: set[str]) -> Iterator[Finding]:
    """One for each event and receiver, and all of them delivered."""
    for id, state, attempts in rows(
        "SELECT id, status, attempts FROM webhook_deliveries WHERE status <> 'delivered' OR lease_owner IS NOT NULL"
    ):
        yield Finding(STUCK, f"webhook delivery {id} is {state} after {attempts} attempts")
    for event, target in rows(
        "SELECT event_id, target FROM webhook_deliveries GROUP BY event_id, target HAVING COUNT(*) > 1"
    ):
        yield Finding(UNTRUE, f"event {event} has several deliveries to {target}")
    for (id,) in rows("SELECT id FROM webhook_endpoints WHERE disabled_at IS NOT NULL"):
        yield Finding(UNTRUE, f"the endpoint {id} was disabled")
    for (id,) in rows("SELECT id FROM generations WHERE webhook_url IS NULL"):
        if id in own:
            yield Finding(LOST, f"{id} came with an address, which is not known any more")
