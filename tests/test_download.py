"""Downloads over a network that breaks: whole files, right files, or a sentence that says what to do."""

import fcntl
import gzip
import hashlib
import json
import os
import random
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections import deque
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

import symcere as sc
from symcere.data.catalogue import PublicDataset, RawFile
from symcere.data.download import fetch

BODY = gzip.compress(random.Random(0).randbytes(200_000), mtime=0)
SHA = hashlib.sha256(BODY).hexdigest()
QUICK = {"backoff": 0.01, "timeout": 5.0}
STOP = [("drop", 50_000), ("status", (404, {}))]  # a first part, and then the end of the call


class Site:
    """A server on the loopback that misbehaves as told: each request takes one fault off the queue."""

    def __init__(self):
        self.body, self.etag, self.modified = BODY, '"v1"', formatdate(1e9, usegmt=True)
        self.ranges, self.length, self.slow = True, True, 0.0
        self.most, self.total = len(BODY), True  # bytes that a range is answered with; whether it says of how many
        self.faults, self.asked, self.sent = deque(), [], 0
        site = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                site.answer(self)

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.02,))
        self.thread.start()

    def close(self):
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()

    def answer(self, request):
        self.asked.append(dict(request.headers))
        kind, value = self.faults.popleft() if self.faults else ("none", None)
        if kind == "status":
            code, headers = value
            request.send_response(code)
            for name, text in headers.items():
                request.send_header(name, text)
            if self.length:
                request.send_header("Content-Length", "0")
            request.end_headers()
            return
        if kind == "break":
            request.protocol_version = "HTTP/1.1"  # which has chunks, and so knows of a body that it is not whole
            request.send_response(200)
            request.send_header("ETag", self.etag)
            request.send_header("Transfer-Encoding", "chunked")
            request.end_headers()
            request.wfile.write(b"%x\r\n%b\r\n" % (value, self.body[:value]))
            request.close_connection = True
            return
        if kind == "hang":
            time.sleep(value)
            return
        start = 0
        asked, condition = request.headers.get("Range"), request.headers.get("If-Range")
        if self.ranges and asked and condition in (None, self.etag, self.modified):
            start = int(asked.removeprefix("bytes=").removesuffix("-"))
        if start >= len(self.body):
            request.send_error(416)
            return
        body = self.body[start : start + self.most]
        request.send_response(206 if start else 200)
        if start:
            total = len(self.body) if self.total else "*"
            request.send_header("Content-Range", f"bytes {start}-{start + len(body) - 1}/{total}")
        if self.length:
            request.send_header("Content-Length", str(value if kind == "claim" else len(body)))
        for name, text in (("ETag", self.etag), ("Last-Modified", self.modified)):
            if text:
                request.send_header(name, text)
        request.end_headers()
        for at in range(0, len(body), 8192):
            chunk = body[at : at + 8192]
            if kind == "drop" and at + len(chunk) > value:
                request.wfile.write(chunk[: value - at])
                self.sent += value - at
                return
            try:
                request.wfile.write(chunk)
            except OSError:
                return
            self.sent += len(chunk)
            time.sleep(self.slow)


@pytest.fixture
def site(monkeypatch):
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    site = Site()
    yield site
    site.close()


@pytest.fixture
def url(site):
    return f"{site.url}/pub/reviews.json.gz"


def names(folder):
    return sorted(path.name for path in folder.iterdir())


WHOLE = [".reviews.json.gz.download.json", "reviews.json.gz"]


def test_a_file_arrives_byte_for_byte_with_a_record_of_where_it_came_from(site, url, tmp_path):
    seen = []
    file = fetch(url, tmp_path / "new" / "folder", on_progress=lambda *step: seen.append(step))
    assert file.path.read_bytes() == BODY
    assert (file.sha256, file.size, file.n_fetched, file.up_to_date) == (SHA, len(BODY), len(BODY), False)
    assert names(file.path.parent) == WHOLE
    record = json.loads((file.path.parent / WHOLE[0]).read_text())
    assert (record["address"], record["sha256"], record["size"], record["etag"]) == (url, SHA, len(BODY), '"v1"')
    assert record["modified"] == site.modified
    assert record["date"].startswith("20")
    assert ("reviews.json.gz", len(BODY), len(BODY), "") in seen
    assert site.asked[0]["User-Agent"] == f"symcere/{sc.__version__}"
    assert site.asked[0]["Accept-Encoding"] == "identity"


