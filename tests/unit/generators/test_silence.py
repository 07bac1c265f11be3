"""A server that lets everybody wait is named, and again when its silence has doubled."""

import time

from evals.generators.spread import Server


def test_a_silence_is_told_once_it_is_long_and_when_it_has_doubled() -> None:
    server = Server("http://there/v1", None)
    assert server.silence(60) == ""  # nobody waits
    now = time.monotonic()
    server.asked = {1: now - 1000, 2: now - 5}
    said = server.silence(60)
    assert said.startswith("http://there/v1 has said nothing for 17 min, and 2 requests wait")
    assert "Ctrl-C" in said
    assert server.silence(60) == ""
    server.asked[1] = now - 1e6
    assert server.silence(60)
    # What it has said to one was no silence to the others.
    server.said_s, server.heard = 0.0, time.monotonic()
    assert server.silence(1e5) == ""


def test_whoever_waits_is_counted_and_what_comes_is_heard() -> None:
    server = Server("http://there/v1", None, said_s=70.0)
    with server.waited_for():
        assert len(server.asked) == 1
    assert (server.asked, server.said_s) == ({}, 0.0)
    assert server.heard > 0
