"""A text model behind an OpenAI-compatible chat endpoint: vLLM, llama.cpp's server, SGLang, OpenAI itself …

Learning by Teaching (arXiv 2406.14629) uses teachers that only a server offers (GPT-4o, GPT-3.5) beside open ones;
this is how a search reaches them. Questions go out as single user messages, several at a time, and every failure that
may pass is tried again: a day-long search should not end because a server was restarted.

What a server computes is the server's affair. Whether it honors a seed, and which penalties or ``min_p`` it adds by
default, is for its documentation to say; OpenAI calls seeds "best effort". An endpoint object asks for every (prompt,
sampling, seed) once and remembers the answer, so at least within one process a completion is decided by these.
"""

from __future__ import annotations

import functools
import hashlib
import importlib
import json
import math
import os
import random
import re
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any, final

from searchlib.errors import InvalidSettings, MissingDependency, SearchlibError
from searchlib.objectives.text_model import Prompt, Sampling, before_stop

__all__ = ["ChatEndpoint", "EndpointError"]

_OPENAI_HOST = "https://api.openai.com/"
_KEY_VARIABLE = "OPENAI_API_KEY"
_NO_KEY = "none"  # the client insists on one, servers of one's own ignore it

_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 30.0  # seconds between attempts, doubled from the first to the longest
_PATIENCE = 600.0  # a server that wants a longer pause than this has a quota, not a hiccup
_SETTINGS = ("base_url", "timeout", "retries", "requests_per_minute", "concurrency", "seed_field", "top_k_field")
_REMEMBERED = 100_000
_SHOWN = 300  # characters of a server's words in a message

_PASSING = frozenset({408, 409, 429})  # beside everything from 500 up
_ADVICE = {
    400: "check the model and the sampling; for a server that does not know top_k or seed (OpenAI has no top_k) use "
    "top_k_field=False or seed_field=False",
    401: f"give a valid key as api_key=… or in the environment variable {_KEY_VARIABLE}",
    403: "the key is known but may not do this: check its permissions and the model",
    404: "check model and base_url, which usually ends in /v1",
}
_ADVICE[422] = _ADVICE[400]

#: What an answer belongs to: a digest of the prompt, the sampling and the seed.
_Cell = tuple[bytes, Sampling, int]


@final
class EndpointError(SearchlibError, RuntimeError):
    """An endpoint refused a request, or gave no usable answer often enough; the message names the last cause."""


@final
@dataclass(frozen=True)
class _Failure:
    what: str
    passing: bool  # whether trying again may help
    said: str = ""  # by the server; whatever it is, so to be shown with care
    pause: float = 0.0  # seconds that the server wants to be left alone
    advice: str = ""