def test_a_second_fetch_is_up_to_date_and_asks_the_server_nothing(site, url, tmp_path):
    fetch(url, tmp_path)
    again = fetch(url, tmp_path)
    assert again.up_to_date
    assert again.n_fetched == 0
    assert len(site.asked) == 1


def test_a_connection_that_drops_many_times_is_resumed_each_time(site, url, tmp_path):
    site.faults.extend([("drop", 30_000)] * 6)  # more drops than attempts: each brings something new
    file = fetch(url, tmp_path, attempts=2, **QUICK)
    assert file.path.read_bytes() == BODY
    assert site.sent == len(BODY)
    assert [asked.get("If-Range") for asked in site.asked] == [None, *['"v1"'] * 6]
    assert [asked.get("Range") for asked in site.asked[1:3]] == ["bytes=30000-", "bytes=60000-"]


def test_a_date_serves_where_there_is_no_strong_etag(site, url, tmp_path):
    site.etag = 'W/"weak"'
    site.faults.append(("drop", 50_000))
    assert fetch(url, tmp_path, **QUICK).sha256 == SHA
    assert site.asked[1]["If-Range"] == site.modified
    assert site.sent == len(BODY)


def test_without_etag_and_date_nothing_says_that_the_file_is_the_same_so_it_starts_again(site, url, tmp_path):
    site.etag = site.modified = ""
    site.faults.extend(STOP)
    with pytest.raises(sc.DataError):
        fetch(url, tmp_path, **QUICK)
    assert fetch(url, tmp_path, **QUICK).sha256 == SHA
    assert site.sent == len(BODY) + 50_000


def test_a_server_that_ignores_ranges_sends_the_file_again(site, url, tmp_path):
    site.ranges = False
    site.faults.append(("drop", 50_000))
    assert fetch(url, tmp_path, **QUICK).sha256 == SHA
    assert site.sent == len(BODY) + 50_000


def test_a_server_that_ignores_ranges_and_always_drops_is_given_up(site, url, tmp_path):
    site.ranges = False
    site.faults.extend([("drop", 50_000)] * 99)
    with pytest.raises(sc.DataError, match=r"connection to 127\.0\.0\.1 was lost.*3 attempts.*goes on from there"):
        fetch(url, tmp_path, attempts=3, **QUICK)
    assert len(site.asked) == 4  # the first brought something new


@pytest.mark.parametrize("honest", [True, False])
def test_a_file_that_changes_between_attempts_is_never_a_mixture(site, url, tmp_path, honest):
    """Also when the server ignores If-Range, and only its ETag tells."""
    site.faults.extend(STOP)
    with pytest.raises(sc.DataError):
        fetch(url, tmp_path, **QUICK)
    old, site.etag = site.etag, '"v2"'
    site.body = gzip.compress(random.Random(1).randbytes(150_000), mtime=0)
    if not honest:
        site.modified = old  # what the client will ask for: the server takes it for valid
    assert fetch(url, tmp_path, **QUICK).path.read_bytes() == site.body
    assert len(site.asked) == (3 if honest else 4)


def test_a_body_of_unknown_length_is_taken_when_it_ends_and_goes_on_where_it_may(site, url, tmp_path):
    site.length = False
    assert fetch(url, tmp_path, **QUICK).sha256 == SHA


def test_a_body_of_unknown_length_that_breaks_off_is_found_out_by_its_gzip(site, url, tmp_path):
    site.length = False
    site.faults.append(("drop", 50_000))
    with pytest.raises(sc.DataError, match=r"not whole: the gzip data breaks off. It is kept as .*\.bad"):
        fetch(url, tmp_path, **QUICK)
    assert names(tmp_path) == ["reviews.json.gz.bad"]
    assert fetch(url, tmp_path, **QUICK).sha256 == SHA


