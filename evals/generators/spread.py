"""One queue spread over several servers: whoever is free takes what comes next, and what a lost
server left goes to the others.
"""

import contextlib
import resource
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from threading import Condition, Event, Lock, get_ident
from typing import Any, Protocol

from evals.generators.manner import Manner
from evals.generators.waiting import said_of
from evals.models.prompts import Rendered

_TAKEN_AT_ONCE = 32
"""Requests a server takes from the queue at a time: neighbours share a prefix, which its cache then
holds once.
"""

_OTHER_FILES = 256
"""Files that this process holds open beside its connections."""


def affordable(at_once: int, n_servers: int) -> int:
    """Requests under way at each server, as far as this process may hold so many connections
    open.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = at_once * n_servers + _OTHER_FILES
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        at_once = min(at_once, (soft - _OTHER_FILES) // n_servers)
    return max(1, at_once)


class Taker(Protocol):
    """Whoever takes requests: a server, or a copy of an engine. own: what it has taken, and not
    begun.  is_out: it takes no more.
    """

    own: deque[Rendered]
    is_out: bool


@dataclass(eq=False)
class Server:
    """One URL. was_heard: it has answered something.  is_out: it cannot be reached any more;
    nothing is sent to it again.
    manner: how it takes requests, as far as it has said.  first: whoever holds it asks first.
    is_known: that one has come back.
    asked: when each thread began to wait for it.  heard: when it last said anything.  said_s: the
    length of its silence that was told last.  All in seconds of the monotonic clock.
    """

    url: str
    client: Any
    was_heard: bool = False
    is_out: bool = False
    own: deque[Rendered] = field(default_factory=deque)
    manner: Manner = field(default_factory=Manner)
    first: Lock = field(default_factory=Lock)
    is_known: Event = field(default_factory=Event)
    asked: dict[int, float] = field(default_factory=dict)
    heard: float = 0.0
    said_s: float = 0.0

    @contextlib.contextmanager
    def waited_for(self) -> Iterator[None]:
        """Meanwhile this thread waits for its answer."""
        self.asked[get_ident()] = time.monotonic()
        try:
            yield
        finally:
            del self.asked[get_ident()]
            self.heard, self.said_s = time.monotonic(), 0.0

    def silence(self, least_s: float) -> str:
        """What to say of a server that has let all wait that ask it for so long, and for twice as
        long as was told last; else "".
        """
        asked = list(self.asked.values())
        since = max(self.heard, min(asked, default=0.0))
        silent_s = time.monotonic() - since if asked else 0.0
        if silent_s < max(least_s, 2 * self.said_s):
            return ""
        self.said_s = silent_s
        return (
            f"{self.url} has said nothing for {said_of(silent_s)}, and {len(asked)} requests wait"
            " for it. Ctrl-C stops; the same command goes on."
        )


class Spread:
    """The requests that wait and those under way, shared by the threads of all servers."""

    def __init__(self, requests: Sequence[Rendered], servers: Sequence[Taker]) -> None:
        self._runs = deque(
            deque(requests[start : start + _TAKEN_AT_ONCE])
            for start in range(0, len(requests), _TAKEN_AT_ONCE)
        )
        self._servers = servers
        self._n_under_way = 0
        self._is_stopped = False
        self._changed = Condition()
        # Servers outlive a stream: what one that was stopped left with them is nobody's now.
        for server in servers:
            server.own = deque()

    @property
    def is_done(self) -> bool:
        """Whether nothing waits, and nothing is under way."""
        with self._changed:
            waits = self._runs or any(server.own for server in self._servers)
            return self._is_stopped or not (waits or self._n_under_way)

    def take_now(self, server: Taker) -> Rendered | None:
        """The next request for this server; None where none waits now."""
        with self._changed:
            if self._is_stopped or server.is_out or (own := self._fill(server)) is None:
                return None
            self._n_under_way += 1
            return own.popleft()

    def take(self, server: Taker) -> Rendered | None:
        """The next request for this server; None once it has nothing more to do.

        Waits while none is left but some are under way elsewhere: their server may be lost.
        """
        with self._changed:
            while not (self._is_stopped or server.is_out):
                if (own := self._fill(server)) is not None:
                    self._n_under_way += 1
                    return own.popleft()
                if not self._n_under_way:
                    return None
                self._changed.wait()
            return None

    def finish(self) -> None:
        """A request that was taken needs nothing more."""
        with self._changed:
            self._n_under_way -= 1
            if not self._n_under_way:
                self._changed.notify_all()

    def lose(self, server: Taker, *requests: Rendered) -> bool:
        """The server is out: its requests under way, and what it had taken, are the others' now.
        True when it was not known to be out.
        """
        with self._changed:
            is_news, server.is_out = not server.is_out, True
            self._n_under_way -= len(requests)
            self._runs.appendleft(deque([*requests, *server.own]))
            server.own = deque()
            self._changed.notify_all()
            return is_news

    def stop(self) -> None:
        """Hand out nothing more."""
        with self._changed:
            self._is_stopped = True
            self._changed.notify_all()

    def _fill(self, server: Taker) -> deque[Rendered] | None:
        """Requests for this server to take from: its own run, the next one, or, when none is left,
        the longest of another's.
        """
        if not server.own and self._runs:
            server.own = self._runs.popleft()
        if server.own:
            return server.own
        longest = max((other.own for other in self._servers), key=len)
        return longest or None