@final
class _Pace:
    """At most ``limit`` grants within any 60 seconds, over all threads; None is no limit."""

    def __init__(self, limit: int | None, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._limit = limit
        self._granted: deque[float] = deque(maxlen=limit or 0)
        self._lock = threading.Lock()

    def wait(self, sleep: Callable[[float], object], over: threading.Event) -> None:
        # Waiting under the lock makes the time of a grant the true one; a slot reserved ahead could be used late, and
        # crowd the slots after it.
        with self._lock:
            while not over.is_set() and (left := self._left()) > 0:
                sleep(left)
            if not over.is_set():
                self._granted.append(self._clock())

    def _left(self) -> float:
        if self._limit is None or len(self._granted) < self._limit:
            return 0.0
        return self._granted[0] + 60 - self._clock()


@final
class ChatEndpoint:
    """A :class:`~searchlib.objectives.text_model.TextModel` over an OpenAI-compatible chat endpoint.

    A prompt becomes one user message, its prefix and text joined (servers that cache prefixes find common ones by
    themselves). Temperature, top-p, the token limit, stop strings and the seed are passed on. An answer cut off by the
    token limit counts like any other.

    Timeouts, broken connections, HTTP 408, 409, 429 and 5xx, and answers without a completion are tried again after a
    pause that doubles from half a second to 30, somewhat randomized, and is never shorter than the server's
    ``Retry-After``. The latest 100,000 answers are remembered, those of a call that failed included: calling again
    asks only for what is missing.

    The key is looked up when the endpoint is called. It is in no message, ``repr`` or fingerprint, and it is not
    pickled: copies and worker processes find theirs in the environment. A pickled endpoint is a recipe, which starts
    with nothing remembered and counters at 0, and each process keeps to ``requests_per_minute`` on its own.

    Attributes:
        requests: HTTP requests sent so far, repeated ones included.
        retried: how many of them were repeated ones.
        prompt_tokens, completion_tokens: sums of what the server reported; answers without a report count 0.

    Arguments:
        model: the name under which the server knows the model.
        base_url: where the server is, such as ``http://localhost:8000/v1``; None means OpenAI (the client's
            environment variable for it is not read, so that the endpoint is what the program says).
        api_key: the key; None means the environment variable ``OPENAI_API_KEY``. Either is sent to ``base_url``.
            An empty string, or nothing in the environment, means none, which a server of your own may accept.
        timeout: seconds to wait for a connection, and for the answer. Servers answer when a completion is
            done, so this must cover ``max_tokens`` at full load.
        retries: how often a request is repeated before the call fails.
        requests_per_minute: no more requests than this start within any 60 seconds; None is no limit.
        concurrency: how many requests are under way at one time.
        seed_field: whether to send the seed, which some servers refuse. Without it, repetitions differ by chance.
        top_k_field: whether to send ``top_k`` where the sampling has one (and is not greedy). It is not in OpenAI's
            interface, so OpenAI refuses it, but vLLM, SGLang and llama.cpp take it. Left out, the server's own default
            holds, which is another distribution than was asked for: hence a choice, not a guess.
        clock: a monotonic clock in seconds, for the rate limit.
        sleep: how to wait for so many seconds; the default is cut short when the call has failed meanwhile.

    Raises:
        InvalidSettings: an argument out of its range.
        MissingDependency: the ``openai`` package is not installed.

    Example:
        >>> student = ChatEndpoint("llama-3-8b", base_url="http://localhost:8000/v1", requests_per_minute=600)
        >>> student([Prompt("2+2=")], Sampling(temperature=0), seeds=[0])  # doctest: +SKIP
        ['4']
        >>> student.requests, student.fingerprint()["model"]
        (0, 'llama-3-8b')
    """

    def __init__(
        self,
        model: str,
        *,
        base_url: str | None = None,
        api_key: str | None = None,
        timeout: float = 60.0,
        retries: int = 5,
        requests_per_minute: int | None = None,
        concurrency: int = 8,
        seed_field: bool = True,
        top_k_field: bool = True,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] | None = None,
    ) -> None:
        if not isinstance(model, str) or not model:
            raise InvalidSettings(f"model must be the name of a model, but is {model!r}")
        if not 0 < timeout < math.inf:
            raise InvalidSettings(f"timeout must be a positive number of seconds, but is {timeout!r}")
        if retries < 0 or concurrency < 1:
            raise InvalidSettings(
                f"retries must be at least 0 and concurrency at least 1, but they are {retries!r} and {concurrency!r}"
            )
        if requests_per_minute is not None and (requests_per_minute < 1 or requests_per_minute % 1):
            raise InvalidSettings(
                f"requests_per_minute must be a whole number from 1 up, or None, but is {requests_per_minute!r}"
            )
        self._openai = _client_library()
        self.model = model
        self.base_url = _OPENAI_HOST + "v1" if base_url is None else _checked_url(base_url)
        self.timeout = timeout
        self.retries = retries
        self.requests_per_minute = None if requests_per_minute is None else int(requests_per_minute)
        self.concurrency = concurrency
        self.seed_field = seed_field
        self.top_k_field = top_k_field
        self.requests = self.retried = self.prompt_tokens = self.completion_tokens = 0
        self._api_key = api_key
        self._clock = clock
        self._sleep = sleep
        self._pace = _Pace(self.requests_per_minute, clock)
        self._slots = threading.BoundedSemaphore(concurrency)
        self._lock = threading.Lock()  # guards the answers and the counters
        self._answers: dict[_Cell, str] = {}

    def __call__(self, prompts: Sequence[Prompt], sampling: Sampling, seeds: Sequence[int]) -> list[str]:
        """One completion per prompt, in the order of the prompts.

        Raises:
            InvalidSettings: as many seeds as prompts were not given, or one outside 0 … 2⁶³-1.
            EndpointError: no key, a request that was refused, or one without an answer after all repetitions.
        """
        if len(seeds) != len(prompts):
            raise InvalidSettings(f"there must be one seed per prompt, but there are {len(seeds)} for {len(prompts)}")
        cells = [_cell(prompt, sampling, seed) for prompt, seed in zip(prompts, seeds, strict=True)]
        with self._lock:
            found = {cell: self._answers[cell] for cell in cells if cell in self._answers}
        missing = {cell: prompt for cell, prompt in zip(cells, prompts, strict=True) if cell not in found}
        if missing:
            found |= self._fetched(missing)
            self._forget_oldest()
        return [found[cell] for cell in cells]

    def fingerprint(self) -> Mapping[str, Any]:
        """JSON values that say which model this is; not where it runs, so that a search may follow it elsewhere."""
        names = ("model", "seed_field", "top_k_field")
        return {"text_model": type(self).__name__, **{name: getattr(self, name) for name in names}}

    def __repr__(self) -> str:
        settings = ", ".join(f"{name}={value!r}" for name, value in self._settings().items())
        return f"{type(self).__name__}({self.model!r}, {settings})"

    def __reduce__(self) -> tuple[Any, ...]:
        recipe = functools.partial(type(self), self.model, clock=self._clock, sleep=self._sleep, **self._settings())
        return (recipe, ())

    def _settings(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in _SETTINGS}

    def _fetched(self, missing: Mapping[_Cell, Prompt]) -> dict[_Cell, str]:
        over = threading.Event()
        pool = ThreadPoolExecutor(min(self.concurrency, len(missing)), thread_name_prefix="ChatEndpoint")
        connection = {"base_url": self.base_url, "api_key": self._key(), "timeout": self.timeout, "max_retries": 0}
        with self._openai.OpenAI(**connection) as client:
            asking = {pool.submit(self._complete, client, cell, prompt, over): cell for cell, prompt in missing.items()}
            try:
                answers = {asking[done]: done.result() for done in as_completed(asking)}
            except BaseException as error:
                over.set()
                # What is under way may still bring answers that are worth keeping; Ctrl-C does not wait for them.
                pool.shutdown(wait=isinstance(error, Exception), cancel_futures=True)
                raise
        pool.shutdown()
        return {cell: text for cell, text in answers.items() if text is not None}

    def _complete(self, client: Any, cell: _Cell, prompt: Prompt, over: threading.Event) -> str | None:
        """The completion; None where another request of the call has failed, which raises there."""
        sleep = self._sleep or over.wait
        request = self._request(prompt, *cell[1:])
        attempt = 0
        while isinstance(outcome := self._attempt(client, request, sleep, over, repeated=attempt > 0), _Failure):
            if not outcome.passing or attempt == self.retries:
                over.set()
                raise self._error(outcome, client.api_key)
            sleep(max(outcome.pause, _pause(cell, attempt)))
            attempt += 1
        return None if outcome is None else self._remember(cell, before_stop(outcome, cell[1].stop))

    def _attempt(
        self,
        client: Any,
        request: dict[str, Any],
        sleep: Callable[[float], object],
        over: threading.Event,
        *,
        repeated: bool,
    ) -> str | _Failure | None:
        with self._slots:
            self._pace.wait(sleep, over)
            if over.is_set():
                return None
            with self._lock:
                self.requests += 1
                self.retried += repeated
            try:
                response = client.chat.completions.with_raw_response.create(**request)
            except self._openai.APIStatusError as error:
                return _refusal(error.response)
            except self._openai.APITimeoutError:
                return _Failure(f"no answer within {self.timeout:g} s", passing=True)
            except self._openai.APIConnectionError as error:
                reason = error.__cause__ or error
                return _Failure(f"no connection, {type(reason).__name__}", passing=True, said=str(reason))
        return self._read(response)

    def _request(self, prompt: Prompt, sampling: Sampling, seed: int) -> dict[str, Any]:
        request: dict[str, Any] = {
            "model": self.model,
            "messages": [{"role": "user", "content": prompt.full}],
            "temperature": float(sampling.temperature),
            "top_p": float(sampling.top_p),
            "max_tokens": int(sampling.max_tokens),
        }
        if sampling.stop:
            request["stop"] = list(sampling.stop)
        if self.seed_field:
            request["seed"] = seed
        if self.top_k_field and sampling.top_k is not None and sampling.temperature > 0:
            request["extra_body"] = {"top_k": int(sampling.top_k)}
        return request

    def _read(self, response: Any) -> str | _Failure:
        try:
            answer = json.loads(response.content)
        except (ValueError, RecursionError):
            kind = response.headers.get("content-type", "no content type")
            return _Failure(f"an answer ({kind}) that is not JSON", passing=True, said=response.text)
        self._count_tokens(answer)
        match answer:
            case {"choices": [{"message": {"content": str(text)}}, *_]}:
                return text.encode("utf-8", "replace").decode()  # half a surrogate pair could not be sent or stored
            case {"choices": [{"message": {"content": None}, "finish_reason": "length"}, *_]}:
                return ""  # a reasoning model that was cut off before it came to its answer
            case {"choices": [choice, *_]}:
                return _Failure("an answer whose choice has no text", passing=True, said=json.dumps(choice))
        return _Failure("an answer without choices", passing=True, said=json.dumps(answer))

    def _count_tokens(self, answer: Any) -> None:
        match answer:
            case {"usage": {"prompt_tokens": int(prompt), "completion_tokens": int(completion)}}:
                with self._lock:
                    self.prompt_tokens += prompt
                    self.completion_tokens += completion

    def _remember(self, cell: _Cell, text: str) -> str:
        with self._lock:
            self._answers[cell] = text
        return text

    def _forget_oldest(self) -> None:
        with self._lock:
            while len(self._answers) > _REMEMBERED:
                del self._answers[next(iter(self._answers))]

    def _key(self) -> str:
        key = (os.environ.get(_KEY_VARIABLE, "") if self._api_key is None else self._api_key).strip()
        if not key and self.base_url.startswith(_OPENAI_HOST):
            raise EndpointError(f"OpenAI wants a key: {_ADVICE[401]}; for a server of your own set base_url=…")
        if not (key.isascii() and key.isprintable()):
            raise EndpointError(f"the key has characters that no key has (it is not shown here): {_ADVICE[401]}")
        return key or _NO_KEY

    def _error(self, failure: _Failure, key: str) -> EndpointError:
        who = f"model {self.model!r} at {self.base_url}"
        cause = failure.what + (f" {_shown(failure.said, key)}" if failure.said else "")
        if not failure.passing:
            return EndpointError(f"{who} did not take a request: {cause}; {failure.advice}".removesuffix("; "))
        attempts = f"{self.retries + 1} attempts" if self.retries else "1 attempt"
        return EndpointError(
            f"{who} gave no completion in {attempts}; the last one brought {cause}; "
            "answers that did come are kept, so calling again asks only for the others"
        )