def test_a_body_of_unknown_length_whose_rest_comes_in_pieces_is_whole_at_the_size_that_they_state(site, tmp_path):
    seen = []
    site.most = 60_000
    site.faults.append(("break", 50_000))
    file = fetch(f"{site.url}/reviews.json", tmp_path, backoff=0.6, on_progress=lambda *step: seen.append(step))
    assert file.path.read_bytes() == BODY
    assert [asked.get("Range") for asked in site.asked[:3]] == [None, "bytes=50000-", "bytes=110000-"]
    assert [note for *_, note in seen if "announced" in note] == [
        f"the server announced {len(BODY):,} bytes and sent {n:,}; again in 0 s" for n in (110_000, 170_000)
    ]


def test_the_size_that_a_range_states_outlives_the_call(site, tmp_path):
    site.most = 60_000
    site.faults.extend([("break", 50_000), ("none", None), ("status", (404, {}))])
    with pytest.raises(sc.DataError, match="answers 404"):
        fetch(f"{site.url}/reviews.json", tmp_path, **QUICK)
    assert json.loads((tmp_path / ".reviews.json.part.json").read_text())["size"] == len(BODY)
    assert fetch(f"{site.url}/reviews.json", tmp_path, **QUICK).path.read_bytes() == BODY
    assert site.sent == len(BODY) - 50_000


@pytest.mark.parametrize("total", [True, False])
def test_a_range_of_unknown_length_that_breaks_off_is_gone_on_with(site, tmp_path, total):
    site.length, site.total = False, total
    site.faults.extend([("break", 50_000), ("drop", 50_000)])
    assert fetch(f"{site.url}/reviews.json", tmp_path, **QUICK).path.read_bytes() == BODY
    assert [asked.get("Range") for asked in site.asked] == [None, "bytes=50000-", "bytes=100000-"]


@pytest.mark.parametrize("length", [True, False])
def test_an_empty_answer_is_no_file_and_is_asked_for_once(site, url, tmp_path, length):
    site.length = length
    site.faults.extend([("status", (200, {}))] * 5)
    with pytest.raises(sc.DataError, match=r"answers with nothing, where a file was expected\. See https://a\.page"):
        fetch(url, tmp_path, attempts=2, page="https://a.page", **QUICK)
    assert len(site.asked) == 1
    assert names(tmp_path) == []


def test_a_server_that_claims_more_than_it_has_is_given_up(site, url, tmp_path):
    site.faults.append(("claim", len(BODY) + 10))
    with pytest.raises(sc.DataError, match="attempts in a row brought nothing new"):
        fetch(url, tmp_path, attempts=1, **QUICK)
    assert not (tmp_path / "reviews.json.gz").exists()
    assert fetch(url, tmp_path, **QUICK).sha256 == SHA  # asks for the rest, is refused, starts again


def test_a_web_page_in_place_of_a_gzip_file_is_no_dataset(site, url, tmp_path):
    site.body = b"<!doctype html><p>Please log in"
    with pytest.raises(sc.DataError, match="begins with b'<!doctype html"):
        fetch(url, tmp_path, **QUICK)
    assert names(tmp_path) == ["reviews.json.gz.bad"]


@pytest.mark.parametrize(
    ("code", "sentence"),
    [
        (404, r"answers 404 .*no such file.*See https://a\.page"),
        (410, r"answers 410 .*no such file"),
        (403, r"answers 403 .*terms.*reviews\.json\.gz; --sha256"),
        (401, "answers 401"),
        (418, "answers 418 .*where a file was expected"),
        (204, "answers 204"),
    ],
)
def test_an_answer_that_will_not_change_is_asked_for_once(site, url, tmp_path, code, sentence):
    site.faults.append(("status", (code, {})))
    with pytest.raises(sc.DataError, match=sentence):
        fetch(url, tmp_path, page="https://a.page", **QUICK)
    assert len(site.asked) == 1
    assert not (tmp_path / "reviews.json.gz").exists()


@pytest.mark.parametrize("code", [408, 429, 500, 503])
def test_an_answer_that_may_change_is_asked_for_again(site, url, tmp_path, code):
    site.faults.extend([("status", (code, {}))] * 2)
    assert fetch(url, tmp_path, **QUICK).sha256 == SHA
    assert len(site.asked) == 3


