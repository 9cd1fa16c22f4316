import contextlib
import http.client
import json
import signal
import socket
import subprocess
import sys
import time

import pytest

from searchlib import RandomSearch, Search, search
from searchlib.errors import InvalidSettings, StudyDamaged
from searchlib.report.watch import StudyServer, watch
from searchlib.spaces import Binary

pytestmark = pytest.mark.usefixtures("without_pictures")
SETTINGS = {"space": Binary(6), "budget": 40, "batch_size": 20}


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    path = tmp_path_factory.mktemp("watched") / "ones.db"
    search(sum, RandomSearch(), study=path, **SETTINGS)
    return path


def ask(server, path="/", *, host=None, method="GET"):
    """What the server answers a client that says whatever it likes."""
    _, port = server.url.removeprefix("http://").rstrip("/").split(":")
    connection = http.client.HTTPConnection("127.0.0.1", int(port), timeout=20)
    with contextlib.closing(connection):
        connection.putrequest(method, path, skip_host=True)
        for value in [f"127.0.0.1:{port}"] if host is None else host:
            connection.putheader("Host", value.replace("PORT", port))
        connection.endheaders()
        answer = connection.getresponse()
        return answer.status, dict(answer.getheaders()), answer.read().decode()


def test_the_page_is_served_with_headers_that_keep_it_to_itself(study):
    with StudyServer(study) as server:
        status, headers, text = ask(server)
        assert status == 200
        assert text.startswith("<!doctype html>")
        assert "connect-src &#x27;self&#x27;" in text
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
        assert headers["Cache-Control"] == "no-store"
        assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
        version = json.loads(ask(server, "/status.json")[2])["version"]
        assert f'data-version="{version}"' in text
        assert ask(server, "/", method="HEAD")[::2] == (200, "")


@pytest.mark.parametrize("host", [["evil.example"], ["evil.example:PORT"], ["127.0.0.1"], ["127.0.0.1.evil.com:PORT"],
                                  [], [""], ["localhost:1"], ["0.0.0.0:PORT"]])  # fmt: skip
def test_another_host_is_refused_without_a_word_of_the_study(study, host):
    with StudyServer(study) as server:
        for path in ("/", "/status.json"):
            status, _, text = ask(server, path, host=host)
            assert status == 403
            assert len(text) < 60
        assert ask(server, "/status.json", host=["localhost:PORT"])[0] == 200


@pytest.mark.parametrize("path", ["/../ones.db", "/ones.db", "//evil.example/", "/%2e%2e/", "http://evil.example/"])
def test_there_is_nothing_but_the_page(study, path):
    with StudyServer(study) as server:
        assert ask(server, path)[0] == 404
        for method in ("POST", "PUT", "DELETE"):
            assert ask(server, "/", method=method)[0] == 501


def test_it_listens_on_the_loopback_interface_only(study):
    with StudyServer(study) as server:
        host, port = server.url.removeprefix("http://").rstrip("/").split(":")
        assert host == "127.0.0.1"
        others = {info[4][0] for info in socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET)}
        for other in {*others, "127.0.0.2"} - {"127.0.0.1"}:
            with pytest.raises(OSError), socket.create_connection((other, int(port)), timeout=1):  # noqa: PT011
                pass


def test_the_version_changes_with_the_study_and_only_then(tmp_path):
    run = Search(sum, RandomSearch(), study=tmp_path / "ones.db", **SETTINGS)
    batches = iter(run)
    next(batches)
    with StudyServer(tmp_path / "ones.db", interval=0.01) as server:
        assert f"{run.history.evaluations} of 40" in ask(server)[2]
        first = ask(server, "/status.json")[2]
        time.sleep(0.1)
        assert ask(server, "/status.json")[2] == first
        for _ in batches:
            pass
        end = time.monotonic() + 20
        while ask(server, "/status.json")[2] == first:
            assert time.monotonic() < end
            time.sleep(0.1)
        assert "40 of 40" in ask(server)[2]
        run.result()


def test_reading_does_not_disturb_the_search(tmp_path):
    undisturbed = search(sum, RandomSearch(), study=tmp_path / "alone.db", **SETTINGS).history.digest
    run = Search(sum, RandomSearch(), study=tmp_path / "ones.db", **SETTINGS)
    batches = iter(run)
    next(batches)
    with StudyServer(tmp_path / "ones.db", interval=0.01) as server:
        for _ in batches:
            assert ask(server)[0] == 200
        assert run.result().history.digest == undisturbed


def test_a_study_that_has_gone_leaves_the_last_page(tmp_path):
    search(sum, RandomSearch(), study=tmp_path / "ones.db", **SETTINGS)
    with StudyServer(tmp_path / "ones.db", interval=0.01) as server:
        before = ask(server)[2]
        (tmp_path / "ones.db").write_bytes(b"not a study")
        time.sleep(0.1)
        assert ask(server)[::2] == (200, before)


def test_no_study_no_port_or_a_taken_one_are_said_in_a_sentence(study, tmp_path):
    with pytest.raises(StudyDamaged, match="no study"):
        StudyServer(tmp_path / "none.db")
    for port in (-1, 70_000):
        with pytest.raises(InvalidSettings, match="port"):
            StudyServer(study, port=port)
    with StudyServer(study) as server:
        taken = int(server.url.rstrip("/").rpartition(":")[2])
        with pytest.raises(InvalidSettings, match="cannot listen"):
            watch(study, port=taken)


def test_ctrl_c_ends_the_command_quietly(study):
    command = [sys.executable, "-m", "searchlib", "watch", str(study)]
    running = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    with running:
        line = running.stdout.readline()
        assert line.startswith("http://127.0.0.1:")
        running.send_signal(signal.SIGINT)
        output, errors = running.communicate(timeout=20)
    assert running.returncode == 0
    assert (output, errors) == ("", "")
