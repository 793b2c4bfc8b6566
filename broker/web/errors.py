"""The error of the web servers."""

from broker.errors import BrokerError

__all__ = [
    "WebServerError",
]


class WebServerError(BrokerError):
    """A web server cannot use its certificate or its address."""

    code = "web_server_error"