def test_a_server_error_that_stays_is_given_up(site, url, tmp_path):
    site.faults.extend([("status", (500, {}))] * 9)
    with pytest.raises(sc.DataError, match=r"answers 500 .*3 attempts in a row"):
        fetch(url, tmp_path, attempts=3, **QUICK)
    assert len(site.asked) == 3


def test_retry_after_is_honoured(site, url, tmp_path):
    site.faults.append(("status", (429, {"Retry-After": "1"})))
    began = time.monotonic()
    assert fetch(url, tmp_path, **QUICK).sha256 == SHA
    assert time.monotonic() - began >= 1


def test_a_server_that_asks_to_come_back_tomorrow_is_taken_at_its_word(site, url, tmp_path):
    site.faults.append(("status", (503, {"Retry-After": formatdate(time.time() + 86_400, usegmt=True)})))
    with pytest.raises(sc.DataError, match=r"come back in 86[34]"):
        fetch(url, tmp_path, **QUICK)


def test_a_server_that_hangs_is_left_after_the_timeout(site, url, tmp_path):
    site.faults.extend([("hang", 0.5)] * 2)
    with pytest.raises(sc.DataError, match=r"127\.0\.0\.1 sent nothing for 0\.1 s"):
        fetch(url, tmp_path, attempts=2, backoff=0.01, timeout=0.1)


def test_redirects_are_followed_but_not_in_circles(site, url, tmp_path):
    site.faults.append(("status", (302, {"Location": "/elsewhere/other.gz"})))
    assert fetch(url, tmp_path, **QUICK).path.name == "reviews.json.gz"
    site.faults.extend([("status", (302, {"Location": "/pub/reviews.json.gz"}))] * 20)
    with pytest.raises(sc.DataError, match="redirects more than 10 times"):
        fetch(url, tmp_path / "b", **QUICK)


def test_a_redirect_leads_only_to_http_and_https(site, url, tmp_path):
    site.faults.append(("status", (302, {"Location": "ftp://127.0.0.1/x.gz"})))
    with pytest.raises(sc.DataError, match="other than http or https"):
        fetch(url, tmp_path, **QUICK)


def test_a_refused_connection_and_an_unknown_name_are_sentences(site, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(sc.DataError, match=r"no connection to 127\.0\.0\.1.*Check the network"):
        fetch(f"http://127.0.0.1:{port}/a.gz", tmp_path, attempts=2, **QUICK)
    with pytest.raises(sc.DataError, match=r"nowhere\.invalid is not known here: no network"):
        fetch("http://nowhere.invalid/a.gz", tmp_path, attempts=1, **QUICK)
    assert names(tmp_path) == []


def test_a_certificate_that_nobody_vouches_for_is_refused_at_once(site, tmp_path):
    made = subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=127.0.0.1",
         "-keyout", tmp_path / "key", "-out", tmp_path / "cert"],
        capture_output=True, check=False,
    )  # fmt: skip
    if made.returncode:
        pytest.skip("openssl cannot make a certificate")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "cert", tmp_path / "key")
    with socket.create_server(("127.0.0.1", 0)) as plain:

        def serve():
            client, _ = plain.accept()
            try:
                context.wrap_socket(client, server_side=True).close()
            except OSError:
                client.close()

        thread = threading.Thread(target=serve)
        thread.start()
        with pytest.raises(sc.DataError, match=r"certificate of 127\.0\.0\.1 cannot be verified"):
            fetch(f"https://127.0.0.1:{plain.getsockname()[1]}/a.gz", tmp_path / "o", **QUICK)
        thread.join()


def test_a_wrong_checksum_keeps_the_file_out_and_gives_both_hashes(site, url, tmp_path):
    with pytest.raises(sc.DataError, match=f"SHA-256 {SHA}, but {'0' * 64} was asked for"):
        fetch(url, tmp_path, sha256="0" * 64)
    assert names(tmp_path) == ["reviews.json.gz.bad"]
    assert fetch(url, tmp_path, sha256=SHA.upper()).sha256 == SHA


