"""A scripted HTTP/2 client (python3-h2) over a TLS connection to the gateway."""
import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions
from hyperframe.frame import GoAwayFrame

from wire import Closed


class Stream:
    """What came on one stream so far."""

    def __init__(self):
        self.status, self.fields, self.interim, self.trailers = None, {}, [], []
        self.all_fields = []        # (name, value) as received, in order
        self.body = bytearray()
        self.ended, self.reset = False, None        # reset: the error code


class H2Client:
    """Nothing is checked on the way out, so that it can send what no client may. It credits what it reads, unless the
    stream is in `slow`."""

    def __init__(self, gateway, host):
        self.wire = gateway.connect(host, gateway.tls_context(alpn=("h2",)))
        assert self.wire.sock.selected_alpn_protocol() == "h2"
        config = h2.config.H2Configuration(header_encoding="utf-8", validate_outbound_headers=False,
                                           normalize_outbound_headers=False, validate_inbound_headers=True)
        self.h2 = h2.connection.H2Connection(config)
        # a GOAWAY that only warns is not the end, as python3-h2 takes it
        self.take_goaway = self.h2._frame_dispatch_table[GoAwayFrame]
        self.h2._frame_dispatch_table[GoAwayFrame] = self.on_goaway
        self.notices = 0
        self.h2.initiate_connection()
        self.host, self.streams, self.slow = host, {}, set()
        self.goaway = None
        self.flush()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.wire.close()

    def flush(self):
        if data := self.h2.data_to_send():
            self.wire.send(data)

    def send(self, method, path, *fields, host=None, end=True, pseudo=()):
        """Sends a request head; returns the stream's id."""
        number = self.h2.get_next_available_stream_id()
        head = [(":method", method), (":scheme", "https"), (":authority", host or self.host), (":path", path),
                *pseudo, *fields]
        self.h2.send_headers(number, head, end_stream=end)
        self.streams[number] = Stream()
        self.flush()
        return number

    def data(self, number, data, end=False):
        """All of it, as the windows open."""
        at = 0
        while True:
            room = min(self.h2.local_flow_control_window(number), self.h2.max_outbound_frame_size, len(data) - at)
            if room > 0 or not data:
                self.h2.send_data(number, data[at:at + room], end_stream=end and at + room == len(data))
                at += room
                self.flush()
            if at >= len(data):
                return
            if room <= 0:
                self.turn()

    def cancel(self, number):
        self.h2.reset_stream(number, h2.errors.ErrorCodes.CANCEL)
        self.flush()

    def turn(self):
        """Takes what comes next."""
        self.take(self.wire.read_some())

    def take(self, data):
        for event in self.h2.receive_data(data):
            self.on_event(event)
        self.flush()

    def on_goaway(self, frame):
        if frame.last_stream_id < 2 ** 31 - 1:
            return self.take_goaway(frame)
        self.notices += 1
        return [], []

    def on_event(self, event):
        number = getattr(event, "stream_id", None)
        stream = self.streams.get(number)
        if isinstance(event, h2.events.ConnectionTerminated):
            self.goaway = event
        elif stream is None:
            pass
        elif isinstance(event, h2.events.InformationalResponseReceived):
            stream.interim.append(dict(event.headers))
        elif isinstance(event, h2.events.ResponseReceived):
            stream.all_fields, stream.fields = event.headers, dict(event.headers)
            stream.status = int(stream.fields[":status"])
        elif isinstance(event, h2.events.TrailersReceived):
            stream.trailers = event.headers
        elif isinstance(event, h2.events.DataReceived):
            stream.body += event.data
            if number not in self.slow:
                self.h2.acknowledge_received_data(event.flow_controlled_length, number)
        elif isinstance(event, h2.events.StreamEnded):
            stream.ended = True
        elif isinstance(event, h2.events.StreamReset):
            stream.reset = event.error_code

    def wait(self, condition):
        while not condition():
            self.turn()

    def response(self, number):
        """The stream, once it has ended."""
        stream = self.streams[number]
        self.wait(lambda: stream.ended or stream.reset is not None)
        return stream

    def fetch(self, method, path, *fields, **options):
        return self.response(self.send(method, path, *fields, **options))

    def read_end(self):
        """Until the gateway closes the connection."""
        try:
            while True:
                self.turn()
        except (Closed, OSError, h2.exceptions.ProtocolError):
            return self.goaway