def _client_library() -> Any:
    try:
        return importlib.import_module("openai")
    except ImportError as error:
        raise MissingDependency("ChatEndpoint needs openai: pip install 'searchlib[endpoint]'") from error


def _checked_url(url: str) -> str:
    if not isinstance(url, str) or not re.fullmatch(r"https?://[^/@?#\s]+(/[^@?#\s]*)?", url):
        shown = "it is not shown, as it may hold a secret" if re.search("[@?]", str(url)) else f"but is {url!r:.120}"
        raise InvalidSettings(
            f"base_url must be an address such as http://localhost:8000/v1, without user, password or query; {shown}"
        )
    return url


def _cell(prompt: Prompt, sampling: Sampling, seed: int) -> _Cell:
    seed = int(seed)
    if not 0 <= seed < 2**63:
        raise InvalidSettings(f"a seed must be in 0 … 2⁶³-1, as servers take no others, but is {seed}")
    return hashlib.blake2b(prompt.full.encode("utf-8", "surrogatepass"), digest_size=16).digest(), sampling, seed


def _pause(cell: _Cell, attempt: int) -> float:
    """The pause before a repetition; its random part is decided by the cell, so that no two have the same."""
    spread = random.Random(f"{cell[0].hex()} {cell[2]} {attempt}").uniform(0.5, 1.0)
    return min(_FIRST_PAUSE * 2.0 ** min(attempt, 10), _LONGEST_PAUSE) * spread


def _refusal(response: Any) -> _Failure:
    status, pause = int(response.status_code), _retry_after(response.headers)
    passing = status in _PASSING or status >= 500
    what, advice = f"HTTP {status}", _ADVICE.get(status, "")
    if passing and pause > _PATIENCE:
        passing, advice = False, f"it wants to be asked again after {pause:.0f} s: a quota is used up?"
    return _Failure(what, passing, response.text, pause, advice)


def _shown(said: str, key: str) -> str:
    """What a server said, short, on one line and without the key, should it have echoed that."""
    if key != _NO_KEY:  # before it is cut short, which could leave a part of the key; JSON may put backslashes anywhere
        said = re.sub(r"\\*".join(map(re.escape, key)), "***", said)
    return repr(said) if len(said) <= _SHOWN else f"{said[:_SHOWN]!r}…"


def _retry_after(headers: Mapping[str, str]) -> float:
    """Seconds that the server asks to wait (RFC 9110, section 10.2.3: a number or a date); 0 where it does not."""
    value = headers.get("retry-after", "")
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, TypeError):
        return 0.0
