"""Requests: from what is there to a complete body, over a network that breaks."""

import email.utils
import re
import shutil
import socket
import ssl
import time
import urllib.parse
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import httpx

from symcere.data.download.part import NOTHING_LOST, Origin, Part
from symcere.errors import DataError, OutputError
from symcere.manifest import VERSION

_LONGEST_WAIT = 300.0  # a server that asks for more is a matter for another day

OnProgress = Callable[[str, int, int | None, str], None]
"""Called with the file's name, the bytes that are there, the bytes in all (None where unknown), and a note."""


class AttemptError(Exception):
    """An attempt failed and another may not; with the seconds to wait where the server said them."""

    def __init__(self, reason: str, wait: float | None = None) -> None:
        super().__init__(reason)
        self.wait = wait


def fill(part: Part, path: Path, page: str, attempts: int, backoff: float, timeout: float, tell: OnProgress) -> None:
    """Make requests until the part is complete; raise DataError when they bring nothing new any more."""
    host = urllib.parse.urlsplit(part.address).hostname or ""
    most, failures = len(part), 0
    headers = {"User-Agent": f"symcere/{VERSION}", "Accept-Encoding": "identity"}
    with httpx.Client(follow_redirects=True, max_redirects=10, timeout=timeout, headers=headers) as client:
        while not part.complete:
            try:
                _request(client, part, path, page, tell)
            except (httpx.HTTPError, AttemptError) as error:
                reason = _reason(error, host, timeout)
                failures = 0 if len(part) > most else failures + 1
                most = max(most, len(part))
                if failures >= attempts:
                    raise DataError(
                        f"{path.name} cannot be fetched: {reason}; {attempts} attempts in a row brought nothing new. "
                        f"Check the network, or try later. {NOTHING_LOST}"
                    ) from error
                wait = getattr(error, "wait", None)
                wait = min(backoff * 2 ** max(failures - 1, 0), 60.0) if wait is None else wait
                size = part.origin.size if part.origin else None
                tell(path.name, len(part), size, f"{reason}; again in {wait:.0f} s")
                time.sleep(wait)


def _request(client: httpx.Client, part: Part, path: Path, page: str, tell: OnProgress) -> None:
    """Ask once for what is missing, and write what comes."""
    ask = {}
    if len(part) and part.origin:
        ask = {"Range": f"bytes={len(part)}-", "If-Range": part.origin.validator}
    end = None
    with client.stream("GET", part.address, headers=ask) as response:
        _check_status(response, path, page)
        if response.status_code == httpx.codes.PARTIAL_CONTENT:
            end = _end_of_range(response, part)
        elif response.status_code == httpx.codes.OK:  # also where Range is ignored, or the original has changed
            part.begin(_origin(part.address, response, response.headers.get("Content-Length")))
        else:
            part.clear()
            raise AttemptError(f"the server refuses to go on ({response.status_code})", 0.0)
        assert part.origin is not None
        size = part.origin.size
        _check_space(path, size, len(part))
        for chunk in response.iter_raw():  # as they come: what is compressed on the server stays so
            part.write(chunk)
            tell(path.name, len(part), size, "")
    if not len(part) and not size:
        part.clear()
        raise DataError(f"{part.address} answers with nothing, where a file was expected.{_where(page)}.")
    _check_end(part, end)
    part.note_size(len(part))


def _check_end(part: Part, end: int | None) -> None:
    """Raise AttemptError unless all that was announced is there; `end` is where the range that came was to end."""
    n_there, size = len(part), part.origin.size if part.origin else None
    announced = end if size is None else size
    if announced is None or n_there == announced:
        return
    if n_there > announced:
        part.clear()
    whole_range = n_there == end  # a server may answer with less than was asked for: no reason to wait
    raise AttemptError(f"the server announced {announced:,} bytes and sent {n_there:,}", 0.0 if whole_range else None)


