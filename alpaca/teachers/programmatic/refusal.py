"""Errors in OpenAI's form: what this server cannot do it refuses, rather than ignoring it silently."""

from __future__ import annotations

from http import HTTPStatus


class RefusedError(Exception):
    """A request that is answered with an error of OpenAI's form."""

    def __init__(self, status: HTTPStatus, message: str, *, code: str | None = None, param: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.body = {"error": {"message": message, "type": "invalid_request_error", "param": param, "code": code}}


def bad_request(message: str, *, param: str | None = None, code: str | None = None) -> RefusedError:
    """A 400 to be raised; param: the field at fault."""
    return RefusedError(HTTPStatus.BAD_REQUEST, message, param=param, code=code)


def not_found(message: str, *, param: str | None = None, code: str | None = None) -> RefusedError:
    """A 404 to be raised."""
    return RefusedError(HTTPStatus.NOT_FOUND, message, param=param, code=code)
