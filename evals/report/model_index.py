"""`model-index`, the results in a model card's metadata: ours renewed among those of others, which
keep every byte: comments, number formats, flow style.

The places come from PyYAML's marks, and the text is cut there.  ruamel.yaml 0.19, which reads YAML
and writes it back, was tried on the cards of our tests: it changed lines that are not ours in 15 of
67 of the table's and in 72 of 95 random ones (flow style, indentation, long lines, a key twice).
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from evals.errors import InputError
from evals.report.front_matter import FrontMatter, dump, pair, reading, root_of
from evals.storage.files import one_line

KEY = "model-index"
_LINE_END = re.compile(r"\r\n|\r|\n|\Z")


def with_results(
    matter: FrontMatter, model: Mapping[str, Any], ours: Sequence[Mapping[str, Any]], end: str
) -> str:
    """Head, metadata and tail with our results in place of our earlier ones, else after those of
    others.

    model: the summary's.  ours: in the hub's form.  end: the card's line end.
    Raises InputError where that cannot be done without touching another's, or where the metadata
    is about other models.
    """
    models = models_of(matter.data)
    if not models:
        return _with_first(matter, one_line(str(model["name"])), ours, end)
    at = _place(models, model)
    if at is None and ours:
        names = one_line(" and ".join(str(one["name"]) for one in models))
        raise InputError(
            f"The card's model-index is about {names},"
            f" the run about {one_line(str(model['name']))}. Give the entry that is meant the run's"
            " name, or the run the entry's (evals run once more with --name and the same --out"
            " asks nothing anew), or take out those of other models."
        )
    old = [] if at is None else _results(models[at])
    if at is None or [one for one in old if _is_ours(one)] == list(ours):
        return matter.whole()

    def is_right(data: dict[str, Any]) -> bool:
        models = models_of(data)
        return (
            at < len(models)
            and [one for one in _results(models[at]) if _is_ours(one)] == list(ours)
            and _less_ours(data, at) == _less_ours(matter.data, at)
        )

    mine = [_is_ours(one) for one in old]
    texts = (_spliced(matter.text, at, mine, ours, end, early) for early in (False, True))
    return matter.first_right(texts, is_right, KEY)


def _with_first(matter: FrontMatter, name: str, ours: Sequence[Mapping[str, Any]], end: str) -> str:
    if not ours:
        return matter.whole()
    index = [{"name": name, "results": list(ours)}]
    if KEY not in matter.data:
        return matter.with_key(KEY, index, end)
    cuts = _filled(matter.text, *_found(root_of(matter.text), KEY), index, end, is_flow=False)
    wanted = reading(matter.data | {KEY: index})
    return matter.first_right([_cut(matter.text, cuts)], lambda data: reading(data) == wanted, KEY)


def models_of(data: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The models in the metadata. Raises InputError when they are none the hub could read."""
    found = data.get(KEY)
    if found is None:
        return []
    if not isinstance(found, list) or not all(_is_model(one) for one in found):
        raise InputError(
            "The card's model-index is not a list of models with name and results. Mend it first:"
            " each needs `name:` and `results:`, which may be []."
        )
    return found


def is_called(name: object, model: Mapping[str, Any]) -> bool:
    """Whether a card's name for a model is the summary's, but for letter case, dashes and owner."""
    own = (str(model["name"]), str(model["id"]), str(model["id"]).rsplit("/", 1)[-1])
    return _letters(str(name)) in map(_letters, own)


def _letters(name: str) -> str:
    return "".join(filter(str.isalnum, name.casefold())) or name


def _is_model(one: Any) -> bool:
    return (
        isinstance(one, dict)
        and one.get("name") is not None
        and isinstance(one.get("results", 0), list | None)
    )


def _results(model: Mapping[str, Any]) -> list[Any]:
    return list(model["results"] or ())


def _place(models: Sequence[Mapping[str, Any]], model: Mapping[str, Any]) -> int | None:
    """Which of the card's models the run's is: the one called so."""
    return next((at for at, one in enumerate(models) if is_called(one["name"], model)), None)


def _is_ours(result: Any) -> bool:
    """Ours are known by the protocol among their dataset's arguments."""
    dataset = result.get("dataset") if isinstance(result, dict) else None
    arguments = dataset.get("args") if isinstance(dataset, dict) else None
    return isinstance(arguments, dict) and "protocol" in arguments and "suite" in arguments


def _less_ours(data: Mapping[str, Any], at: int) -> dict[str, str]:
    """The metadata for comparing, without our results under one model."""
    models = list(data[KEY])
    kept = [one for one in _results(models[at]) if not _is_ours(one)]
    models[at] = {**models[at], "results": kept}
    return reading({**data, KEY: models})


# --- cutting the text -----------------------------------------------------------------------------


class _Span(NamedTuple):
    start: int
    stop: int


class _Cut(NamedTuple):
    """text[start:stop] becomes `new`."""

    start: int
    stop: int
    new: str


def _spliced(
    text: str,
    at: int,
    mine: Sequence[bool],
    ours: Sequence[Mapping[str, Any]],
    end: str,
    early: bool,
) -> str:
    """The metadata's text with our results under one of its models, in the style of those there.

    mine: which of the results there are our earlier ones.
    early: leave the text's last line the last, since block text has no line end there: ours come
    before the last of the others, and lines taken away leave a line end.
    """
    _, models = _found(root_of(text), KEY)
    key, results = _found(models.value[at], "results")
    tokens = _tokens(text)
    if not mine:
        is_flow = models.flow_style or models.value[at].flow_style
        cuts = _filled(text, key, results, ours, end, is_flow=is_flow)
    elif results.flow_style:
        cuts = _in_flow(results, tokens, mine, ours)
    else:
        cuts = _in_block(text, _block_spans(results, tokens), mine, ours, end, early)
        if not ours and all(mine):
            colon = _colon(tokens, key)
            cuts = [*cuts, _Cut(colon, colon, " []")]
    return _cut(text, cuts)


