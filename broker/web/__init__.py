"""Serves ASGI applications over HTTP or HTTPS: the enrolment server and the API."""