def _check_status(response: httpx.Response, path: Path, page: str) -> None:
    """Raise DataError where another attempt is in vain, AttemptError where it may not be."""
    code = response.status_code
    asked = f"{response.request.url} answers {code} {response.reason_phrase}"
    where = _where(page)
    if code in (200, 206, 416):
        return
    if code in (404, 410):
        raise DataError(f"{asked}: there is no such file any more, or not yet.{where}; another address can be named.")
    if code in (401, 403, 407, 451):
        raise DataError(
            f"{asked}: it may not be fetched from here, or only once terms are accepted.{where}. A file fetched by "
            f"hand may stand as {path}; --sha256 HEX then says that it is the right one."
        )
    if code in (408, 425, 429) or code >= 500:
        wait = _seconds_to_wait(response.headers.get("Retry-After", ""))
        if wait is not None and wait > _LONGEST_WAIT:
            raise DataError(f"{asked} and asks to come back in {wait:.0f} s. {NOTHING_LOST}")
        raise AttemptError(asked, wait)
    raise DataError(f"{asked}, where a file was expected.{where}.")


def _where(page: str) -> str:
    return f" See {page}" if page else " Check the address"


def _seconds_to_wait(words: str) -> float | None:
    """Retry-After as seconds from now: a number, or a date."""
    if words.strip().isdecimal():
        return float(words)
    try:
        moment = email.utils.parsedate_to_datetime(words)
    except ValueError:
        return None
    return max(0.0, (moment.astimezone(UTC) - datetime.now(UTC)).total_seconds())


def _origin(address: str, response: httpx.Response, size: str | None) -> Origin:
    headers = response.headers
    n_bytes = int(size) if size and size.isdecimal() else None
    return Origin(address, headers.get("ETag", ""), headers.get("Last-Modified", ""), n_bytes)


def _end_of_range(response: httpx.Response, part: Part) -> int:
    """Return the size that the answer brings the part to, and note the size in all where it says it.

    Start again unless it begins where the part ends, in the same version of the original.
    """
    found = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+|\*)", response.headers.get("Content-Range", "").strip())
    other = _origin(part.address, response, found[3] if found else None)
    if not (found and int(found[1]) == len(part) and part.origin and part.origin.agrees(other)):
        part.clear()
        raise AttemptError("the file has changed on the server since the first part of it was fetched", 0.0)
    if other.size is not None:
        part.note_size(other.size)
    return int(found[2]) + 1


def _check_space(path: Path, size: int | None, n_there: int) -> None:
    free = shutil.disk_usage(path.parent).free
    if size is not None and size - n_there > free:
        raise OutputError(
            f"{path.name} needs {size - n_there:,} bytes more; {path.parent} has {free:,} free. Free space, or "
            f"choose another folder (--out). {NOTHING_LOST}"
        )


def _reason(error: Exception, host: str, timeout: float) -> str:
    """Say what went wrong in words; a certificate that cannot be verified is no matter of trying again."""
    causes: list[BaseException] = [error]
    while cause := causes[-1].__cause__ or causes[-1].__context__:
        causes.append(cause)
    if any(isinstance(cause, ssl.SSLCertVerificationError) for cause in causes):
        raise DataError(
            f"The certificate of {host} cannot be verified ({causes[-1]}). Check this machine's clock and its "
            "certificates; nothing is ever fetched without."
        ) from error
    if isinstance(error, httpx.TooManyRedirects):
        raise DataError(f"{host} redirects more than 10 times. Check the address.") from error
    if isinstance(error, httpx.UnsupportedProtocol):
        raise DataError(f"{host} redirects to something other than http or https. Check the address.") from error
    if isinstance(error, AttemptError):
        return str(error)
    if any(isinstance(cause, socket.gaierror) for cause in causes):
        return f"the name {host} is not known here: no network, or no such server"
    if isinstance(error, httpx.TimeoutException):
        return f"{host} sent nothing for {timeout:g} s"
    if isinstance(error, httpx.ConnectError):
        return f"no connection to {host} ({error})"
    return f"the connection to {host} was lost ({error or type(error).__name__})"