def test_a_later_fetch_is_held_against_the_recorded_checksum_until_the_user_accepts_another(site, url, tmp_path):
    path = fetch(url, tmp_path).path
    path.unlink()
    site.body, site.etag = gzip.compress(b"other", mtime=0), '"v2"'
    new = hashlib.sha256(site.body).hexdigest()
    with pytest.raises(sc.DataError, match=f"{new}, but {SHA} was recorded at the first fetch .* --sha256 {new}"):
        fetch(url, tmp_path)
    assert not path.exists()
    assert fetch(url, tmp_path, sha256=new).sha256 == new
    assert fetch(url, tmp_path).up_to_date


def test_a_damaged_file_is_fetched_again_and_kept_aside(site, url, tmp_path):
    path = fetch(url, tmp_path).path
    path.write_bytes(b"edited")
    assert not fetch(url, tmp_path).up_to_date
    assert path.read_bytes() == BODY
    assert (tmp_path / "reviews.json.gz.old").read_bytes() == b"edited"


def test_a_file_of_unknown_origin_is_neither_trusted_nor_replaced(site, url, tmp_path):
    path = tmp_path / "reviews.json.gz"
    path.write_bytes(BODY)
    with pytest.raises(sc.OutputError, match="was not fetched by symcere"):
        fetch(url, tmp_path)
    assert fetch(url, tmp_path, sha256=SHA).up_to_date  # vouched for
    assert fetch(url, tmp_path).up_to_date
    with pytest.raises(sc.OutputError, match="comes from http"):
        fetch(f"{site.url}/mirror/reviews.json.gz", tmp_path)
    assert site.asked == []


@pytest.mark.parametrize(
    "address",
    ["ftp://a.org/x.gz", "file:///etc/passwd", "http:///x.gz", "https://me:secret@a.org/x.gz", "https://a.org/x y",
     "https://a.org/", "https://a.org", "https://a.org/..", "https://a.org/%2e%2e%2fx", "https://a.org/.hidden",
     "http://[::1/x", "https://a.org/%00"],
)  # fmt: skip
def test_an_address_that_is_none_is_refused(address, tmp_path):
    with pytest.raises(sc.ConfigError, match="An address"):
        fetch(address, tmp_path)


def test_a_checksum_that_is_none_is_refused(url, tmp_path):
    with pytest.raises(sc.ConfigError, match="64 hexadecimal digits; found 'abc'"):
        fetch(url, tmp_path, sha256="abc")


def test_a_file_larger_than_the_disk_is_refused_before_it_is_fetched(site, url, tmp_path):
    site.faults.append(("claim", 10**18))
    with pytest.raises(sc.OutputError, match=r"needs 1,000,000,000,000,000,000 bytes more; .* has [\d,]+ free"):
        fetch(url, tmp_path)
    assert not (tmp_path / "reviews.json.gz").exists()


def test_a_disk_that_fills_up_is_a_sentence(site, url, tmp_path):
    (tmp_path / "reviews.json.gz.part").symlink_to("/dev/full")  # every write to it finds no space left
    with pytest.raises(sc.OutputError, match=r"No space left on device\. Free space.*goes on from there"):
        fetch(url, tmp_path)
    assert not (tmp_path / "reviews.json.gz").exists()


def test_a_folder_that_cannot_be_made_is_a_sentence(site, url, tmp_path):
    (tmp_path / "taken").write_text("")
    with pytest.raises(sc.OutputError, match=r"Cannot write .*choose another folder"):
        fetch(url, tmp_path / "taken" / "data")


CHILD = [sys.executable, "-m", "symcere", "download", "--quiet"]


def wait_until(met, child):
    limit = time.monotonic() + 30
    while not met():
        assert child.poll() is None
        assert time.monotonic() < limit
        time.sleep(0.01)


def test_after_sigkill_the_same_command_goes_on_from_there(site, url, tmp_path):
    site.slow = 0.05
    child = subprocess.Popen([*CHILD, url, "--out", tmp_path])
    part = tmp_path / "reviews.json.gz.part"
    wait_until(lambda: part.exists() and part.stat().st_size > 50_000, child)
    child.send_signal(signal.SIGKILL)
    child.wait()
    kept = part.stat().st_size
    assert names(tmp_path) == [".reviews.json.gz.part.json", "reviews.json.gz.part"]
    site.slow = 0.0
    done = subprocess.run([*CHILD, url, "--out", tmp_path, "--json"], capture_output=True, text=True, check=True)
    (file,) = json.loads(done.stdout)["files"]
    assert file["n_fetched"] == len(BODY) - kept
    assert (tmp_path / "reviews.json.gz").read_bytes() == BODY
    assert site.asked[-1]["Range"] == f"bytes={kept}-"
    assert names(tmp_path) == WHOLE


