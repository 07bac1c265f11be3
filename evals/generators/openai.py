"""OpenAI-compatible servers: the evaluated model or a judge behind HTTP.

With a tokenizer at hand the exact token ids go to /completions (vLLM's server and its kin); without
one, messages go to /chat/completions and the server renders them. Busy servers (408, 409, 429,
5xx), lost connections and time-outs are asked again, with back-off; any other 4xx is never asked
again. Of several servers one may be lost: the others answer what it left, and it is looked for from
time to time, and asked again once it is back; when all are lost, that is waited for.
"""

import contextlib
import logging
import os
import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from queue import Empty, SimpleQueue
from threading import Event, Thread

from evals.errors import EnvironmentFault, EvalsError, InputError
from evals.generators import MOST_BYTES, Failure, n_bytes, texts_of
from evals.generators.manner import Manner, adapted
from evals.generators.openai_api import (
    MissingError,
    ask_by_ids,
    ask_by_messages,
    client_of,
    score_by_ids,
)
from evals.generators.spread import Server, Spread, affordable
from evals.generators.waiting import is_up, said_of, seconds_of_header
from evals.models.prompts import Rendered
from evals.models.resolve import OPENAI_URL
from evals.records import Completion

_TIMEOUT_S = 1800.0
_CONNECT_S = 10.0
_REJOIN_S = 20.0
_SILENT_S = 60.0
_LOOK_S = 1.0
_RETRIES = 8
# a connection that is refused or breaks, while another server could answer
_RETRIES_BESIDE_OTHERS = 3
# a server that never answered is not running, or not there; so often, too, a request that ran out
# of time
_RETRIES_UNHEARD = 2
_LONGEST_WAIT_S = 30.0
_LONGEST_RETRY_AFTER_S = 120.0
_BUSY = (408, 409, 429)
# said by a gateway of whoever is behind it, or is not
_NOBODY_BEHIND = (502, 503)
# its length, its content; any other 4xx is about the model, the account or the address
_ABOUT_THE_REQUEST = (400, 413, 422)
_ABOUT_THE_FORM = (400, 422)
# The first request goes ahead of the others for so long: what a server refuses by name it refuses
# at once.
_AHEAD_S = 1.0
_REFUSALS = 32  # so many such refusals and no answer: it is not the request

_CONCURRENCY_IDS = 256
"""Requests under way at a URL that takes token ids: a vLLM server, whose default batch this is; it
queues what is more.
"""
_CONCURRENCY_CHAT = 32
"""The same where a chat server renders: mostly a service that counts requests per minute."""

_LEAST_KEY = 20
"""Characters of a key that is a secret; services' have 32 and more."""

NO_QUOTA = "the account has no quota left"
_log = logging.getLogger(__name__)

Outcome = Completion | Failure
Done = tuple[Rendered, Outcome | EvalsError] | EvalsError | int
"""An answer, why there are no more, or so many threads more (less, where negative) that ask."""


class _LostError(Exception):
    """A server cannot be reached; another can take its requests, or it is waited for."""


