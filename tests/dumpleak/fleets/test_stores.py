"""Inputs in stores elsewhere: an S3 server on this machine, memory, file URLs."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import fsspec
import pytest
from fleet_inputs import TINY, dump, log
from moto.server import ThreadedMotoServer

import dumpleak

BUCKET = "crashes"


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """An empty bucket; credentials and place come from the environment, as they do for anybody."""
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    endpoint = f"http://{host}:{port}"
    for name, value in {
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",  # pragma: allowlist secret
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": endpoint,
    }.items():
        monkeypatch.setenv(name, value)
    client = boto3.client("s3")
    client.create_bucket(Bucket=BUCKET)
    try:
        yield client
    finally:
        client.close()
        fsspec.get_filesystem_class("s3").clear_instance_cache()
        server.stop()


def test_a_bucket_is_read_like_a_folder_and_once(bucket: Any, run: Any, tmp_path: Path) -> None:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as made:
        made.writestr("a.dmp.gz", dump(1))
        made.writestr("b.dmp.gz", dump(2))
    objects = {
        "2026/one.dmp.gz": dump(0),
        "2026/deep/u.log": log(3),
        "2026/broken.dmp": b"MDMP" + bytes(20),
        "2026/notes.txt": b"no dump",
        "2026/many.zip": archive.getvalue(),
        "elsewhere/two.dmp.gz": dump(5),
    }
    for key, content in objects.items():
        bucket.put_object(Bucket=BUCKET, Key=key, Body=content)
    first = dumpleak.fleet(f"s3://{BUCKET}/2026/", tmp_path, workers=1)
    found = {row["url"]: row["status"] for row in first.dumps.to_pylist()}
    top = f"s3://{BUCKET}/2026"
    assert found == {
        f"{top}/broken.dmp": "error",
        f"{top}/deep/u.log": "read",
        f"{top}/many.zip!a.dmp.gz": "read",
        f"{top}/many.zip!b.dmp.gz": "read",
        f"{top}/one.dmp.gz": "read",
    }
    assert first.seen.others == 1
    for row in first.dumps.to_pylist():
        assert (row["error"] or row["url"]).startswith(row["url"])
    bucket.put_object(Bucket=BUCKET, Key="2026/new.dmp.gz", Body=dump(7))
    bucket.put_object(Bucket=BUCKET, Key="2026/one.dmp.gz", Body=dump(8))
    code, _, err = run("fleet", f"s3://{BUCKET}/*/*.dmp.gz", "-o", tmp_path, "--workers", 1)
    assert code == 0
    assert "3 inputs: 0 known, 3 to read" in err


def test_what_is_not_in_a_store_is_said_in_one_line(bucket: Any, run: Any, tmp_path: Path) -> None:
    code, out, err = run("fleet", f"s3://{BUCKET}/nothing", "-o", tmp_path)
    assert (code, out) == (3, "")
    assert err.startswith(f"dumpleak: s3://{BUCKET}/nothing: ")
    assert len(err.splitlines()) == 1
    code, _, err = run("fleet", "nonsense://x/y", "-o", tmp_path)
    assert code == 3
    assert "nonsense" in err
    assert "internal error" not in err


def test_missing_credentials_are_said_in_one_line(
    bucket: Any, run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    code, out, err = run("fleet", f"s3://{BUCKET}/x/", "-o", tmp_path / "out")
    assert (code, out) == (3, "")
    assert err == f"dumpleak: s3://{BUCKET}/x/: Unable to locate credentials\n"


def test_a_file_url_is_the_file(tmp_path: Path) -> None:
    ran = dumpleak.fleet([f"file://{TINY[0]}", TINY[0]], tmp_path, workers=1)
    assert [row["url"] for row in ran.dumps.to_pylist()] == [str(TINY[0])]
