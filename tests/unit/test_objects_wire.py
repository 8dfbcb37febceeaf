"""Answers that are read whole or not at all, wherever they break off."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager

import pytest

from holdfast.s3.wire import BrokenAnswerError, Connection, Head

SIZED = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-Amz-Meta-A: \xc3\xbc\r\n\r\nhello"
CHUNKED = (
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"3;note=x\r\nhel\r\n2\r\nlo\r\n0\r\nAfter: wards\r\n\r\n"
)
EMPTY = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX-Amz-Meta-A: b\r\n\r\n"


@contextmanager
def answering(said: bytes) -> Iterator[tuple[Connection, socket.socket]]:
    """Give a connection to a server that says this, whatever it is asked, and ends."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with closing(Connection("127.0.0.1", port, None, 5, 5)) as connection:
            server, _address = listener.accept()
            with server:
                server.sendall(said)
                server.shutdown(socket.SHUT_WR)
                yield connection, server


def read(said: bytes, method: str = "GET") -> tuple[Head, bytes]:
    with answering(said) as (connection, _server):
        head = connection.head(method)
        return head, connection.read(head)


@pytest.mark.parametrize("said", [SIZED, CHUNKED], ids=["sized", "chunked"])
def test_a_whole_answer_is_read(said: bytes) -> None:
    head, body = read(said)
    assert (head.status, body) == (200, b"hello")


@pytest.mark.parametrize("said", [SIZED, CHUNKED, EMPTY], ids=["sized", "chunked", "empty"])
def test_an_answer_that_breaks_off_anywhere_is_not_taken(said: bytes) -> None:
    for size in range(len(said)):
        with pytest.raises(BrokenAnswerError):
            read(said[:size])


def test_headers_that_break_off_are_not_taken_where_no_body_follows() -> None:
    head, _body = read(SIZED[: -len(b"hello")], "HEAD")
    assert head.headers["x-amz-meta-a"] == "ü"
    for size in range(len(SIZED) - len(b"hello")):
        with pytest.raises(BrokenAnswerError):
            read(SIZED[:size], "HEAD")


def test_an_answer_may_be_announced() -> None:
    assert read(b"HTTP/1.1 100 Continue\r\n\r\n" + SIZED)[1] == b"hello"


def test_an_answer_without_a_length_ends_with_its_connection() -> None:
    head, body = read(b"HTTP/1.1 200 OK\r\n\r\nhello")
    assert body == b"hello"
    assert head.closes


def test_headers_that_come_twice_are_kept_both() -> None:
    assert read(b"HTTP/1.1 204 None\r\nA: 1\r\na: 2\r\n\r\n")[0].headers == {"a": "1, 2"}


@pytest.mark.parametrize(
    "said",
    [
        b"SSH-2.0-OpenSSH\r\n",
        b"HTTP/1.1 abc\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nA: b\r\n folded: c\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5, 6\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 2000,
        b"HTTP/1.1 200 OK\r\nA: " + b"b" * 100_000,
    ],
)
def test_what_is_no_answer_is_refused(said: bytes) -> None:
    with pytest.raises(BrokenAnswerError):
        read(said)


def test_a_header_cannot_smuggle_another_one() -> None:
    with answering(b"") as (connection, _server), pytest.raises(ValueError, match="content-type"):
        connection.send("PUT", "/", {"content-type": b"a\r\nx-evil: b"}, b"")


def test_a_request_is_sent_as_it_is_written() -> None:
    with answering(b"") as (connection, server):
        connection.send("PUT", "/b/k", {"host": b"h"}, b"body")
        expected = b"PUT /b/k HTTP/1.1\r\nhost: h\r\ncontent-length: 4\r\n\r\nbody"
        received = b""
        while len(received) < len(expected):
            received += server.recv(1000)
    assert received == expected
