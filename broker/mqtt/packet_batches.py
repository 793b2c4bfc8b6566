"""Many packets at once under paho, which reads each with four system calls, and writes each with one and a wake-up.

The only module that replaces parts of paho: it saves a third to a half of an agent's processor time per command. Plain
packets (broker.mqtt.plain_packets) are taken from one read together; PUBACKs and PUBLISHes at QoS 1 are written with
one call. Every other packet, and every part of one, is left to paho.
"""

import contextlib
import threading
from collections.abc import Callable, Sequence
from time import monotonic
from typing import Any

import paho.mqtt
from paho.mqtt.client import Client, MQTTMessageInfo
from paho.mqtt.enums import LogLevel, MQTTErrorCode

from broker.mqtt.client_events import Message
from broker.mqtt.plain_packets import PLAIN_PUBACK, PUBLISH, plain_packets, pubacks

__all__ = ["TESTED_VERSION", "PacketBatches", "missing"]


TESTED_VERSION = "2.2.0"
_NAMES = [
    "_easy_log",
    "_in_packet",
    "_inflight_messages",
    "_last_bytes_received",
    "_last_msg_out",
    "_loop",
    "_loop_rc_handle",
    "_msgtime_mutex",
    "_out_message_mutex",
    "_out_messages",
    "_out_packet",
    "_packet_queue",
    "_packet_read",
    "_packet_write",
    "_sock",
    "_sock_close",
    "_sock_recv",
    "_sock_send",
    "_sockpairW",
    "_update_inflight",
]
_READ_BYTES = 65_536
_WRITE_BYTES = 65_536


def missing(client: Client) -> str | None:
    """Return why packets cannot be handled together with this paho; None if they can."""
    if paho.mqtt.__version__ != TESTED_VERSION:
        return f"packets are handled one by one: paho-mqtt is {paho.mqtt.__version__}, not {TESTED_VERSION}"
    absent = [name for name in _NAMES if not (hasattr(Client, name) or name in vars(client))]
    return f"packets are handled one by one: paho-mqtt has no {', '.join(absent)}" if absent else None


