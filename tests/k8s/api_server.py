"""Enough of an API server for `kubectl apply` and `kubectl apply edit-last-applied`: one Deployment, which can be read and
patched. A field that a patch removes gets its default, as in Kubernetes."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

from tests.k8s.manifests import Document

LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
_PATH = "/apis/apps/v1/namespaces/default/deployments/"
_DEPLOYMENTS = {
    "name": "deployments",
    "singularName": "deployment",
    "namespaced": True,
    "kind": "Deployment",
    "verbs": ["get", "list", "patch"],
}
_DISCOVERY: dict[str, Document] = {
    "/api": {"kind": "APIVersions", "versions": ["v1"]},
    "/api/v1": {"kind": "APIResourceList", "groupVersion": "v1", "resources": []},
    "/apis": {
        "kind": "APIGroupList",
        "apiVersion": "v1",
        "groups": [{"name": "apps", "versions": [{"groupVersion": "apps/v1", "version": "v1"}]}],
    },
    "/apis/apps/v1": {"kind": "APIResourceList", "groupVersion": "apps/v1", "resources": [_DEPLOYMENTS]},
}


def _merge(target: Document, patch: Document) -> None:
    """A strategic merge patch, without its rules for lists: they are replaced."""
    for name, value in patch.items():
        if value is None:
            target.pop(name, None)
        elif isinstance(value, dict) and isinstance(target.get(name), dict):
            _merge(target[name], value)
        else:
            target[name] = value


class ApiServer:
    """`deployment`: the stored object, as it was applied."""

    def __init__(self, deployment: Document) -> None:
        applied = json.dumps({**deployment, "metadata": {"annotations": {}, **deployment["metadata"]}})
        self.deployment = json.loads(applied)
        self.deployment["metadata"] |= {"namespace": "default", "uid": "1", "resourceVersion": "1"}
        self.deployment["metadata"]["annotations"] = {LAST_APPLIED: applied}
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)

    def patch(self, change: Document) -> None:
        _merge(self.deployment, change)
        self.deployment["spec"].setdefault("replicas", 1)


def _handler(api: ApiServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            if path == _PATH + api.deployment["metadata"]["name"]:
                self._answer(api.deployment)
            else:
                self._answer(_DISCOVERY.get(path))

        def do_PATCH(self) -> None:
            api.patch(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self._answer(api.deployment)

        def _answer(self, document: Document | None) -> None:
            status = 404 if document is None else 200
            body = json.dumps(document or {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 404})
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, format: str, *args: Any) -> None:
            pass

    return Handler
