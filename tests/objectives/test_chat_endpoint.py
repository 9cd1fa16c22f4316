"""The endpoint against a server that fails in every way a server can."""

import copy
import email.utils
import importlib.util
import itertools
import json
import math
import pickle
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
from collections import Counter, defaultdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import cloudpickle
import pytest

from searchlib.errors import InvalidSettings, MissingDependency, SearchlibError
from searchlib.objectives import chat_endpoint
from searchlib.objectives.chat_endpoint import ChatEndpoint, EndpointError
from searchlib.objectives.text_model import Prompt, Sampling, checked

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("openai") is None, reason="needs openai: pip install 'searchlib[endpoint]'"
)

KEY = "sk-very/secret+0123456789"
GREEDY = Sampling(temperature=0, max_tokens=16)


def completion(text, finish_reason="stop", usage=True, **message):
    answer = {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "choices": [
            {"index": 0, "message": {"role": "assistant", "content": text, **message}, "finish_reason": finish_reason}
        ],
    }
    return answer | ({"usage": {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}} if usage else {})


def echo(body):
    return f"{body['messages'][0]['content']} ({body.get('seed')})"


def answer(handler, body):
    handler.send(200, completion(echo(body)))


def says(value, status=200, kind="application/json", headers=()):
    return lambda handler, body: handler.send(status, value, kind, headers)


def fails(status, *headers):
    return says({"error": {"message": "not today", "type": "server_error"}}, status, headers=headers)


def drop(handler, body):
    handler.connection.shutdown(socket.SHUT_RDWR)
    handler.close_connection = True


def break_off(handler, body):
    """Less comes than was announced."""
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.wfile.write(b'{"choices"')
    drop(handler, body)


def hang(handler, body):
    handler.server.closing.wait(10)
    drop(handler, body)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        server = self.server
        with server.lock:
            server.bodies.append(body)
            server.keys.append(self.headers["Authorization"])
            server.paths.append(self.path)
            plan = server.plans[body["messages"][0]["content"]]
            reply = plan.pop(0) if plan else server.otherwise
        reply(self, body)

    def send(self, status, value, kind="application/json", headers=()):
        data = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        for name, text in headers:
            self.send_header(name, text)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *args):
        pass


class FakeServer(ThreadingHTTPServer):
    """Echoes prompt and seed, unless `plans` has other replies for a prompt (each used once), or `otherwise`."""

    request_queue_size = 64

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.lock, self.closing = threading.Lock(), threading.Event()
        self.bodies, self.keys, self.paths = [], [], []
        self.plans, self.otherwise = defaultdict(list), answer
        self.url = f"http://127.0.0.1:{self.server_port}/v1"

    @property
    def asked(self):
        return [body["messages"][0]["content"] for body in self.bodies]

    def handle_error(self, request, client_address):
        pass


