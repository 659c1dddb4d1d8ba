"""Servers that play an app that speaks HTTP/2 cleartext with prior knowledge (python3-h2): scriptable, one thread for
each connection."""
import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.settings

from origin import Origin


class Request:
    """What came on one stream so far."""

    def __init__(self, number, fields):
        self.number, self.list = number, fields
        self.fields = dict(fields)
        self.body = bytearray()
        self.trailers = None
        self.ended, self.reset = False, None

    @property
    def path(self):
        return self.fields[":path"]


class H2Peer:
    """The origin's end of one connection."""

    def __init__(self, origin, wire):
        self.origin, self.wire = origin, wire
        config = h2.config.H2Configuration(client_side=False, header_encoding="utf-8", validate_outbound_headers=False,
                                           normalize_outbound_headers=False)
        self.h2 = h2.connection.H2Connection(config)
        self.h2.local_settings = h2.settings.Settings(client=False, initial_values={
            h2.settings.SettingCodes.MAX_FRAME_SIZE: 16384, h2.settings.SettingCodes.MAX_CONCURRENT_STREAMS: 100,
            h2.settings.SettingCodes.MAX_HEADER_LIST_SIZE: 65536, **origin.settings})
        self.requests = {}
        self.goaway = None

    def run(self):
        self.h2.initiate_connection()
        self.flush()
        while True:
            self.turn()

    def flush(self):
        if data := self.h2.data_to_send():
            self.wire.send(data)

    def turn(self):
        for event in self.h2.receive_data(self.wire.read_some()):
            self.on_event(event)
        self.flush()

    def wait(self, condition):
        while not condition():
            self.turn()

    def on_event(self, event):
        number = getattr(event, "stream_id", None)
        request = self.requests.get(number)
        if isinstance(event, h2.events.RequestReceived):
            request = self.requests[number] = Request(number, event.headers)
            with self.origin.lock:
                self.origin.requests.append(request)
            if self.origin.early:
                self.answer(request)
        elif isinstance(event, h2.events.ConnectionTerminated):
            self.goaway = event
        elif isinstance(event, h2.events.WindowUpdated):
            if self.origin.on_window:
                self.origin.on_window(self)
        elif request is None:
            pass
        elif isinstance(event, h2.events.DataReceived):
            request.body += event.data
            self.h2.acknowledge_received_data(event.flow_controlled_length, number)
            if self.origin.on_data:
                self.origin.on_data(self, request, event.data)
        elif isinstance(event, h2.events.TrailersReceived):
            request.trailers = event.headers
        elif isinstance(event, h2.events.StreamReset):
            request.reset = event.error_code
        elif isinstance(event, h2.events.StreamEnded):
            request.ended = True
            if not self.origin.early:
                self.answer(request)
            elif self.origin.on_end:
                self.origin.on_end(self, request)

    def answer(self, request):
        self.flush()
        self.origin.answer(self, request)
        self.flush()

    # ---- for scripts ----

    def head(self, request, status=200, *fields, end=False):
        self.h2.send_headers(request.number, [(":status", str(status)), *fields], end_stream=end)
        self.flush()

    def data(self, request, data, end=False):
        """All of it, as the windows open."""
        at = 0
        while True:
            room = min(self.h2.local_flow_control_window(request.number), self.h2.max_outbound_frame_size,
                       len(data) - at)
            if room > 0 or not data:
                last = at + room == len(data)
                self.h2.send_data(request.number, data[at:at + room], end_stream=end and last)
                at += room
                self.flush()
            if at >= len(data) or request.reset is not None:
                return
            if room <= 0:
                self.turn()

    def trailers(self, request, *fields):
        self.h2.send_headers(request.number, list(fields), end_stream=True)
        self.flush()

    def respond(self, request, body=b"", status=200, *fields):
        self.head(request, status, ("content-length", str(len(body))), *fields, end=not body)
        if body:
            self.data(request, body, end=True)

    def reset(self, request, code=h2.errors.ErrorCodes.INTERNAL_ERROR):
        self.h2.reset_stream(request.number, code)
        self.flush()

    def send_goaway(self, last, code=h2.errors.ErrorCodes.NO_ERROR):
        """As a frame: python3-h2 would take it for the end of everything."""
        self.flush()
        self.wire.send(b"\0\0\x08\x07\0\0\0\0\0" + last.to_bytes(4, "big") + int(code).to_bytes(4, "big"))


class H2Origin(Origin):
    """`answer(peer, request)` is called when a request is complete, or with `early` at its head; on_data(peer, request,
    data) and on_end(peer, request) in between; on_window(peer) after a window has opened."""

    def __init__(self, answer, early=False, on_data=None, on_end=None, on_window=None, settings=None, port=0):
        self.early, self.on_data, self.on_end, self.on_window = early, on_data, on_end, on_window
        self.settings = settings or {}
        super().__init__(answer, script=lambda connection: H2Peer(self, connection).run(), port=port)