def test_an_interrupt_is_a_sentence_and_keeps_what_is_there(site, url, tmp_path):
    site.slow = 0.05
    child = subprocess.Popen([*CHILD, url, "--out", tmp_path], stderr=subprocess.PIPE, text=True)
    part = tmp_path / "reviews.json.gz.part"
    wait_until(lambda: part.exists() and part.stat().st_size > 20_000, child)
    child.send_signal(signal.SIGINT)
    assert "What has been fetched is kept" in child.communicate(timeout=30)[1]
    assert child.returncode == 130
    assert part.stat().st_size > 20_000


def test_killed_between_the_last_byte_and_the_final_name_nothing_is_fetched_again(site, url, tmp_path):
    """The two states that such a kill leaves: with the record written, and without."""
    path = fetch(url, tmp_path).path
    record = tmp_path / WHOLE[0]
    for keep_record in (True, False):
        path.rename(tmp_path / "reviews.json.gz.part")
        note = {"address": url, "etag": '"v1"', "modified": "", "size": len(BODY)}
        (tmp_path / ".reviews.json.gz.part.json").write_text(json.dumps(note))
        if not keep_record:
            record.unlink()
        assert fetch(url, tmp_path).n_fetched == 0
        assert names(tmp_path) == WHOLE
    assert len(site.asked) == 1


def test_a_part_of_another_address_or_with_a_torn_note_is_not_gone_on_with(site, url, tmp_path):
    for note in (
        '{"address": "http://other/reviews.json.gz", "etag": "\\"v1\\"", "modified": "", "size": 11}',
        '{"addr',
    ):
        (tmp_path / "reviews.json.gz.part").write_bytes(b"other bytes")
        (tmp_path / ".reviews.json.gz.part.json").write_text(note)
        path = fetch(url, tmp_path).path
        assert path.read_bytes() == BODY
        path.unlink()


