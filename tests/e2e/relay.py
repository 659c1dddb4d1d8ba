"""A relay between a client on TCP and a server on a unix socket, that can be slow, silent, broken or away."""
import socket
import threading
import time


class Relay:
    """
    Takes connections at 127.0.0.1:port. `away`: they are closed at once. `stalled`: nothing is passed on to the client.
    `rate`: bytes a second of what the server sends. `limit`: after so many of them the connection is reset.
    """

    def __init__(self, path):
        self.path = str(path)
        self.away, self.stalled, self.rate, self.limit = False, False, None, None
        self.accepted = 0
        self.sockets = set()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            self.accepted += 1
            server = socket.socket(socket.AF_UNIX)
            try:
                if self.away:
                    raise OSError("away")
                server.connect(self.path)
            except OSError:
                client.close()
                server.close()
                continue
            self.sockets |= {client, server}
            threading.Thread(target=self._pass, args=(client, server, False), daemon=True).start()
            threading.Thread(target=self._pass, args=(server, client, True), daemon=True).start()

    def _pass(self, source, target, is_answer):
        passed = 0
        try:
            while data := source.recv(4096 if self.rate is None else max(1, self.rate // 50)):
                while is_answer and self.stalled:
                    time.sleep(0.02)
                if is_answer and self.limit is not None and passed + len(data) > self.limit:
                    target.sendall(data[:max(0, self.limit - passed)])
                    break
                target.sendall(data)
                passed += len(data)
                if is_answer and self.rate is not None:
                    time.sleep(len(data) / self.rate)
        except OSError:
            pass
        for sock in (source, target):
            self._end(sock)

    def _end(self, sock):
        self.sockets.discard(sock)
        try:
            sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        sock.close()

    def cut(self):
        """Ends all connections that there are."""
        for sock in list(self.sockets):
            self._end(sock)

    def close(self):
        self.listener.close()
        self.stalled = False
        self.cut()
