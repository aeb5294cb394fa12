"""Whole commands on files behind URLs: those of docs/remote.md, word by word."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from launcher.cli import main

ROOT = Path(__file__).parents[2]
DIGITS = ROOT / "examples" / "digits" / "checkpoint"
HOST = "https://models.example.com"
RUN = "digits/job.yaml --ranks 4 --output out/"


def test_ranks_load_slices_from_a_web_server_and_fetch_each_byte_once(server, remote_guide):
    shutil.copytree(DIGITS, server.folder / "digits")
    done = remote_guide(RUN, {HOST: server.root})
    assert done.returncode == 0, done.stderr
    assert "accuracy     99.17% of 360 predictions" in done.stdout
    fetched = [(asked.path, byte) for asked in server.data for byte in asked.bytes]
    assert fetched and len(fetched) == len(set(fetched))


def test_files_behind_urls_are_transformed_and_inspected(server, remote_guide, tmp_path):
    shutil.copytree(DIGITS, server.folder / "digits")
    for text in ("launcher transform", "--cache-size 200G"):
        places = {HOST: server.root, "/tmp/weights": str(tmp_path / "weights")}
        done = remote_guide(text, places)
        assert done.returncode == 0, done.stderr
    assert "strategy    http://" in done.stdout
    strategy = str(DIGITS / "strategy.ckpt")
    assert main(["transform", str(DIGITS), str(tmp_path / "local"), "--strategy", strategy]) == 0
    (here,), (there,) = (list((tmp_path / name).iterdir()) for name in ("local", "whole"))
    assert here.read_bytes() == there.read_bytes()


def test_a_plan_from_s3_reads_what_a_plan_from_files_does(remote_guide):
    boto3 = pytest.importorskip("boto3")
    from moto.server import ThreadedMotoServer

    keys = {"AWS_ACCESS_KEY_ID": "one", "AWS_SECRET_ACCESS_KEY": "two"}
    s3 = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    s3.start()
    try:
        endpoint = "http://{}:{}".format(*s3.get_host_and_port())
        client = boto3.client(
            "s3",
            endpoint_url=endpoint,
            region_name="us-east-1",
            aws_access_key_id="one",
            aws_secret_access_key="two",
        )
        client.create_bucket(Bucket="models")
        for file in DIGITS.rglob("*.ckpt"):
            client.upload_file(str(file), "models", f"digits/{file.relative_to(DIGITS)}")
        done = remote_guide("s3://", {"https://obs.example.com": endpoint}, **keys)
    finally:
        s3.stop()
    assert done.returncode == 0, done.stderr
    assert "checkpoint  s3://models/digits (8 files" in done.stdout
    assert "checkpoint  s3://models/digits/rank_0/digits-25_22.ckpt: ckpt" in done.stdout


def test_a_url_that_leads_nowhere_ends_before_a_rank_starts(server, remote_guide):
    places = {HOST: server.root, "strategy.ckpt": "strategy.ckpt?token=s3cret"}
    done = remote_guide(RUN, places)
    assert done.returncode == 2
    assert "/digits/strategy.ckpt: there is no such file" in done.stderr
    assert "s3cret" not in done.stdout + done.stderr and not done.stdout
