"""Tools that are no part of us look at the service and at the lock (`make peers`)."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

import symcere as sc

ROOT = Path(__file__).parents[1]
CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"


def tool(name):
    """A tool of the environment of peers."""
    path = ROOT / ".venv-peers" / "bin" / name
    if not path.exists():
        pytest.skip(f"there is no {name}: make peers")
    return str(path)


@contextlib.contextmanager
def served(bundle, *more):
    """The address of a server of a bundle."""
    with contextlib.closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "symcere", "serve", str(bundle), "--port", str(port), "--rate", "0", *more]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as server:
        try:
            for _ in range(300):
                with contextlib.closing(socket.socket()) as probe:
                    if probe.connect_ex(("127.0.0.1", port)) == 0:
                        break
                time.sleep(0.1)
            yield f"http://127.0.0.1:{port}"
        finally:
            server.send_signal(signal.SIGTERM)


@pytest.mark.slow
def test_the_service_keeps_to_its_openapi(split, quick, tmp_path):
    schemathesis = tool("schemathesis")
    text = sc.encode_reviews(split.train, sc.tfidf_encoder(8))
    model = sc.fit(split.train, text, valid=split.valid, settings=quick)
    sc.write_bundle(sc.Explainer.of(split.train, text, model, sc.tfidf_encoder(8)), sc.Items(), tmp_path / "bundle")
    with served(tmp_path / "bundle", "--feedback", str(tmp_path / "feedback.db")) as url:
        command = [schemathesis, "run", f"{url}/openapi.json", "--checks", CHECKS, "--max-examples", "40",
                   "--seed", "0", "--no-color"]  # fmt: skip
        done = subprocess.run(command, cwd=tmp_path, check=False, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout[-4_000:]


@pytest.mark.slow
def test_no_pinned_package_has_a_known_hole():
    command = [tool("pip-audit"), "-r", str(ROOT / "requirements.lock"), "--no-deps", "--disable-pip", "-f", "json"]
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=os.environ | {"NO_COLOR": "1"})
    if not done.stdout.strip():
        pytest.skip(f"nobody to ask about known holes: {done.stderr.strip()[-200:]}")
    packages = json.loads(done.stdout)["dependencies"]
    asked = [package for package in packages if "vulns" in package]
    if not asked:
        pytest.skip("the index that pip uses tells of no known holes")
    holes = {package["name"]: [hole["id"] for hole in package["vulns"]] for package in asked if package["vulns"]}
    assert not holes
