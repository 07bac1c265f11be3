"""lm-evaluation-harness' own command, answered by our engine and store: its model type "evals".

    evals lm-eval --model_args pretrained=out/my-8b --tasks hellaswag

Texts become tokens as its vLLM backend's do; equal contexts behind one another are one request.
"""

import atexit
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import fields, replace
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import Any

from evals.errors import Incomplete, InputError, nearest
from evals.generators import EngineSettings
from evals.models.prompts import Rendered
from evals.models.resolve import require_weights, resolve
from evals.plan.engine import fingerprint_of, view_of
from evals.plan.named import settings_by_name
from evals.plan.rendering import renderer_of, tokenizer_of
from evals.records import Completion, Generate, ItemId, Message, Request, Score
from evals.registry import harness_sampling
from evals.runs import engines
from evals.runs.asking import Asker
from evals.runs.progress import Progress
from evals.storage.run_folder import default_folder
from evals.storage.store import Store

_TAKEN = {"revision", "tokenizer", "out", "store", "offline", "max_model_len", "eager",
          *(one.name for one in fields(EngineSettings))} - {"enforce_eager"}  # fmt: skip
"""Of the options of `evals run`; what lm-eval asks and how is its own to say."""
_NOT_OURS = ("batch_size", "max_batch_size", "device")
"""What lm-eval gives every model: our engine sees to it by itself."""


@cache
def register() -> None:
    """Have lm-evaluation-harness know the model type "evals", in this process."""
    from lm_eval.api.model import TemplateLM
    from lm_eval.api.registry import register_model

    register_model("evals")(type("EvalsLM", (EvalsLM, TemplateLM), {}))


class EvalsLM:
    """What lm-eval's TemplateLM lacks. pretrained: as MODEL of `evals run`.  given: its options
    about model and engine by name; the store is `store`, else in `out`, by default a folder below
    results. Raises EvalsError.
    """

    def __init__(self, pretrained: str = "", **given: Any) -> None:
        super().__init__()
        if not pretrained:
            raise InputError("Name a model: --model_args pretrained=MODEL, as for `evals run`.")
        own = {name: value for name, value in given.items() if name not in _NOT_OURS}
        if idle := [name for name in own if name not in _TAKEN]:
            raise InputError(
                f"--model_args {idle[0]}: only options about model and engine are taken here; what"
                " is asked and how, lm-eval's own say (--gen_kwargs, --limit, ...)."
                f" {nearest(idle[0], sorted(_TAKEN))}"
            )
        settings = settings_by_name(pretrained, own)
        self.model = resolve(pretrained, revision=settings.revision, offline=settings.offline)
        require_weights(self.model)
        folder = settings.out or Path("results") / default_folder(self.model.name, "lm-eval")
        self.settings = replace(settings, out=folder)
        self.tokenizer = tokenizer_of(self.model, self.settings)
        if self.tokenizer is None:
            raise InputError(f"{pretrained} has no tokenizer here: add tokenizer=FOLDER.")
        view = view_of(self.model, self.settings, self.tokenizer, folder)
        self._renderer = renderer_of(self.model, self.settings, self.tokenizer, view.max_len)
        self._fingerprint = fingerprint_of(self.model, settings.engine, view.checkpoint)
        store = Store(settings.store or folder / "store.sqlite")
        self._asker = Asker(store, f"lm-eval {self._fingerprint}", Progress())
        atexit.register(self._asker.close)  # lm-eval tells no model that it is done

    def loglikelihood(
        self, requests: Sequence[Any], disable_tqdm: bool = False
    ) -> list[tuple[float, bool]]:
        """See LM."""
        asked: list[Request] = []
        for context, own in groupby((one.args for one in requests), key=lambda args: args[0]):
            contexts = ((Message("user", context),) if context else (),)
            asked.append(Score(contexts, tuple((0, rest) for _, rest in own)))
        answers = self._answers(asked)
        return [(s.logprob, s.is_greedy) for one in answers for s in one.scores or ()]

    def loglikelihood_rolling(
        self, requests: Sequence[Any], disable_tqdm: bool = False
    ) -> list[float]:
        """See LM."""
        texts = (one.args[0] for one in requests)
        answers = self._answers(Score(((),), ((0, text),), rolling=True) for text in texts)
        return [sum(s.logprob for s in one.scores or ()) for one in answers]

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
        """See LM. What is asked again and sampled is another draw."""
        asked: list[Request] = []
        drawn: Counter[Request] = Counter()
        for context, how in (one.args for one in requests):
            sampling = harness_sampling("a request", how)
            one = Generate((Message("user", context),), sampling, raw=True, by_harness=True)
            draw = replace(sampling, seed=drawn[one]) if sampling.temperature else sampling
            asked.append(replace(one, sampling=draw))
            drawn[one] += 1
        return [one.text for one in self._answers(asked)]

    def _answers(self, asked: Iterable[Request]) -> list[Completion]:
        """An answer to each, in order: out of the store, or from the engine. Raises Incomplete
        where one cannot be had.
        """
        named = [(ItemId(f"lm-eval/{at}"), "", one) for at, one in enumerate(asked)]
        rendered = self._renderer.render(named)
        found: dict[ItemId, Completion] = {}

        def land(request: Rendered, answer: Completion) -> None:
            found[request.item_id] = answer

        waiting = self._asker.ask("", [(r.key(self._fingerprint), r) for r in rendered], land)
        if waiting:
            self._asker.load(self.model.argument, self._start)
            self._asker.progress.start("generate", len(waiting))
            self._asker.stream(waiting, land, self._renderer)
            self._asker.progress.stop()
        if self._asker.failures:
            raise Incomplete(f"{next(iter(self._asker.failures.values()))}. The rest is kept.")
        return [found[item] for item, _, _ in named]

    def _start(self) -> Any:
        return engines.start_engine(self.model, self.settings)

    def apply_chat_template(
        self, chat_history: Sequence[dict[str, str]], add_generation_prompt: bool = True
    ) -> str:
        """See LM; as its vLLM backend does."""
        text: str = self.tokenizer.apply_chat_template(
            chat_history, tokenize=False, add_generation_prompt=add_generation_prompt,
            continue_final_message=not add_generation_prompt, enable_thinking=None,
        )  # fmt: skip
        return text

    @property
    def tokenizer_name(self) -> str:
        """Names its cached requests."""
        return str(self.model.argument).replace("/", "__")

    @property
    def eot_token_id(self) -> Any:
        """See TemplateLM."""
        return self.tokenizer.eos_token_id

    def tok_encode(self, string: str, add_special_tokens: Any = None, **_: Any) -> list[int]:
        """See TemplateLM."""
        (ids,) = self._renderer.scorer.encode([string], specials=add_special_tokens is not False)
        return list(ids)

    def _loglikelihood_tokens(self, requests: Any, **_: Any) -> Any:
        raise NotImplementedError("texts are scored, see loglikelihood")