def test_two_processes_that_want_the_same_file_fetch_it_once(site, url, tmp_path):
    site.slow = 0.02
    children = [
        subprocess.Popen([*CHILD, url, "--out", tmp_path, "--json"], stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    found = [json.loads(child.communicate(timeout=60)[0])["files"][0] for child in children]
    assert sorted(file["n_fetched"] for file in found) == [0, 0, len(BODY)]
    assert site.sent == len(BODY)
    assert names(tmp_path) == WHOLE
    assert (tmp_path / "reviews.json.gz").read_bytes() == BODY


def test_a_part_that_another_process_holds_is_waited_for_and_left_alone_when_it_is_moved(site, url, tmp_path):
    part, moved = tmp_path / "reviews.json.gz.part", tmp_path / "moved"
    with part.open("ab") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        thread = threading.Thread(target=fetch, args=(url, tmp_path))
        thread.start()
        time.sleep(0.2)
        assert site.asked == []
        part.rename(moved)
    thread.join()
    assert len(site.asked) == 1
    assert moved.read_bytes() == b""
    assert (tmp_path / "reviews.json.gz").read_bytes() == BODY


@pytest.fixture
def dataset(site):
    files = (
        RawFile("reviews", "reviews.json.gz", f"{site.url}/reviews.json.gz"),
        RawFile("items", "meta.json.gz", f"{site.url}/meta.json.gz"),
    )
    return PublicDataset("small", "books", "goodreads", files, "JSON", 9, "none", "A. 2020.", "https://a.page")


def test_a_dataset_has_a_folder_of_its_own_and_items_when_asked(dataset, tmp_path):
    assert [file.path for file in sc.download(dataset, tmp_path)] == [tmp_path / "small" / "reviews.json.gz"]
    found = sc.download(dataset, tmp_path, items=True)
    assert [file.path.name for file in found] == ["reviews.json.gz", "meta.json.gz"]
    assert [file.up_to_date for file in found] == [True, False]


def test_a_published_checksum_is_held_against_the_file(site, tmp_path):
    files = (RawFile("reviews", "reviews.json.gz", f"{site.url}/reviews.json.gz", sha256="1" * 64),)
    record = PublicDataset("small", "books", "goodreads", files, "JSON", 9, "none", "A. 2020.", "https://a.page")
    with pytest.raises(sc.DataError, match=f"but {'1' * 64} was asked for or published"):
        sc.download(record, tmp_path)


def test_what_must_be_fetched_by_hand_says_how_and_is_then_taken(symcere, tmp_path):
    code, out, err = symcere("download", "yelp", "--out", tmp_path)
    assert code == 2
    assert "accept its terms on the page" in err
    assert f"Put yelp_academic_dataset_review.json into {tmp_path / 'yelp'}" in err
    file = tmp_path / "yelp" / "yelp_academic_dataset_review.json"
    file.parent.mkdir()
    file.write_text('{"stars": 5}\n')
    code, out, err = symcere("download", "yelp", "--out", tmp_path)
    assert code == 0
    assert "up to date" in out
    file.write_text('{"stars": 1}\n')
    code, _, err = symcere("download", "yelp", "--out", tmp_path)
    assert code == 2
    assert "accept it with --sha256" in err


def test_the_command_prints_the_file_its_checksum_and_the_next_command(site, url, symcere, tmp_path):
    site.faults.append(("status", (503, {"Retry-After": "0"})))
    code, out, err = symcere("download", url, "--out", tmp_path)
    assert code == 0, err
    assert "answers 503 Service Unavailable; again in 0 s" in err
    assert SHA in out
    assert f"Next: symcere run {tmp_path / 'reviews.json.gz'}" in out
    code, out, _ = symcere("download", url, "--out", tmp_path, "--json")
    found = json.loads(out)
    assert found["next"] == f"symcere run {tmp_path / 'reviews.json.gz'}"
    assert found["files"][0]["up_to_date"] is True
    assert symcere("download", url, "--out", tmp_path, "--quiet") == (0, "", "")


def test_the_next_command_for_an_archive_unpacks_it(site, symcere, tmp_path):
    site.body = b"PK"
    found = json.loads(symcere("download", f"{site.url}/Review_Texts.zip", "--out", tmp_path, "--json")[1])
    assert found["next"] == f"python3 -m zipfile -e {tmp_path / 'Review_Texts.zip'} {tmp_path / 'Review_Texts'}"


def test_errors_of_the_command_are_sentences(site, symcere, tmp_path):
    site.faults.append(("status", (404, {})))
    code, out, err = symcere("download", f"{site.url}/gone.gz", "--out", tmp_path)
    assert (code, out) == (2, "")
    assert err.startswith("Error http://127.0.0.1")
    assert "Name a dataset" in symcere("download")[2]
    assert "amazon-2014-pet-supplies-5" in symcere("download", "pet")[2]


def test_the_list_and_a_record_are_shown_for_people_and_for_machines(symcere):
    assert "hotelrec" in symcere("download", "--list")[1]
    rows = json.loads(symcere("download", "--list", "--json")[1])
    assert [row["name"] for row in rows] == [dataset.name for dataset in sc.CATALOGUE]
    shown = symcere("download", "steam", "--show")[1]
    record = json.loads(symcere("download", "steam", "--show", "--json")[1])
    assert record == rows[[row["name"] for row in rows].index("steam")]
    assert all(part in shown for part in (record["citation"], record["page"], record["files"][0]["address"]))


def test_the_list_needs_no_network_library_and_a_download_neither_torch_nor_polars(site, url, tmp_path):
    code = (
        "import sys\nfrom symcere.cli import app\n"
        "app(sys.argv[1:], standalone_mode=False)\n"
        "print(*{name.split('.')[0] for name in sys.modules}, file=sys.stderr)"
    )
    heavy = {"torch", "polars", "numpy"}
    for words, unwanted in ((["--list"], heavy | {"httpx"}), ([url, "--out", tmp_path], heavy)):
        done = subprocess.run(
            [sys.executable, "-c", code, "download", *words], capture_output=True, text=True, check=True,
            env=os.environ,
        )  # fmt: skip
        assert unwanted & set(done.stderr.split()) == set()
