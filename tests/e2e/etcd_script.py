"""A member of etcd in this process, whose test decides what it says when: events of several revisions in one write,
revisions in parts, answers that come late or make no sense."""
import base64
import http.server
import json
import threading

PREFIX = "/phala-gateway/"
CLUSTER = 77


def b64(data):
    return base64.b64encode(data if isinstance(data, bytes) else data.encode()).decode()


def text(data):
    return data if isinstance(data, str) else json.dumps(data)


class ScriptedEtcd:
    def __init__(self):
        self.changed = threading.Condition()
        self.revision = 1
        self.kvs = {}               # key: (value, mod_revision), in bytes
        self.lines = []             # of all watches, with the revision of each
        self.compacted = 0
        self.held = False           # nothing is sent on watches
        self.generation = 0         # watches of an earlier one end
        self.away = False           # nothing is answered
        self.error = None           # (status, code, text) in the place of every answer
        self.calls = []             # (path, key) of each request
        self.on_range = None        # called with the body; answers in the place of what is here, unless None
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), self.handler())
        self.server.daemon_threads = True
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self.thread.start()

    @property
    def urls(self):
        return [f"http://127.0.0.1:{self.server.server_port}"]

    def close(self):
        self.drop()
        self.server.shutdown()
        self.server.server_close()

    # ---- for tests ----

    def header(self):
        return {"cluster_id": str(CLUSTER), "member_id": "1", "revision": str(self.revision)}

    def put(self, key, value, silent=False):
        """silent: no watch is told of it."""
        with self.changed:
            self.revision += 1
            self.kvs[(PREFIX + key).encode()] = (text(value).encode(), self.revision)
            if not silent:
                self.tell([self.put_event(key, value, self.revision)])
            return self.revision

    def delete(self, key, silent=False):
        with self.changed:
            self.revision += 1
            self.kvs.pop((PREFIX + key).encode(), None)
            if not silent:
                self.tell([self.delete_event(key, self.revision)])
            return self.revision

    @staticmethod
    def put_event(key, value, revision):
        return {"kv": {"key": b64(PREFIX + key), "value": b64(text(value)), "mod_revision": str(revision)}}

    @staticmethod
    def delete_event(key, revision):
        return {"type": "DELETE", "kv": {"key": b64(PREFIX + key), "mod_revision": str(revision)}}

    def tell(self, events, **members):
        """One line of the watches."""
        with self.changed:
            line = {"result": {"header": self.header(), "events": events, **members}}
            self.lines.append((self.revision, json.dumps(line)))
            self.changed.notify_all()

    def hold(self):
        """What is told from now on is sent in one write by release()."""
        with self.changed:
            self.held = True

    def release(self):
        with self.changed:
            self.held = False
            self.changed.notify_all()

    def drop(self):
        """Ends all watches."""
        with self.changed:
            self.generation += 1
            self.changed.notify_all()

    def count(self, path, key=None):
        wanted = key and (PREFIX + key).encode()
        return sum(1 for call in list(self.calls) if call[0] == path and wanted in (None, call[1]))

    # ---- answers ----

    def range(self, body):
        key, end = (base64.b64decode(body.get(name, "")) for name in ("key", "range_end"))
        answer = self.on_range and self.on_range(body)
        if answer is not None:
            return answer
        with self.changed:
            found = sorted(k for k in self.kvs if (key <= k < end if end else k == key))
            limit = int(body.get("limit", 0)) or len(found)
            kvs = [] if body.get("count_only") else [self.kv(k) for k in found[:limit]]
            return {"header": self.header(), "kvs": kvs, "count": str(len(found)), "more": len(found) > limit}

    def kv(self, key):
        value, revision = self.kvs[key]
        return {"key": b64(key), "value": b64(value), "mod_revision": str(revision)}

    def txn(self, body):
        with self.changed:
            for compare in body.get("compare", []):
                key = base64.b64decode(compare["key"])
                if self.kvs.get(key, (b"", 0))[1] != int(compare["mod_revision"]):
                    kvs = [self.kv(key)] if key in self.kvs else []
                    return {"header": self.header(), "responses": [{"response_range": {"kvs": kvs}}]}
            events, responses = [], []
            self.revision += 1
            for request in body.get("success", []):
                if put := request.get("request_put"):
                    self.kvs[base64.b64decode(put["key"])] = (base64.b64decode(put.get("value", "")), self.revision)
                    events.append({"kv": {**put, "mod_revision": str(self.revision)}})
                    responses.append({"response_put": {}})
                else:
                    responses.append({"response_delete_range": {}})     # of ticket keys that are not there
            self.tell(events)
            return {"header": self.header(), "succeeded": True, "responses": responses}

    def watch(self, handler, start):
        send_chunked(handler)
        with self.changed:
            generation, after, at = self.generation, self.revision, 0
            first = {"header": self.header(), "created": True}
            if start <= self.compacted:
                first = {"header": self.header(), "canceled": True, "compact_revision": str(self.compacted + 1)}
            elif start > after:
                at = len(self.lines)
        send_chunk(handler, json.dumps({"result": first}))
        while True:
            with self.changed:
                self.changed.wait_for(lambda: generation != self.generation
                                      or (not self.held and at < len(self.lines)))
                if generation != self.generation:
                    return
                fresh = [line for revision, line in self.lines[at:] if revision >= start]
                at = len(self.lines)
            if fresh:
                send_chunk(handler, "\n".join(fresh))

    def handler(self):
        script = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):      # pylint: disable=arguments-differ
                pass

            def do_POST(self):              # pylint: disable=invalid-name
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                inner = body.get("create_request", body)
                script.calls.append((self.path, base64.b64decode(inner.get("key", ""))))
                if script.away:
                    self.close_connection = True
                    return
                if self.path == "/v3/watch":
                    try:
                        script.watch(self, int(inner["start_revision"]))
                    except OSError:
                        pass
                    self.close_connection = True
                    return
                if script.error:
                    status, code, said = script.error
                    self.answer(status, {"error": said, "code": code, "message": said})
                    return
                self.answer(200, script.range(body) if self.path == "/v3/kv/range" else script.txn(body))

            def answer(self, status, document):
                data = json.dumps(document).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)
        return Handler


def send_chunked(handler):
    handler.send_response(200)
    handler.send_header("Transfer-Encoding", "chunked")
    handler.end_headers()


def send_chunk(handler, lines):
    data = lines.encode() + b"\n"
    handler.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
