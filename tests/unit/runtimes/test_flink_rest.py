"""What the client of Flink's REST API says when an answer is not what it hoped for. The real thing is in tests/integration."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from gillnet.core.errors import ConfigurationError, EngineError
from gillnet.runtimes.flink import FlinkRest, LocalFlink
from gillnet.runtimes.flink.rest import root_of

#: Taken from a real cluster: Flink's summary first, then the server's side with the stack trace.
REFUSED = {
    "errors": [
        "org.apache.flink.runtime.rest.handler.RestHandlerException: Could not execute application.",
        "<Exception on server side:\norg.apache.flink.runtime.rest.handler.RestHandlerException: Could not execute application.\n"
        "\tat org.apache.flink.runtime.webmonitor.handlers.JarRunHandler.lambda$handleRequest$1(JarRunHandler.java:114)\n"
        "Caused by: java.util.concurrent.CompletionException: java.lang.IllegalArgumentException: no plan\n\t... 2 more\n"
        "Caused by: java.lang.IllegalArgumentException: the plan names no source\n\tat Job.main(Job.java:1)\n"
        "End of exception on server side>",
    ]
}


class Answers(BaseHTTPRequestHandler):
    """Answers by path, and keeps what it was asked."""

    replies: dict[str, tuple[int, bytes]]
    asked: list[tuple[str, str, str | None]]

    def do_GET(self) -> None:
        self.asked.append((self.command, self.path, self.headers.get("Authorization")))
        status, content = self.replies.get(self.path, (404, b"<html>nothing here</html>"))
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_POST = do_GET

    def log_message(self, *arguments: Any) -> None:
        """Say nothing."""


@pytest.fixture
def server() -> Iterator[tuple[str, type[Answers]]]:
    class Own(Answers):
        pass

    Own.replies, Own.asked = {}, []

    listening = ThreadingHTTPServer(("127.0.0.1", 0), Own)
    thread = threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{listening.server_port}", Own
    listening.shutdown()
    thread.join()
    listening.server_close()


def test_a_refusal_tells_the_root_of_flink_s_causes(server: tuple[str, type[Answers]]) -> None:
    url, answers = server
    answers.replies["/jars/a.jar/run"] = (400, json.dumps(REFUSED).encode())
    with pytest.raises(
        EngineError, match=r"refuses POST /jars/a\.jar/run \(400\): .*the plan names no source\.$"
    ) as told:
        FlinkRest(url).run_jar("a.jar")
    assert "JarRunHandler" not in str(told.value)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"<html>a proxy</html>", r"answers GET /overview with what is not understood .*is it Flink's REST API"),
        (b'{"taskmanagers": 1}', r"missing required field"),
        (b'{"taskmanagers": "many"}', r"not understood"),
        (b"", r"not understood"),
    ],
)
def test_an_answer_that_is_not_flink_s_is_named(server: tuple[str, type[Answers]], content: bytes, says: str) -> None:
    url, answers = server
    answers.replies["/overview"] = (200, content)
    with pytest.raises(EngineError, match=says):
        FlinkRest(url).overview()


def test_a_refusal_that_is_no_json_is_told_as_it_is(server: tuple[str, type[Answers]]) -> None:
    with pytest.raises(EngineError, match=r"\(404\): <html>nothing here</html>"):
        FlinkRest(server[0]).overview()


def test_headers_and_a_path_in_front_go_with_each_request(server: tuple[str, type[Answers]]) -> None:
    url, answers = server
    answers.replies["/eu/jobs/overview"] = (200, b'{"jobs": []}')
    assert FlinkRest(f"{url}/eu/", headers={"Authorization": "Bearer x"}).jobs() == []
    assert answers.asked == [("GET", "/eu/jobs/overview", "Bearer x")]


def test_of_jobs_with_a_name_the_one_that_runs_is_meant(server: tuple[str, type[Answers]]) -> None:
    url, answers = server

    def job(jid: str, state: str, start: int) -> dict[str, object]:
        return {"jid": jid, "name": "p", "state": state, "start-time": start, "end-time": -1}

    def tell(*jobs: dict[str, object]) -> None:
        answers.replies["/jobs/overview"] = (200, json.dumps({"jobs": jobs}).encode())

    rest = FlinkRest(url)
    tell(job("a", "RUNNING", 1), job("b", "FAILED", 9))
    assert rest.find_job("p").jid == "a"
    assert rest.find_job("b").state == "FAILED"
    tell(job("a", "CANCELED", 1), job("b", "FAILED", 9))
    assert rest.find_job("p").jid == "b"
    tell(job("a", "RUNNING", 1), job("b", "RESTARTING", 9))
    with pytest.raises(EngineError, match=r"2 jobs named 'p' run; name one by its id: a, b\."):
        rest.find_job("p")


@pytest.mark.parametrize("url", ["localhost:8081", "ftp://host", "http://", ""])
def test_an_address_that_is_none_says_how_one_is_written(url: str) -> None:
    with pytest.raises(ConfigurationError, match="such as http://localhost:8081"):
        FlinkRest(url)


@pytest.mark.parametrize(
    ("trace", "root"),
    [
        ("java.io.IOException: disk full\n\tat A.b(A.java:1)", "java.io.IOException: disk full"),
        ("a.b.CompletionException: x\nCaused by: a.b.RealException\n\tat C.d", "a.b.RealException"),
        ("a.b.SerializedThrowable: only this", "a.b.SerializedThrowable: only this"),
        ("", "it says nothing"),
    ],
)
def test_the_root_of_a_stack_trace_is_its_last_cause(trace: str, root: str) -> None:
    assert root_of(trace) == root


def test_a_cluster_that_is_not_started_says_so() -> None:
    flink = LocalFlink()
    with pytest.raises(ConfigurationError, match="the cluster is not started"):
        _ = flink.work_dir
    with pytest.raises(ConfigurationError, match=r"not running; call start"):
        flink.add_task_manager()
    flink.stop()


def test_missing_java_and_maven_say_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigurationError, match=r"Local Flink: no Java was found; install Java 17"):
        LocalFlink().start()
    java = tmp_path / "java"
    java.write_text("#!/bin/sh\necho 'openjdk version \"17.0.1\" 2021' >&2\n")
    java.chmod(0o755)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with pytest.raises(ConfigurationError, match=r"Local Flink: Maven was not found.*to fetch flink-2\.3\.0"):
        LocalFlink().start()
