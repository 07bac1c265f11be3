"""What a server says of itself: its models, version and context. Asked once a run and recorded;
nothing depends on it.
"""

import os
from collections.abc import Mapping
from typing import Any

from evals.generators.openai_api import client_of

_TIMEOUT_S = 5.0
_MOST_MODELS = 20
"""Of a service's hundreds of models so many are recorded."""
_LONGEST = 200

About = Mapping[str, Any]


def about(name: str, url: str) -> About:
    """url, and as far as the server tells them: models (names), root (folder or hub id of the model
    `name`), max_model_len (its context in tokens), version.
    """
    key = os.environ.get("OPENAI_API_KEY", "").strip() or "none"
    with client_of(url, key, _TIMEOUT_S) as client:
        listed = _list(_told(client, "/models").get("data"))
        models = [one for one in listed if isinstance(one, dict)]
        # vLLM's server has it beside the API, not below it.
        version = _told(client, url.rstrip("/").removesuffix("/v1") + "/version").get("version")
    own = next((one for one in models if one.get("id") == name), {})
    names = [_text(one.get("id"), key) for one in models[:_MOST_MODELS]]
    context = own.get("max_model_len")
    found = {
        "url": url,
        "models": [one for one in names if one],
        "root": _text(own.get("root"), key),
        "max_model_len": context if type(context) is int else None,
        "version": _text(version, key),
    }
    return {field: value for field, value in found.items() if value}


def _told(client: Any, path: str) -> dict[str, Any]:
    """The JSON object at a path; empty where there is none to be had."""
    import openai

    try:
        answer = client.get(path, cast_to=object)
    # The client passes on what the server sends, and that may be anything.
    except (openai.OpenAIError, ValueError, TypeError, RecursionError):
        return {}
    return answer if isinstance(answer, dict) else {}


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _text(value: object, key: str) -> str:
    """A text as it may be recorded: not too long, and without the key should the server repeat
    it.
    """
    if not isinstance(value, str):
        return ""
    return (value if key == "none" else value.replace(key, "***"))[:_LONGEST]
