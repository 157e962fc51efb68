"""How a tracking call that is as plain as almost all are is answered, without a web framework in between.

Each connection begins here. As long as its requests are plain (`agents/ingress/plain.py`) they are read, handed in and
answered here, one after the other, at a third of the cost. The first that is not is given to aiohttp with the connection
and every byte of it, and aiohttp has the connection from then on. So nothing needs to be known here that is rare: no
chunks, no compression, no other routes. What is said, and when, is the same on both ways.

Bounds: what arrives slowly counts in `Admission` as it does there; a body that does not come is aiohttp's to refuse; a
connection that asks nothing is closed after some minutes; who does not read his answers is not read from.
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from email.utils import formatdate
from http import HTTPStatus
from typing import Final, cast

from aiohttp import web

from agents.ingress import answers, bodies, plain
from agents.ingress.answers import SUCCESS, Answer
from agents.ingress.counting import Counting
from agents.ingress.overload import Admission, Share
from agents.ingress.refusals import Refusal
from agents.ingress.tracking import LARGEST_BODY, Tracking
from engine.runtime import tracing
from engine.runtime.host import Overloaded

MOST_AHEAD: Final = 64 << 10  # bytes that are read of the next requests while one is under way
QUIET_LOOKS: Final = 10  # of 30 s each: a load balancer closes idle connections after a minute or so, before we do


class House:
    """What all the doorways of an application share."""

    def __init__(
        self,
        tracking: Tracking,
        admission: Admission,
        counting: Counting,
        paths: Mapping[str, str],
        clock: Callable[[], int],
    ) -> None:
        self.tracking, self.admission, self.counting, self.clock = tracking, admission, counting, clock
        self.kinds = {path.encode(): kind for path, kind in paths.items()}
        self._second = 0
        self._success = b""

    def written(self, answer: Answer) -> bytes:
        """An answer as it is on the wire."""
        second = int(time.time())
        if answer is not SUCCESS:
            return _written(answer, second)
        if second != self._second:
            self._second, self._success = second, _written(answer, second)
        return self._success


HOUSE: Final = web.AppKey("house", House)


class Doorways:
    """The connections of one port. `framework` makes the protocol of a connection that is not for here."""

    def __init__(self, house: House, framework: Callable[[], asyncio.Protocol]) -> None:
        self.house, self.framework = house, framework
        self.opened: set[Doorway] = set()
        self._emptied: asyncio.Event | None = None

    def open(self) -> asyncio.Protocol:
        return self.framework() if tracing.is_recorded() else Doorway(self)  # spans are aiohttp's way only

    async def close(self, within_seconds: float) -> None:
        """Answer what is under way, then hang up."""
        self._emptied = asyncio.Event()
        for doorway in list(self.opened):
            doorway.close()
        try:
            async with asyncio.timeout(within_seconds):
                while self.opened:
                    self._emptied.clear()
                    await self._emptied.wait()
        except TimeoutError:
            for doorway in list(self.opened):
                doorway.abort()

    def forget(self, doorway: "Doorway") -> None:
        self.opened.discard(doorway)
        if not self.opened and self._emptied is not None:
            self._emptied.set()


class Doorway(asyncio.Protocol):
    """One connection."""

    def __init__(self, doorways: Doorways) -> None:
        self._doorways, self._house = doorways, doorways.house
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport
        self._received: bytes | bytearray = b""  # and not yet taken
        self._arriving: tuple[plain.Head, int, Share] | None = None  # a request whose body is to end there
        self._under_way: asyncio.Task[None] | None = None
        self._is_stuck = self._is_paused = self._is_closing = False
        self._quiet = 0  # looks since the last request
        self._look_again: asyncio.TimerHandle

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._doorways.opened.add(self)
        self._look_again = self._loop.call_later(bodies.PATIENCE_SECONDS, self._look)

    def connection_lost(self, exc: Exception | None) -> None:
        self._is_closing = True
        self._leave()

    def data_received(self, data: bytes) -> None:
        if not self._received:
            self._received = data
        else:
            if isinstance(self._received, bytes):
                self._received = bytearray(self._received)
            self._received += data
        if self._arriving is not None:
            self._go_on(len(data))
        elif self._under_way is None and not self._is_stuck:
            self._begin()
        elif len(self._received) > MOST_AHEAD and not self._is_paused:
            self._is_paused = True
            self._transport.pause_reading()

    def pause_writing(self) -> None:
        self._is_stuck = True

    def resume_writing(self) -> None:
        self._is_stuck = False
        self._next()

    def close(self) -> None:
        """Hang up, once what is under way is answered."""
        self._is_closing = True
        if self._under_way is None:
            self._transport.close()

    def abort(self) -> None:
        """Hang up now."""
        self._transport.abort()
        self._leave()

    def _begin(self) -> None:
        """Begin with the next request."""
        received = self._received
        end = received.find(b"\r\n\r\n", 0, plain.LONGEST_HEAD) + 4
        head = plain.read(bytes(received[:end]), self._house.kinds) if end >= 4 else None
        if head is None or head.size > LARGEST_BODY[head.kind]:
            self._hand_over()
        elif len(received) >= end + head.size:
            self._take(head, end, end + head.size, None)
        else:
            self._wait(head, end)

    def _wait(self, head: plain.Head, begin: int) -> None:
        """Let the body arrive, unless it's refused whatever is in it."""
        try:
            self._house.tracking.tenant(head.authorization)
            share = self._house.admission.enter()
        except (Refusal, Overloaded):
            self._hand_over()
            return
        self._quiet = 0
        self._arriving = head, begin + head.size, share
        self._go_on(len(self._received) - begin)

    def _go_on(self, size: int) -> None:
        """So much of a body has arrived."""
        assert self._arriving is not None
        head, end, share = self._arriving
        try:
            share.hold(size=size)
        except Overloaded:
            self._hand_over()
            return
        if len(self._received) >= end:
            self._arriving = None
            self._take(head, end - head.size, end, share)

    def _take(self, head: plain.Head, begin: int, end: int, share: Share | None) -> None:
        """Take a whole request."""
        received = self._received
        self._received = received[end:]
        self._quiet = 0
        self._under_way = self._loop.create_task(self._serve(head, bytes(received[begin:end]), share))

    async def _serve(self, head: plain.Head, body: bytes, share: Share | None) -> None:
        began = time.perf_counter()
        house = self._house
        traceparent = tracing.continued(head.traceparent)
        try:
            if share is None:
                share = house.admission.enter()
                share.hold(size=len(body))
            answer = await house.tracking.take(head, body, share, traceparent, house.clock())
        except Exception as error:  # The edge: whatever it is, the sender gets an answer and tries again.
            answer = answers.explain(error, "POST", traceparent)
        finally:
            if share is not None:
                share.release()
        if not self._transport.is_closing():
            self._transport.write(house.written(answer))
        house.counting.count(f"/v1/{head.kind}", answer.status, time.perf_counter() - began)
        self._under_way = None
        self._next()

    def _next(self) -> None:
        """Go on with what has been received meanwhile."""
        if self._is_closing:
            self._transport.close()
        elif self._under_way is None and not self._is_stuck:
            self._resume_reading()
            if self._received and self._arriving is None:
                self._begin()

    def _hand_over(self) -> None:
        """Give the connection to the framework, with all that has not been taken."""
        self._resume_reading()
        self._leave()
        protocol = self._doorways.framework()
        self._transport.set_protocol(protocol)
        protocol.connection_made(self._transport)
        protocol.data_received(bytes(self._received))

    def _look(self) -> None:
        """Look now and then whether the connection is still of use."""
        self._quiet += 1
        if self._arriving is not None and self._quiet > 1:
            self._hand_over()
            return
        if self._under_way is None and self._quiet > QUIET_LOOKS:
            self._transport.abort()  # not `close`, which would wait for one who does not read
            return
        self._look_again = self._loop.call_later(bodies.PATIENCE_SECONDS, self._look)

    def _leave(self) -> None:
        self._look_again.cancel()
        if self._arriving is not None:
            self._arriving[2].release()
            self._arriving = None
        self._doorways.forget(self)

    def _resume_reading(self) -> None:
        if self._is_paused:
            self._is_paused = False
            self._transport.resume_reading()


def _written(answer: Answer, second: int) -> bytes:
    again = "" if answer.retry_after is None else f"Retry-After: {answer.retry_after}\r\n"
    head = (
        f"HTTP/1.1 {answer.status} {HTTPStatus(answer.status).phrase}\r\nAccess-Control-Allow-Origin: *\r\n{again}"
        f"Content-Type: application/json\r\nContent-Length: {len(answer.body)}\r\n"
        f"Date: {formatdate(second, usegmt=True)}\r\n\r\n"
    )
    return head.encode("ascii") + answer.body
