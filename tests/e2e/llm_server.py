"""A tenant's model server: answers POST /v1/chat/completions as OpenAI's API does, token by token; GET /sent tells how
many tokens of the conversation `id` have left so far. usage: llm_server.py ADDRESS PORT"""
import http.server
import json
import sys
import time

TOKENS, PAUSE = 40, 0.2     # eight seconds
sent = {}


class Conversation(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):       # pylint: disable=invalid-name
        body = str(sent.get(self.path.rpartition("=")[2], 0)).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self):      # pylint: disable=invalid-name
        question = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        assert question["stream"]
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Cache-Control", "no-cache")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for number in range(TOKENS):
            self.event(json.dumps({"choices": [{"delta": {"content": f"token{number} "}}]}))
            sent[question["id"]] = number + 1
            time.sleep(PAUSE)
        self.event("[DONE]")
        self.wfile.write(b"0\r\n\r\n")

    def event(self, data):
        text = f"data: {data}\n\n".encode()
        self.wfile.write(b"%x\r\n%s\r\n" % (len(text), text))

    def log_message(self, *_):
        """Nothing."""


if __name__ == "__main__":
    http.server.ThreadingHTTPServer.request_queue_size = 64
    http.server.ThreadingHTTPServer((sys.argv[1], int(sys.argv[2])), Conversation).serve_forever()