def _cut(text: str, cuts: Sequence[_Cut]) -> str:
    for start, stop, new in sorted(cuts, reverse=True):
        text = text[:start] + new + text[stop:]
    return text


def _found(mapping: Any, key: str) -> tuple[Any, Any]:
    """A key and its value. Raises InputError where they are merged in or an alias."""
    found = pair(mapping, key)
    if found is None or found[1].start_mark.index < found[0].end_mark.index:
        raise InputError(
            f"The card's metadata has {key} by way of an anchor, and it cannot be replaced alone."
            " Write it out."
        )
    return found


class _Token(NamedTuple):
    start: int
    stop: int
    column: int
    kind: str


def _tokens(text: str) -> list[_Token]:
    """What is written, without comments and white space; tokens that only close a block are not
    written.
    """
    import yaml

    return [
        _Token(one.start_mark.index, one.end_mark.index, one.start_mark.column, one.id)
        for one in yaml.scan(text, Loader=yaml.SafeLoader)
        if one.end_mark.index > one.start_mark.index
    ]


def _colon(tokens: Sequence[_Token], key: Any) -> int:
    """Where the colon behind a key ends."""
    return next(one.stop for one in tokens if one.start >= key.end_mark.index and one.kind == ":")


def _block_spans(results: Any, tokens: Sequence[_Token]) -> list[_Span]:
    """From each entry's dash to its last character; blank lines belong to block text before them.

    The marks of an entry itself would lie at its anchor and behind the comments after it.
    """
    inside = [
        one for one in tokens if results.start_mark.index <= one.start < results.end_mark.index
    ]
    column = next(one.column for one in inside if one.kind == "-")
    spans: list[_Span] = []
    for one in inside:
        if one.kind == "-" and one.column == column:
            spans.append(_Span(one.start, one.stop))
        elif spans:
            spans[-1] = _Span(spans[-1].start, one.stop)
    return spans


def _in_block(
    text: str,
    spans: Sequence[_Span],
    mine: Sequence[bool],
    ours: Sequence[Mapping[str, Any]],
    end: str,
    early: bool,
) -> list[_Cut]:
    own = [_trimmed(text, span) for span, is_mine in zip(spans, mine, strict=True) if is_mine]
    if not ours:
        return [_without_lines(text, span, early) for span in own]
    start, stop = spans[-1]
    indent = " " * (start - _line_start(text, start))
    new = dump(ours, end).replace(end, end + indent)
    if own:
        return [_Cut(*own[0], new), *(_without_lines(text, span, early) for span in own[1:])]
    if early:
        return [_Cut(start, start, new + end + indent)]
    if text[stop - 1] in "\r\n":
        return [_Cut(stop, stop, indent + new + end)]
    stop = _line_end(text, stop).start()
    return [_Cut(stop, stop, end + indent + new)]


def _in_flow(
    results: Any, tokens: Sequence[_Token], mine: Sequence[bool], ours: Sequence[Mapping[str, Any]]
) -> list[_Cut]:
    spans = [_Span(one.start_mark.index, one.end_mark.index) for one in results.value]
    own = [span for span, is_mine in zip(spans, mine, strict=True) if is_mine]
    new = dump(ours, "\n", flow=True)[1:-1]
    if not own:
        return [_Cut(spans[-1].stop, spans[-1].stop, f", {new}")]
    cuts = [_Cut(*own[0], new)] if new else []
    for start, stop in own[1:] if new else own:
        comma = next(one for one in tokens if one.start >= stop)
        cuts.append(_Cut(start, stop, ""))
        cuts += [_Cut(comma.start, comma.stop, "")] if comma.kind == "," else []
    return cuts


def _filled(
    text: str, key: Any, value: Any, new: Sequence[Mapping[str, Any]], end: str, *, is_flow: bool
) -> list[_Cut]:
    """A list where there is nothing yet, null or brackets."""
    start, stop = value.start_mark.index, value.end_mark.index
    colon = _colon(_tokens(text), key)
    if not is_flow and text[start:stop].replace(" ", "") in ("", "~", "null", "[]"):
        indent, rest = " " * key.start_mark.column, _line_end(text, stop).start()
        lines = end + dump(new, end)
        return [_Cut(colon, stop, ""), _Cut(rest, rest, lines.replace(end, end + indent))]
    flow = dump(new, "\n", flow=True)
    if text.startswith("[", start):
        return [_Cut(start + 1, start + 1, flow[1:-1])]
    return [_Cut(colon, stop, f" {flow}")]


def _trimmed(text: str, span: _Span) -> _Span:
    return _Span(span.start, span.start + len(text[span.start : span.stop].rstrip()))


def _without_lines(text: str, span: _Span, early: bool) -> _Cut:
    """An entry's lines away, with the line end before them or the one behind."""
    start, rest = _line_start(text, span.start), _line_end(text, span.stop)
    if early:
        return _Cut(start, rest.end(), "")
    return _Cut(len(text[:start].removesuffix("\n").removesuffix("\r")), rest.start(), "")


def _line_start(text: str, at: int) -> int:
    return max(text.rfind("\n", 0, at), text.rfind("\r", 0, at)) + 1


def _line_end(text: str, at: int) -> re.Match[str]:
    found = _LINE_END.search(text, at)
    assert found is not None  # the text's end is one
    return found