@pytest.fixture
def server(monkeypatch):
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with FakeServer() as fake:
        thread = threading.Thread(target=fake.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield fake
        fake.closing.set()
        fake.shutdown()
        thread.join()


@pytest.fixture
def pauses():
    return []


@pytest.fixture
def endpoint(server, pauses):
    """An endpoint that only notes how long it would wait between attempts."""

    def build(**settings):
        return ChatEndpoint("m", **{"base_url": server.url, "sleep": pauses.append, "timeout": 5.0, **settings})

    return build


def ask(model, *texts, sampling=GREEDY, seed=0):
    return model([Prompt(text) for text in texts], sampling, [seed] * len(texts))


def test_a_prompt_becomes_one_user_message_with_the_sampling_asked_for(server, endpoint):
    sampling = Sampling(temperature=0.7, top_k=20, top_p=0.9, max_tokens=64, stop=("###", "\n\n"))
    model = endpoint()
    assert checked(model, [Prompt("2+2=", prefix="1+1=2\n")], sampling, [5]) == ["1+1=2\n2+2= (5)"]
    assert server.paths == ["/v1/chat/completions"]
    assert server.bodies == [
        {
            "model": "m",
            "messages": [{"role": "user", "content": "1+1=2\n2+2="}],
            "temperature": 0.7,
            "top_p": 0.9,
            "max_tokens": 64,
            "stop": ["###", "\n\n"],
            "seed": 5,
            "top_k": 20,
        }
    ]


@pytest.mark.parametrize(
    ("settings", "sampling", "absent"),
    [
        ({"seed_field": False}, Sampling(), {"seed", "stop"}),
        ({"top_k_field": False}, Sampling(), {"top_k", "stop"}),
        ({}, Sampling(top_k=None), {"top_k", "stop"}),
        ({}, Sampling(temperature=0), {"top_k", "stop"}),
    ],
)
def test_fields_that_a_server_may_not_know_can_be_left_out(server, endpoint, settings, sampling, absent):
    ask(endpoint(**settings), "a", sampling=sampling, seed=3)
    every = {"model", "messages", "temperature", "top_p", "max_tokens", "stop", "seed", "top_k"}
    assert set(server.bodies[0]) == every - absent


def test_a_refused_top_k_names_the_switch(server, endpoint):
    server.otherwise = says({"error": {"message": "Unrecognized request argument supplied: top_k"}}, 400)
    with pytest.raises(EndpointError, match=r"HTTP 400.*Unrecognized.*top_k_field=False"):
        ask(endpoint(), "a", sampling=Sampling())


def test_an_answer_is_cut_before_a_stop_string_that_the_server_ignored(server, endpoint):
    server.otherwise = says(completion("4\n\nQuestion: 3+3=6"))
    assert ask(endpoint(), "a", sampling=Sampling(stop=("Question", "\n\n"))) == ["4"]


def test_an_answer_cut_off_by_the_token_limit_counts(server, endpoint):
    server.plans["long"] = [says(completion("and so on and", "length"))]
    server.plans["thinking"] = [says(completion(None, "length", reasoning_content="hmm"))]
    assert ask(endpoint(), "long", "thinking") == ["and so on and", ""]
    assert len(server.bodies) == 2


def test_half_a_surrogate_pair_does_not_enter_the_search(server, endpoint):
    server.otherwise = says(b'{"choices": [{"message": {"content": "ok \\ud83d"}}]}')
    assert ask(endpoint(), "a") == ["ok ?"]


def test_answers_come_in_the_order_of_the_prompts_however_late_they_are(server, endpoint):
    texts = [f"p{i}" for i in range(4)]
    all_there, last_done = threading.Barrier(4, timeout=5), threading.Event()

    def reply(handler, body):
        all_there.wait()  # passes only if four requests are under way at once
        if echo(body).startswith("p3"):
            answer(handler, body)
            last_done.set()
        else:
            assert last_done.wait(5)
            answer(handler, body)

    server.otherwise = reply
    assert ask(endpoint(concurrency=4), *texts, seed=9) == [f"p{i} (9)" for i in range(4)]


def test_no_more_requests_are_under_way_than_allowed_even_from_two_callers(server, endpoint):
    now, most, lock = [0], [0], threading.Lock()

    def reply(handler, body):
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
        time.sleep(0.02)
        with lock:
            now[0] -= 1
        answer(handler, body)

    server.otherwise = reply
    model, results = endpoint(concurrency=3), {}

    def call(name):
        results[name] = ask(model, *(f"{name}{i}" for i in range(6)))

    callers = [threading.Thread(target=call, args=(name,)) for name in "ab"]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert results == {name: [f"{name}{i} (0)" for i in range(6)] for name in "ab"}
    assert most[0] == 3
    assert model.requests == 12


PASSING = {
    "500": fails(500),
    "502 with a page": says(b"<html>bad gateway</html>", 502, "text/html"),
    "503": fails(503),
    "408": fails(408),
    "409": fails(409),
    "429": fails(429),
    "dropped connection": drop,
    "broken off": break_off,
    "invalid JSON": says(b'{"choices": [', 200),
    "a page instead": says(b"<html>log in</html>", 200, "text/html"),
    "nothing": says(b"", 200),
    "no object": says([1, 2], 200),
    "no choices": says({"error": {"message": "overloaded"}}, 200),
    "empty choices": says({"choices": []}, 200),
    "null content": says(completion(None, "tool_calls", usage=False), 200),
    "content of another type": says(completion(["a"], usage=False), 200),
}


@pytest.mark.parametrize("failure", PASSING.values(), ids=PASSING)
def test_a_failure_that_passes_is_tried_again(server, endpoint, pauses, failure):
    server.plans["a"] = [failure]
    model = endpoint()
    assert ask(model, "a") == ["a (0)"]
    assert server.asked == ["a", "a"]
    assert (model.requests, model.retried) == (2, 1)
    assert (model.prompt_tokens, model.completion_tokens) == (7, 3)
    assert len(pauses) == 1
    assert 0.25 <= pauses[0] <= 0.5


SAID = {
    "500": r"HTTP 500 .*not today",
    "dropped connection": r"no connection",
    "invalid JSON": r"application/json\) that is not JSON '{\"choices\": \['",
    "a page instead": r"text/html\) that is not JSON '<html>log in</html>'",
    "no choices": r"without choices .*overloaded",
    "empty choices": r"without choices '{\"choices\": \[\]}'",
    "null content": r"no text .*\"content\": null.*tool_calls",
    "content of another type": r"no text .*\"content\": \[\"a\"\]",
}


@pytest.mark.parametrize("name", SAID)
def test_a_failure_that_lasts_is_an_error_that_says_what_came(server, endpoint, pauses, name):
    server.otherwise = PASSING[name]
    with pytest.raises(EndpointError, match=SAID[name]) as caught:
        ask(endpoint(retries=2), "a")
    assert "3 attempts" in str(caught.value)
    assert server.url in str(caught.value)
    assert server.asked == ["a"] * 3
    assert len(pauses) == 2
    assert isinstance(caught.value, SearchlibError)
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


def test_a_server_that_hangs_is_given_up_and_tried_again(server, endpoint):
    server.plans["a"] = [hang]
    assert ask(endpoint(timeout=0.2), "a") == ["a (0)"]
    server.otherwise = hang
    with pytest.raises(EndpointError, match=r"1 attempt; .* no answer within 0\.1 s"):
        ask(endpoint(timeout=0.1, retries=0), "a")


def test_where_nothing_listens_the_error_says_so(endpoint):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(EndpointError, match=rf"127\.0\.0\.1:{port}.*no connection.*refused"):
        ask(endpoint(base_url=f"http://127.0.0.1:{port}/v1", retries=1), "a")


@pytest.mark.parametrize(
    ("status", "advice"),
    [
        (400, "seed_field=False"),
        (401, "OPENAI_API_KEY"),
        (403, "permissions"),
        (404, "base_url"),
        (413, "HTTP 413"),
        (422, "seed_field"),
    ],
)
def test_a_refusal_is_final_and_says_what_to_do(server, endpoint, pauses, status, advice):
    server.otherwise = fails(status)
    with pytest.raises(EndpointError, match=advice) as caught:
        ask(endpoint(), "a")
    assert "not today" in str(caught.value)
    assert server.asked == ["a"]
    assert pauses == []


def test_pauses_double_and_are_the_same_in_every_run(server, endpoint, pauses):
    runs = []
    for _ in range(2):
        server.plans["a"] = [PASSING["500"]] * 9
        ask(endpoint(retries=9), "a")
        runs.append(tuple(pauses))
        pauses.clear()
    longest = [0.5, 1, 2, 4, 8, 16, 30, 30, 30]
    assert all(most / 2 <= pause <= most for pause, most in zip(runs[0], longest, strict=True))
    assert runs[0] == runs[1]
    assert len({pause / most for pause, most in zip(runs[0], longest, strict=True)}) == 9


def test_prompts_that_fail_together_do_not_come_back_together(server, endpoint, pauses):
    texts = [f"p{i}" for i in range(6)]
    for text in texts:
        server.plans[text] = [PASSING["503"]]
    ask(endpoint(), *texts)
    assert len(set(pauses)) == 6


@pytest.mark.parametrize("status", [429, 503])
def test_the_pause_is_at_least_what_the_server_asks_for(server, endpoint, pauses, status):
    server.plans["a"] = [fails(status, ("Retry-After", "7"))]
    assert ask(endpoint(), "a") == ["a (0)"]
    assert pauses == [7.0]


def test_retry_after_may_be_a_date(server, endpoint, pauses):
    date = email.utils.formatdate(time.time() + 20, usegmt=True)
    server.plans["a"] = [fails(429, ("Retry-After", date))]
    ask(endpoint(), "a")
    assert len(pauses) == 1
    assert 17 < pauses[0] <= 20


@pytest.mark.parametrize("nonsense", ["soon", "nan", "-5", "Wed, 99 Foo 2020"])
def test_retry_after_that_says_nothing_is_ignored(server, endpoint, pauses, nonsense):
    server.plans["a"] = [fails(429, ("Retry-After", nonsense))]
    ask(endpoint(), "a")
    assert len(pauses) == 1
    assert 0.25 <= pauses[0] <= 0.5


@pytest.mark.parametrize("pause", ["86400", "inf"])
def test_a_pause_of_a_day_is_not_waited_for(server, endpoint, pauses, pause):
    server.otherwise = fails(429, ("Retry-After", pause))
    with pytest.raises(EndpointError, match=f"HTTP 429.*asked again after {pause}"):
        ask(endpoint(), "a")
    assert pauses == []
    assert server.asked == ["a"]


def test_usage_is_counted_where_it_is_reported(server, endpoint):
    server.plans["silent"] = [says(completion("x", usage=False))]
    server.plans["null"] = [says(completion("y", usage=False) | {"usage": None})]
    model = endpoint()
    assert ask(model, "silent", "null", "b", "c") == ["x", "y", "b (0)", "c (0)"]
    assert (model.requests, model.retried, model.prompt_tokens, model.completion_tokens) == (4, 0, 14, 6)


def test_a_question_is_asked_once(server, endpoint):
    model = endpoint()
    assert ask(model, "a", "b", "a") == ["a (0)", "b (0)", "a (0)"]
    assert Counter(server.asked) == {"a": 1, "b": 1}
    assert model([Prompt("", prefix="a")], GREEDY, [0]) == ["a (0)"]
    assert len(server.asked) == 2
    assert ask(model, "a", seed=1) == ["a (1)"]
    assert ask(model, "a", sampling=Sampling(temperature=0, max_tokens=17)) == ["a (0)"]
    assert len(server.asked) == 4
    assert model([], GREEDY, []) == []


def test_answers_of_a_call_that_failed_are_not_asked_for_again(server, endpoint):
    server.plans["c"] = [fails(400)]
    model = endpoint(concurrency=1)
    with pytest.raises(EndpointError):
        ask(model, "a", "b", "c", "d")
    assert server.asked == ["a", "b", "c"]
    assert ask(model, "a", "b", "c", "d") == ["a (0)", "b (0)", "c (0)", "d (0)"]
    assert server.asked == ["a", "b", "c", "c", "d"]


def test_answers_under_way_when_another_fails_are_kept(server, endpoint):
    both, failed = threading.Barrier(2, timeout=5), threading.Event()

    def late(handler, body):
        both.wait()
        assert failed.wait(5)
        time.sleep(0.05)
        answer(handler, body)

    def refuse(handler, body):
        both.wait()
        fails(404)(handler, body)
        failed.set()

    server.plans["late"], server.plans["bad"] = [late], [refuse]
    model = endpoint(concurrency=2)
    with pytest.raises(EndpointError, match="404"):
        ask(model, "late", "bad")
    assert ask(model, "late") == ["late (0)"]
    assert Counter(server.asked) == {"late": 1, "bad": 1}


def test_a_failure_ends_the_pauses_of_its_neighbors(server, endpoint):
    paused = threading.Event()

    def busy(handler, body):
        fails(503, ("Retry-After", "100"))(handler, body)
        paused.set()

    def refuse(handler, body):
        assert paused.wait(5)
        time.sleep(0.05)
        fails(401)(handler, body)

    server.plans["busy"], server.plans["bad"] = [busy], [refuse]
    start = time.monotonic()
    with pytest.raises(EndpointError, match="401"):
        ask(endpoint(sleep=None, concurrency=2), "busy", "bad")
    assert time.monotonic() - start < 5
    assert Counter(server.asked) == {"busy": 1, "bad": 1}


def test_ctrl_c_does_not_wait_for_the_server(server, endpoint):
    def interrupt(handler, body):
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
        hang(handler, body)

    server.plans["b"] = [interrupt]
    server.plans["c"] = [hang]
    model = endpoint(concurrency=3)
    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        ask(model, "a", "b", "c")
    assert time.monotonic() - start < 2


def test_only_the_latest_answers_are_remembered(server, endpoint, monkeypatch):
    monkeypatch.setattr(chat_endpoint, "_REMEMBERED", 3)
    model = endpoint(concurrency=1)
    assert ask(model, *"abcde") == [f"{text} (0)" for text in "abcde"]
    server.bodies.clear()
    ask(model, *"cde")
    assert server.asked == []
    ask(model, "b")
    assert server.asked == ["b"]


class FakeClock:
    """Time that passes only by sleeping, in any number of threads."""

    def __init__(self):
        self.now, self.lock, self.read = 1000.0, threading.Lock(), {}

    def __call__(self):
        self.read[threading.get_ident()] = self.now
        return self.read[threading.get_ident()]

    def sleep(self, seconds):
        with self.lock:
            self.now += seconds


@pytest.mark.parametrize("concurrency", [1, 6])
def test_no_minute_has_more_requests_than_allowed(server, endpoint, concurrency, monkeypatch):
    clock, starts = FakeClock(), []

    def reply(handler, body):
        if len(server.bodies) % 4 == 0:
            clock.sleep(13)  # so that minutes do not begin at the same second
        answer(handler, body)

    server.otherwise = reply
    model = endpoint(requests_per_minute=5, concurrency=concurrency, clock=clock, sleep=clock.sleep)
    wait = model._pace.wait

    def noted(*args):
        wait(*args)
        starts.append(clock.read[threading.get_ident()])  # fake time may pass before the server can note it

    monkeypatch.setattr(model._pace, "wait", noted)
    server.plans["p6"] = [fails(500)]
    assert len(ask(model, *(f"p{i}" for i in range(12)))) == 12
    ask(model, *(f"q{i}" for i in range(11)))
    assert len(starts) == 24 == len(server.bodies)  # the repeated one is a request, too
    assert max(sum(start <= other < start + 60 for other in starts) for start in starts) == 5
    assert len(set(starts)) > 5


def test_the_rate_limit_waits_no_longer_than_it_must(server, endpoint):
    clock, times = FakeClock(), []

    def reply(handler, body):
        times.append(clock() - 1000)
        answer(handler, body)

    server.otherwise = reply
    model = endpoint(requests_per_minute=3, concurrency=1, clock=clock, sleep=clock.sleep)
    ask(model, *(f"p{i}" for i in range(8)))
    assert times == [0, 0, 0, 60, 60, 60, 120, 120]


def secrets_in(text):
    """Any ten characters of the key in a row."""
    return [part for part in (KEY[i : i + 10] for i in range(len(KEY) - 9)) if part in text]


def test_the_key_is_sent_but_never_shown(server, endpoint, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "another")
    model = endpoint(api_key=KEY + "\n", retries=0)
    ask(model, "a")
    assert server.keys == [f"Bearer {KEY}"]
    texts = [repr(model), str(model), json.dumps(dict(model.fingerprint()))]
    padding = "x" * (300 - len(KEY) // 2 - len('{"error": {"message": "'))  # the key lies where the message is cut
    for said in (f"wrong key {KEY}", padding + KEY, json.dumps({"quoted": KEY}).replace("/", "\\/")):
        for status in (401, 500, 200):
            server.otherwise = says({"error": {"message": said}}, status)
            with pytest.raises(EndpointError) as caught:
                ask(model, said[:20])
            texts += [str(caught.value), "".join(traceback.format_exception(caught.value))]
    assert secrets_in(f"a {KEY} b")
    assert [secrets_in(text) for text in texts] == [[]] * len(texts)


def test_a_pickled_endpoint_is_a_recipe_without_its_key_that_reads_the_environment(server, monkeypatch):
    model = ChatEndpoint("m", base_url=server.url, api_key=KEY, retries=2, requests_per_minute=600, top_k_field=False)
    ask(model, "a")
    for dump in (pickle.dumps, cloudpickle.dumps):
        assert secrets_in(dump(model).decode("latin-1")) == []
    monkeypatch.setenv("OPENAI_API_KEY", "of-the-worker")
    for copied in (pickle.loads(pickle.dumps(model)), copy.deepcopy(model)):
        assert repr(copied) == repr(model)
        assert eval(repr(model), {"ChatEndpoint": ChatEndpoint}).fingerprint() == copied.fingerprint()
        assert (copied.requests, copied.prompt_tokens) == (0, 0)
        assert ask(copied, "a") == ["a (0)"]
        assert server.keys[-1] == "Bearer of-the-worker"


def test_the_key_is_looked_up_at_every_call(server, endpoint, monkeypatch):
    model = endpoint()
    for i, key in enumerate(("first", "second", "")):
        monkeypatch.setenv("OPENAI_API_KEY", key)
        ask(model, f"p{i}")
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    ask(endpoint(api_key=""), "without")
    assert server.keys == ["Bearer first", "Bearer second", "Bearer none", "Bearer none"]


def test_openai_is_not_asked_without_a_key(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(EndpointError, match="api_key=… or in the environment variable OPENAI_API_KEY"):
        ask(ChatEndpoint("gpt-4o"), "a")


def test_a_key_that_no_header_can_hold_is_not_shown_either(server, endpoint):
    with pytest.raises(EndpointError, match="not shown here") as caught:
        ask(endpoint(api_key=KEY[:12] + "\n" + KEY[12:]), "a")
    assert secrets_in("".join(traceback.format_exception(caught.value))) == []
    assert server.bodies == []


@pytest.mark.parametrize(
    "settings",
    [
        {"model": ""},
        {"timeout": 0},
        {"timeout": math.inf},
        {"retries": -1},
        {"concurrency": 0},
        {"requests_per_minute": 0},
        {"requests_per_minute": 2.5},
        {"base_url": "localhost:8000"},
        {"base_url": "ftp://localhost/v1"},
        {"base_url": 8000},
    ],
    ids=str,
)
def test_settings_that_cannot_be_meant_are_refused_with_their_value(settings):
    ((name, value),) = settings.items()
    with pytest.raises(InvalidSettings, match=name) as caught:
        ChatEndpoint(**{"model": "m", **settings})
    assert str(value) in str(caught.value)


@pytest.mark.parametrize("url", [f"http://me:{KEY}@localhost:1/v1", f"https://host/v1?key={KEY}"])
def test_an_address_must_not_hold_a_secret(url):
    with pytest.raises(InvalidSettings, match="without user, password or query") as caught:
        ChatEndpoint("m", base_url=url)
    assert secrets_in(str(caught.value)) == []


@pytest.mark.parametrize("seeds", [[1], [1, 2, 3], [0, -1], [0, 2**63]])
def test_seeds_that_cannot_be_sent_are_refused(endpoint, server, seeds):
    with pytest.raises(InvalidSettings, match="seed"):
        endpoint()([Prompt("a"), Prompt("b")], GREEDY, seeds)
    assert server.bodies == []


def test_where_the_client_library_is_missing_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(MissingDependency, match=r"^ChatEndpoint needs openai: pip install 'searchlib\[endpoint\]'$"):
        ChatEndpoint("m")


def test_the_client_library_is_not_imported_before_it_is_needed():
    code = (
        "import sys, searchlib.objectives.chat_endpoint as c; print('openai' in sys.modules, c.ChatEndpoint.__name__)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "ChatEndpoint"]


def test_many_prompts_under_random_failures_all_come_back(server, endpoint):
    failures = itertools.cycle([PASSING["500"], PASSING["dropped connection"], PASSING["empty choices"]])
    texts = [f"p{i}" for i in range(60)]
    for i, text in enumerate(texts):
        server.plans[text] = [next(failures) for _ in range(i % 4)]
    model = endpoint()
    assert model([Prompt(text) for text in texts], GREEDY, range(60)) == [f"p{i} ({i})" for i in range(60)]
    assert model.retried == sum(i % 4 for i in range(60)) == model.requests - 60