class PacketBatches(Client):
    """A part of a paho client. Its callbacks run in the network thread, as paho's own do.

    `on_batch` gets the messages of one read, `on_confirmed` the packet ids of its PUBACKs and the topics of the
    messages that they confirm.
    """

    on_batch: Callable[[Sequence[Message]], None]
    on_confirmed: Callable[[Sequence[int], set[str]], None]

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._unread, self._unread_at = b"", 0  # what was read, and how far it was handled
        # A TLS connection is not read and written at the same time. A thread that may hold another lock only tries to
        # take this one: the network thread calls back while it holds it.
        self._io = threading.RLock()
        self._corked = False
        self._turn = threading.Lock()  # of the thread that waits for the socket
        self._lent = self._used = False
        self._returned = threading.Event()
        self._ended = MQTTErrorCode.MQTT_ERR_SUCCESS

    # design.md: "The thread that drains reads the socket."
    def work(self, timeout_s: float, is_idle: Callable[[], bool]) -> bool:
        """Do the network thread's work once in this thread, waiting at most `timeout_s`; False if that does it itself.

        Returns at once if not `is_idle`, asked when `interrupt` ends the wait already.
        """
        if not self._is_open():
            return False
        self._used = True
        if not self._lent:
            self._ended = MQTTErrorCode.MQTT_ERR_SUCCESS
            self._returned.clear()
            self._lent = True
            self.interrupt()
        if not self._turn.acquire(timeout=timeout_s):
            return False
        try:
            if not self._is_open():
                return False
            rc = super()._loop(timeout_s) if is_idle() else MQTTErrorCode.MQTT_ERR_SUCCESS
        finally:
            self._turn.release()
        if rc or self._sock is None:
            self._ended = rc or MQTTErrorCode.MQTT_ERR_NO_CONN
            self._returned.set()
        return True

    def _is_open(self) -> bool:
        return self.is_connected() and self._sock is not None  # paho counts as connected after a broker's DISCONNECT

    def interrupt(self) -> None:
        """End the wait of the thread that waits for the socket."""
        if self._turn.locked() and self._sockpairW is not None:
            with contextlib.suppress(BlockingIOError):  # it has been woken often enough
                self._sockpairW.send(b"0")

    def _loop(self, timeout: float = 1.0) -> MQTTErrorCode:
        """Do the network thread's work, or leave it for `timeout` to a thread that has done it since the last call."""
        if self._lent:
            if not self._returned.wait(timeout) and (self._used or self._turn.locked()):
                self._used = False
                return MQTTErrorCode.MQTT_ERR_SUCCESS
            self._lent = False
            ended, self._ended = self._ended, MQTTErrorCode.MQTT_ERR_SUCCESS
            if ended:
                return ended
        with self._turn:
            return super()._loop(timeout)

    def reconnect(self) -> MQTTErrorCode:
        """Connect again."""
        self._lent = False  # a thread that waited for its turn took over without it
        with self._io:
            return super().reconnect()

    def loop_read(self, max_packets: int = 1) -> MQTTErrorCode:
        """Read once, and handle all that has come."""
        if self._sock is None:
            return MQTTErrorCode.MQTT_ERR_NO_CONN
        if self._in_packet["command"]:  # paho has a part of it, and reads the rest alone
            return self._leave_to_paho()
        self._unread, self._unread_at = b"", 0
        try:
            self._unread = self._sock_recv(_READ_BYTES)
        except BlockingIOError:
            return MQTTErrorCode.MQTT_ERR_SUCCESS
        except OSError as error:
            self._easy_log(LogLevel.MQTT_LOG_ERR, "failed to receive on socket: %s", error)
        if not self._unread:
            return self._loop_rc_handle(MQTTErrorCode.MQTT_ERR_CONN_LOST)
        with self._msgtime_mutex:
            self._last_bytes_received = monotonic()
        return self._handle_unread()

    def _handle_unread(self) -> MQTTErrorCode:
        while True:
            messages, confirmed, self._unread_at = plain_packets(self._unread, self._unread_at)
            if confirmed:
                self._confirm(confirmed)
            if messages:
                self.on_batch(messages)
            if self._unread_at == len(self._unread):
                return MQTTErrorCode.MQTT_ERR_SUCCESS
            rc = self._leave_to_paho()
            if rc or self._sock is None:
                return rc

    def _leave_to_paho(self) -> MQTTErrorCode:
        rc = self._packet_read()
        return MQTTErrorCode.MQTT_ERR_SUCCESS if rc == MQTTErrorCode.MQTT_ERR_AGAIN else self._loop_rc_handle(rc)

    def _confirm(self, mids: Sequence[int]) -> None:
        self._corked = True  # the messages that may follow are written together
        try:
            with self._out_message_mutex:
                confirmed = [message for mid in mids if (message := self._out_messages.pop(mid, None)) is not None]
                self._inflight_messages -= len(confirmed)
                self._update_inflight()
        finally:
            self._corked = False
        self.on_confirmed(mids, {message.topic for message in confirmed})
        self.flush()

    def _sock_recv(self, bufsize: int) -> bytes:
        if self._unread_at < len(self._unread):
            start, self._unread_at = self._unread_at, min(self._unread_at + bufsize, len(self._unread))
            return self._unread[start : self._unread_at]
        with self._io:
            return super()._sock_recv(bufsize)

    def _sock_close(self) -> None:
        with self._io:
            self._unread, self._unread_at = b"", 0
            super()._sock_close()

    def acknowledge(self, mids: Sequence[int]) -> None:
        """Queue the PUBACKs as one packet; `flush`, or whatever is sent next, writes them."""
        self._queue(PLAIN_PUBACK, pubacks(mids))

    def _packet_queue(
        self, command: int, packet: bytes | bytearray, mid: int, qos: int, info: MQTTMessageInfo | None = None
    ) -> MQTTErrorCode:
        self._queue(command, packet, mid, qos, info)
        self.flush()
        return MQTTErrorCode.MQTT_ERR_SUCCESS

    def _queue(
        self, command: int, packet: bytes | bytearray, mid: int = 0, qos: int = 1, info: MQTTMessageInfo | None = None
    ) -> None:
        self._out_packet.append(_queued(command, packet, mid, qos, info))

    def flush(self) -> None:
        """Write what is queued in this thread if that is possible at once; the network thread writes the rest.

        To wake the network thread for each packet takes longer than to write it.
        """
        if self._corked or not self._out_packet:
            return
        if self._io.acquire(blocking=False):
            try:
                if self._is_open():
                    self._write_plain()
            finally:
                self._io.release()
        if self._out_packet:
            self._returned.set()
            self.interrupt()

    def _packet_write(self) -> MQTTErrorCode:
        with self._io:
            return self._write_plain() or super()._packet_write()

    def _write_plain(self) -> MQTTErrorCode:
        """Write the packets before the first one that is paho's."""
        while batch := self._take_plain():
            written = 0
            try:
                written = self._sock_send(batch)
            except BlockingIOError:
                return MQTTErrorCode.MQTT_ERR_AGAIN
            except OSError as error:
                self._easy_log(LogLevel.MQTT_LOG_ERR, "failed to send on socket: %s", error)
                return MQTTErrorCode.MQTT_ERR_CONN_LOST
            finally:
                if written < len(batch):
                    self._out_packet.appendleft(_queued(PLAIN_PUBACK, batch[written:]))
            with self._msgtime_mutex:
                self._last_msg_out = monotonic()
        return MQTTErrorCode.MQTT_ERR_SUCCESS

    def _take_plain(self) -> bytes:
        # What could not be written is taken first, whole: OpenSSL wants to see it again, and may see more.
        parts, size, queue = [], 0, self._out_packet
        while queue and size < _WRITE_BYTES:
            packet = queue.popleft()
            if packet["command"] & 0xF0 != PLAIN_PUBACK and (packet["command"] >> 4 != PUBLISH or not packet["qos"]):
                queue.appendleft(packet)
                break
            parts.append(packet["packet"][packet["pos"] :])
            size += packet["to_process"]
        return b"".join(parts)


def _queued(
    command: int, packet: bytes | bytearray, mid: int = 0, qos: int = 1, info: MQTTMessageInfo | None = None
) -> Any:
    return {
        "command": command,
        "mid": mid,
        "qos": qos,
        "pos": 0,
        "to_process": len(packet),
        "packet": packet,
        "info": info,
    }
