"""Servers that are not up yet, or not any more: whether one answers, and waiting until it does."""

import http.client
import logging
import os
import re
import time
import urllib.error
import urllib.request
from collections.abc import Sequence

from evals.errors import EnvironmentFault, InputError

_TIMEOUT_S = 5.0
_SAY_S = 30.0
_UNITS = {"s": 1, "m": 60, "h": 3600}

_log = logging.getLogger(__name__)


def seconds(text: str, option: str = "--wait", least: float = 0) -> float:
    """A duration as people write it, 90s, 15m or 2h, in seconds; a bare number is of seconds.

    Raises InputError for anything else, and for less than the least.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", text.strip().lower())
    found_s = float(found[1]) * _UNITS[found[2] or "s"] if found else -1
    if found_s < least:
        raise InputError(f"{option} {text}: give a time, e.g. 90s, 15m or 2h.")
    return found_s


def seconds_of_header(header: str | None) -> float | None:
    """A Retry-After header in seconds; None where it is not a number of them."""
    try:
        found = float(header or "")
    except ValueError:
        return None
    return found if found >= 0 else None


class _Stay(urllib.request.HTTPRedirectHandler):
    """Follows nowhere: urllib would take the key along to another host."""

    def redirect_request(self, *_: object) -> None:
        """None: the redirect itself is the answer."""


def is_up(url: str) -> bool:
    """Whether a server answers at a URL: with its models, or that it does not give them to us."""
    key = os.environ.get("OPENAI_API_KEY", "").strip() or "none"
    asked = urllib.request.Request(
        url.rstrip("/") + "/models", headers={"Authorization": f"Bearer {key}"}
    )
    try:
        urllib.request.build_opener(_Stay).open(asked, timeout=_TIMEOUT_S).close()
    except urllib.error.HTTPError as error:
        # A gateway in front of one that still loads says 502, 503 or 504.
        return error.code < 500
    except (OSError, ValueError, http.client.HTTPException):
        return False
    return True


def wait_until_up(urls: Sequence[str], most_s: float, *, poll_s: float = 2.0) -> None:
    """Return once all answer; lines of progress go to this module's logger.

    Raises EnvironmentFault with those that do not within most_s.
    """
    begun = said = time.monotonic()
    waiting = [url for url in dict.fromkeys(urls) if not is_up(url)]
    for url in waiting:
        _log.info("%s is not up yet: waiting for it, %s at most", url, said_of(most_s))
    while waiting:
        now = time.monotonic()
        if now - begun >= most_s:
            raise EnvironmentFault(
                f"{' and '.join(waiting)} {'is' if len(waiting) == 1 else 'are'} not up after"
                f" {said_of(most_s)}. Start it, or give a longer --wait; the same command goes on."
            )
        time.sleep(min(poll_s, most_s))
        there = [url for url in waiting if is_up(url)]
        for url in there:
            _log.info("%s is up after %s", url, said_of(time.monotonic() - begun))
        waiting = [url for url in waiting if url not in there]
        if waiting and now - said >= _SAY_S:
            _log.info("still waiting for %s, since %s", " and ".join(waiting), said_of(now - begun))
            said = now


def said_of(duration_s: float) -> str:
    """A duration in words."""
    if duration_s < 100:
        return f"{duration_s:.0f} s"
    minutes = duration_s / 60
    return f"{minutes:.0f} min" if minutes < 100 else f"{minutes / 60:.1f} h"
