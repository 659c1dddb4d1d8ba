"""A DNS server on a loopback port whose answers a test scripts, by name: UDP and TCP."""
import socket
import socketserver
import threading

from dnslib import CNAME, DNSRecord, QTYPE, RCODE, RR, TXT


class Zone:
    """What the server says of one name; `answer` may be changed at any time."""

    def __init__(self, *texts, ttl=60, rcode=RCODE.NOERROR, delay=None, alias=None, truncated=False, raw=None):
        self.texts, self.ttl, self.rcode, self.delay = texts, ttl, rcode, delay
        self.alias, self.truncated, self.raw = alias, truncated, raw

    def reply(self, question, over_tcp):
        if self.raw is not None:
            return self.raw(question)
        reply = question.reply()
        reply.header.rcode = self.rcode
        if self.truncated and not over_tcp:
            reply.header.tc = 1
            return reply.pack()
        name = question.q.qname
        if self.alias:
            reply.add_answer(RR(name, QTYPE.CNAME, rdata=CNAME(self.alias), ttl=self.ttl))
            name = self.alias
        for text in self.texts:
            strings = [part.encode() for part in (text if isinstance(text, (list, tuple)) else [text])]
            reply.add_answer(RR(name, QTYPE.TXT, rdata=TXT(strings), ttl=self.ttl))
        return reply.pack()


class DnsServer:
    """zones: name -> Zone; other names do not exist. `asked` lists every question's name, repeats too."""

    def __init__(self):
        self.zones, self.asked, self.lock = {}, [], threading.Lock()
        self.ended = threading.Event()
        server = self

        class Udp(socketserver.BaseRequestHandler):
            def handle(self):
                data, sock = self.request
                reply = server.answer(data, False)
                if reply is not None:
                    sock.sendto(reply, self.client_address)

        class Tcp(socketserver.BaseRequestHandler):
            def handle(self):
                head = self.request.recv(2, socket.MSG_WAITALL)
                if len(head) < 2:
                    return
                reply = server.answer(self.request.recv(int.from_bytes(head, "big"), socket.MSG_WAITALL), True)
                if reply is not None:
                    self.request.sendall(len(reply).to_bytes(2, "big") + reply)

        self.udp, self.tcp = self._bind(Udp, Tcp)
        self.port = self.udp.server_address[1]
        self.threads = [threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
                        for listener in (self.udp, self.tcp)]
        for thread in self.threads:
            thread.start()

    @staticmethod
    def _bind(udp, tcp):
        """Both on one port that the kernel picks."""
        while True:
            first = socketserver.ThreadingUDPServer(("127.0.0.1", 0), udp)
            try:
                second = socketserver.ThreadingTCPServer(first.server_address, tcp)
            except OSError:
                first.server_close()
                continue
            for server in (first, second):
                server.daemon_threads, server.block_on_close = True, False
            return first, second

    @property
    def address(self):
        return f"127.0.0.1:{self.port}"

    def answer(self, data, over_tcp):
        question = DNSRecord.parse(data)
        name = str(question.q.qname).rstrip(".").lower()
        with self.lock:
            self.asked.append(name)
            zone = self.zones.get(name)
        if zone is None:
            zone = Zone(rcode=RCODE.NXDOMAIN)
        if zone.delay is not None:
            zone.delay.wait(30) if isinstance(zone.delay, threading.Event) else self.ended.wait(zone.delay)
        return zone.reply(question, over_tcp)

    def count(self, name):
        with self.lock:
            return self.asked.count(name)

    def close(self):
        self.ended.set()
        for server in (self.udp, self.tcp):
            server.shutdown()
            server.server_close()
        for thread in self.threads:
            thread.join(5)
