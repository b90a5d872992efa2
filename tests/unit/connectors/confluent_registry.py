"""A schema registry on loopback: what Gillnet asks of Confluent's API, as its documentation has it."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit


class Registry:
    """The schemas, and how the server behaves."""

    def __init__(self) -> None:
        self.url = ""
        self.by_id: dict[int, dict[str, Any]] = {}
        self.by_version: dict[tuple[str, int], dict[str, Any]] = {}
        self.asked: list[str] = []
        self.statuses: list[int] = []  # Given in place of the next answers.
        self.user_info: str | None = None

    def add(
        self, schema_id: int, schema: str | bytes, *, kind: str = "AVRO", references: Any = (), subject: str = "s"
    ) -> None:
        """Register; a Protobuf file is given as its serialized descriptor."""
        told: dict[str, Any] = {"schema": schema if isinstance(schema, str) else base64.b64encode(schema).decode()}
        if kind != "AVRO":
            told["schemaType"] = kind
        if references:
            told["references"] = list(references)
        self.by_id[schema_id] = told
        self.by_version[(subject, 1)] = {**told, "subject": subject, "version": 1, "id": schema_id}

    def answer(self, path: str, authorization: str | None) -> tuple[int, dict[str, Any]]:
        self.asked.append(path)
        if self.statuses:
            return self.statuses.pop(0), {"error_code": 50001, "message": "told to fail"}
        if self.user_info is not None:
            due = "Basic " + base64.b64encode(self.user_info.encode()).decode()
            if authorization != due:
                return 401, {"error_code": 401, "message": "Unauthorized"}
        split = urlsplit(path)
        parts = [unquote(part) for part in split.path.strip("/").split("/")]
        found, code = None, 404
        if parts[:2] == ["schemas", "ids"] and parts[2].isdigit():
            found, code = self.by_id.get(int(parts[2])), 40403
        elif len(parts) == 4 and parts[0] == "subjects" and parts[2] == "versions":
            found, code = self.by_version.get((parts[1], int(parts[3]))), 40402
        if found is None:
            return 404, {"error_code": code, "message": "not found"}
        if found.get("schemaType") == "PROTOBUF" and parse_qs(split.query).get("format") != ["serialized"]:
            return 500, {"error_code": 50001, "message": "only format=serialized is here"}
        return 200, found


@contextmanager
def running() -> Iterator[Registry]:
    """Serve on a free port for as long as the block lasts."""
    registry = Registry()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, told = registry.answer(self.path, self.headers.get("Authorization"))
            body = json.dumps(told).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/vnd.schemaregistry.v1+json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    registry.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield registry
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