class OpenAIGenerator:
    """Answers requests over HTTP.

    concurrency: requests under way at each URL (None: as suits the kind of server).  retries: how
    often a request is asked again.
    n_beside: generators that share the connections a server is given.
    first_wait_s: seconds before the first time, doubled each time after.  timeout_s: seconds a
    request may take.  rejoin_s: seconds between two looks for a server that was lost.
    silent_s: seconds after which a server that lets all requests wait is named on the terminal, and
    again whenever its silence has doubled.  wait_s: how long one is waited for once all are lost,
    since the last answer.
    Raises InputError when a server refuses (wrong key, no such model, every request) and
    EnvironmentFault when none can be reached, both once what is under way has come back; a request
    that fails by itself is a Failure.
    """

    def __init__(
        self,
        name: str,
        urls: Sequence[str],
        concurrency: int | None = None,
        *,
        retries: int = _RETRIES,
        first_wait_s: float = 0.5,
        timeout_s: float = _TIMEOUT_S,
        n_beside: int = 1,
        rejoin_s: float = _REJOIN_S,
        silent_s: float = _SILENT_S,
        wait_s: float = 0.0,
    ) -> None:
        import openai

        self._openai = openai
        # The client refuses to be made without a key; a server of one's own mostly asks for none.
        self._key = os.environ.get("OPENAI_API_KEY", "").strip() or "none"
        timeout = openai.Timeout(timeout_s, connect=_CONNECT_S)
        self._servers = [
            Server(
                url,
                client_of(url, self._key, timeout),
                # The service itself has no defaults that come with a checkpoint.
                manner=Manner(neutral=()) if url == OPENAI_URL else Manner(),
            )
            for url in dict.fromkeys(urls)
        ]
        self._name = name
        self._concurrency = concurrency
        self._n_beside = n_beside
        self._retries = retries
        self._first_wait_s = first_wait_s
        self._silent_s = silent_s
        self._rejoin_s = min(rejoin_s, wait_s) if wait_s else rejoin_s
        self._most_s = wait_s
        self._none_since: float | None = None
        self._has_answered = False
        self._n_refused = 0
        self._streams: list[tuple[Event, Spread, SimpleQueue[Done]]] = []

    def stream(self, requests: Sequence[Rendered]) -> Iterator[list[tuple[Rendered, Outcome]]]:
        """See Generator. Ctrl-C ends it at once: its threads are daemons, nobody waits for the
        requests under way.
        """
        up = [server for server in self._servers if not server.is_out] or self._servers
        spread = Spread(requests, self._servers)
        done: SimpleQueue[Done] = SimpleQueue()
        stopped = Event()
        self._streams.append((stopped, spread, done))
        # One renderer made them all, so the first speaks for all; there may be none.
        by_ids = any(request.token_ids for request in requests[:1])
        usual = (_CONCURRENCY_IDS if by_ids else _CONCURRENCY_CHAT) // self._n_beside
        at_once = self._concurrency or max(1, usual)
        n_each = min(affordable(at_once, len(up)), len(requests))
        n_working = self._start(up * n_each, spread, done, stopped)
        if len(self._servers) > 1 or self._most_s:
            Thread(
                target=self._look_for_lost, args=(n_each, spread, done, stopped), daemon=True
            ).start()
        fault: EvalsError | None = None
        try:
            # Nobody asks while all are lost; what they left waits.
            while n_working or (self._most_s and not (fault or spread.is_done)):
                answered: list[tuple[Rendered, Outcome]] = []
                for said in filter(None, (one.silence(self._silent_s) for one in self._servers)):
                    _log.warning(said)
                for entry in _arrived(done):
                    if isinstance(entry, int):
                        n_working += entry
                    elif isinstance(entry, EvalsError):
                        fault = fault or entry
                    elif isinstance(entry[1], EvalsError):
                        fault = fault or entry[1]
                    else:
                        answered.append((entry[0], entry[1]))
                if answered:
                    yield answered
            if fault is not None:
                raise fault
        finally:
            self._streams.remove((stopped, spread, done))
            stopped.set()
            spread.stop()

    def close(self) -> None:
        """Ask nothing more, whoever reads a stream, and close the connections."""
        for stopped, spread, done in list(self._streams):
            stopped.set()
            spread.stop()
            done.put(0)  # whoever waits looks again
        for server in self._servers:
            server.client.close()

    def _start(
        self, servers: Sequence[Server], spread: Spread, done: SimpleQueue[Done], stopped: Event
    ) -> int:
        """A thread for each; returns how many."""
        for server in servers:
            Thread(target=self._work, args=(server, spread, done, stopped), daemon=True).start()
        return len(servers)

    def _look_for_lost(
        self, n_each: int, spread: Spread, done: SimpleQueue[Done], stopped: Event
    ) -> None:
        """One thread: whichever lost server is back is asked again, by n_each threads. It ends the
        stream when all have been lost for too long.
        """
        while not (stopped.wait(self._rejoin_s) or spread.is_done):
            if self._most_s and all(server.is_out for server in self._servers):
                # Begun here, not where the last is lost: an answer that was under way then may come
                # after that and take it back, and nobody would begin it again.
                since = self._none_since = self._none_since or time.monotonic()
                if time.monotonic() - since >= self._most_s:
                    stopped.set()
                    spread.stop()
                    done.put(self._all_lost(f"no answer for {said_of(self._most_s)}."))
            for server in self._servers:
                if server.is_out and is_up(server.url) and not stopped.is_set():
                    _log.warning("%s is back, and asked again.", server.url)
                    server.is_out = False
                    # Before they end: none of them may be counted out first.
                    done.put(n_each)
                    self._start([server] * n_each, spread, done, stopped)

    def _work(
        self, server: Server, spread: Spread, done: SimpleQueue[Done], stopped: Event
    ) -> None:
        """One thread: ask, one request after another, until there are none or all is stopped; then
        say so.
        """
        try:
            while (request := spread.take(server)) is not None:
                try:
                    done.put((request, self._ask(server, request, stopped)))
                except _LostError as lost:
                    is_news = spread.lose(server, request)
                    if not self._has_others(server):
                        if not self._most_s:  # the last two were lost at once
                            done.put((request, self._all_lost(self._plain(lost))))
                        elif is_news:
                            _log.warning(
                                "%s No server is left: one is waited for, %s at most.",
                                lost,
                                said_of(self._most_s),
                            )
                    elif is_news:
                        _log.warning("%s The other servers go on with what it left.", lost)
                    # `lose` has taken it from those under way; `finish` would do so again.
                    continue
                except EvalsError as error:
                    stopped.set()
                    spread.stop()
                    done.put((request, error))
                spread.finish()
        finally:
            done.put(-1)

    def _ask(self, server: Server, request: Rendered, stopped: Event) -> Outcome:
        """One request's answer. Raises EvalsError when asking anything more is pointless,
        _LostError when only this server is gone.
        """
        if not server.first.acquire(blocking=False):
            server.is_known.wait(_AHEAD_S)
            if stopped.is_set():
                return Failure("the run was stopped")
        try:
            return self._ask_in_its_manner(server, request, stopped)
        finally:
            server.is_known.set()

    def _ask_in_its_manner(self, server: Server, request: Rendered, stopped: Event) -> Outcome:
        """The same, asked again in another form where the server refuses one by name."""
        n_asked = 0
        while True:
            manner = server.manner
            if request.sampling.n > 1 and "n" in manner.without:
                return self._ask_one_by_one(server, request, stopped)
            n_asked += 1
            try:
                ask = ask_by_ids if request.token_ids else ask_by_messages
                with server.waited_for():
                    answer = (score_by_ids if request.scored else ask)(
                        server.client, self._name, request, manner
                    )
            except self._openai.APIError as error:
                if self._has_adapted(server, manner, error) and not stopped.is_set():
                    n_asked -= 1
                    continue
                wait_s = self._wait_s(server, error, n_asked)
                if wait_s is None or stopped.wait(wait_s):
                    return self._given_up(server, error)
            except MissingError as error:
                return Failure(str(error))
            # The client checks no types: an answer of another form shows only where it is read, and
            # must cost no more than its own request.
            except (
                AttributeError,
                IndexError,
                KeyError,
                OverflowError,
                TypeError,
                ValueError,
                RecursionError,
            ) as error:
                return Failure(
                    f"the server's answer has not the expected form ({type(error).__name__})"
                )
            else:
                server.was_heard = self._has_answered = True
                self._none_since = None
                return self._kept(answer) if isinstance(answer, Completion) else answer

    def _ask_one_by_one(self, server: Server, request: Rendered, stopped: Event) -> Outcome:
        """The samples of a request to a server that gives one at a time."""
        single = replace(request, sampling=replace(request.sampling, n=1))
        given: list[Completion] = []
        for _ in range(request.sampling.n):
            answer = self._ask_in_its_manner(server, single, stopped)
            if isinstance(answer, Failure):
                return answer
            given.append(answer)
        outputs = tuple(output for one in given for output in one.outputs)
        return self._kept(replace(given[-1], outputs=outputs))

    def _has_adapted(self, server: Server, manner: Manner, error: Exception) -> bool:
        """Whether the request is worth another form: the server has refused this one by name, or
        another thread has found that out meanwhile.
        """
        if not isinstance(error, self._openai.APIStatusError):
            return False
        if error.status_code not in _ABOUT_THE_FORM:
            return False
        if server.manner is not manner:
            return True
        found = adapted(manner, error.param, str(error.message))
        server.manner = found or manner
        return found is not None

    def _may_lose(self, server: Server) -> bool:
        """Whether its requests are kept for another, or for its own return."""
        return self._most_s > 0 or self._has_others(server)

    def _has_others(self, server: Server) -> bool:
        return any(not other.is_out for other in self._servers if other is not server)

    def _is_unreachable(self, error: Exception) -> bool:
        """A connection refused, broken or never made; not an answer that is late."""
        # The client calls a connection that was never made a time-out too; only the cause tells.
        is_late = (
            isinstance(error, self._openai.APITimeoutError)
            and type(error.__cause__).__name__ != "ConnectTimeout"
        )
        return isinstance(error, self._openai.APIConnectionError) and not is_late

    def _wait_s(self, server: Server, error: Exception, n_asked: int) -> float | None:
        """Seconds before asking again; None when that would not help."""
        # Spread, as the client's own waits are, so that many threads do not come back all at once.
        own_s: float = min(
            self._first_wait_s * 2 ** (n_asked - 1), _LONGEST_WAIT_S
        ) * random.uniform(0.75, 1.0)
        if isinstance(error, self._openai.APIStatusError):
            server.was_heard = True
            is_busy = error.status_code in _BUSY or error.status_code >= 500
            # Another thread has found out that it is lost.
            if server.is_out and error.status_code in _NOBODY_BEHIND:
                return None
            # An account without quota answers 429 as a busy server does, but no wait fills it.
            if not is_busy or n_asked > self._retries or error.code == "insufficient_quota":
                return None
            wished_s = seconds_of_header(error.response.headers.get("retry-after"))
            return (
                own_s
                if wished_s is None
                else wished_s
                if wished_s <= _LONGEST_RETRY_AFTER_S
                else None
            )
        # is_out: another thread has found it lost meanwhile.
        if not isinstance(error, self._openai.APIConnectionError) or server.is_out:
            return None
        most = (
            self._retries
            if server.was_heard and self._is_unreachable(error)
            else min(_RETRIES_UNHEARD, self._retries)
        )
        return (
            own_s
            if n_asked <= (min(most, _RETRIES_BESIDE_OTHERS) if self._may_lose(server) else most)
            else None
        )

    def _given_up(self, server: Server, error: Exception) -> Failure:
        """The Failure a request ends in. Raises EvalsError where every other would end the same
        way, _LostError where here only.
        """
        openai, url = self._openai, server.url
        # `from None` throughout: the client's error holds the server's words, which may repeat the
        # key, and a traceback would show them.
        if isinstance(error, openai.AuthenticationError | openai.PermissionDeniedError):
            raise InputError(
                f"{url} refuses the key ({error.status_code}). Set OPENAI_API_KEY to one it takes."
            ) from None
        if isinstance(error, openai.NotFoundError):
            raise InputError(
                f"{url} has no model {self._name!r} (404), or it was withdrawn. Name one it serves;"
                " most URLs end in /v1."
            ) from None
        if (
            isinstance(error, openai.APITimeoutError)
            and server.was_heard
            and not self._is_unreachable(error)
        ):
            return Failure("the server gave no answer in time")
        if isinstance(error, openai.APIConnectionError):
            if self._may_lose(server):
                raise _LostError(f"{url} is lost: {self._plain(error)}") from None
            raise self._all_lost(self._plain(error)) from None
        if isinstance(error, openai.APIStatusError):
            if error.code == "insufficient_quota":
                raise EnvironmentFault(
                    f"{url}: {NO_QUOTA}. Mend that; the same command goes on."
                ) from None
            if error.status_code < 500 and error.status_code not in _BUSY:
                self._n_refused += 1
                if error.status_code not in _ABOUT_THE_REQUEST or (
                    self._n_refused >= _REFUSALS and not self._has_answered
                ):
                    raise InputError(
                        f"{url} refuses model {self._name!r} ({error.status_code}:"
                        f" {self._plain(error)})."
                    ) from None
            said = f"{error.status_code}: {self._plain(error)}"
            if error.status_code in _NOBODY_BEHIND and self._may_lose(server):
                raise _LostError(f"{url} is lost: {said}") from None
            return Failure(f"the server answered {said}")
        return Failure(f"the server's answer cannot be read: {self._plain(error)}")

    def _all_lost(self, why: str) -> EnvironmentFault:
        which = " and ".join(server.url for server in self._servers)
        return EnvironmentFault(
            f"{which} cannot be reached ({why}) Start it; the same command goes on."
        )

    def _kept(self, answer: Completion) -> Outcome:
        """The answer, or why it is none: it is longer than any, or repeats the key, which would
        stand in the run's files.
        """
        texts = texts_of(answer)
        n = n_bytes(texts)
        if n > MOST_BYTES:
            return Failure(f"the answer has {n:,} bytes")
        has_key = any(self._key in text for text in (*texts, *(answer.top_logprobs or ())))
        # What stands in for a key, such as EMPTY, is a word that an answer may hold.
        if has_key and len(self._key) >= _LEAST_KEY:
            return Failure("the answer repeats the key")
        return answer

    def _plain(self, error: Exception) -> str:
        """The error's text as one short line, without the key should the server repeat it."""
        text = " ".join(str(getattr(error, "message", error)).split())
        # "none" is no secret, but a word of ordinary messages.
        return (text.replace(self._key, "***") if self._key != "none" else text)[:200]


def _arrived(done: SimpleQueue[Done]) -> Iterator[Done]:
    """What has arrived, after waiting a little for the first of it."""
    with contextlib.suppress(Empty):
        yield done.get(timeout=_LOOK_S)
    while not done.empty():
        yield done.get()
