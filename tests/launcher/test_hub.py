"""What the names of MindSpore Hub stand for."""

from __future__ import annotations

import sys

import pytest
from pydantic import ValidationError

from launcher.errors import JobError
from launcher.hub import DEFAULT_URL, parse_asset_page, resolve
from launcher.job import Job

MODEL = "mindspore/1.10/cyclegan_GB_apple2orange"
SHA256 = "5af63526dafc4868f43fd6eb72bc51e52d045140c6467e18095cd5ee28303433"
# In the form of the hub's own pages, with the line that is no YAML.
PAGE = f"""\
# CycleGAN

---

model-name: CycleGAN

backbone-name: CycleGAN

fine-tunable: True

evaluation: -

update-time: 2023-2-17

repo-link: <https://gitee.com/mindspore/models/tree/r1.10/research/cv/CycleGAN>

asset:

-
    file-format: mindir
    asset-link: <https://download.example.com/cyclegan.mindir>
    asset-sha256: {"0" * 64}

-
    file-format: ckpt
    asset-link: <https://download.example.com/cyclegan.ckpt>
    asset-sha256: {SHA256}

license: Apache2.0

summary: CycleGAN is used for cv

---

## Introduction

model-name: not this one
"""


@pytest.fixture
def pages(tmp_path):
    """A folder like mshub_res/assets with one page."""
    page = tmp_path / "assets" / f"{MODEL}.md"
    page.parent.mkdir(parents=True)
    page.write_text(PAGE)
    return tmp_path / "assets"


@pytest.fixture
def code(tmp_path):
    """A folder with the code of the model; it is not run."""
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "mindspore_hub_conf.py").write_text("raise SystemExit('was run')")
    return tmp_path / "code"


def test_a_page_says_where_code_and_weights_are():
    page = parse_asset_page(PAGE, "page")
    assert page.name == "CycleGAN"
    assert page.repo_link == "https://gitee.com/mindspore/models/tree/r1.10/research/cv/CycleGAN"
    assert (page.asset_link, page.asset_sha256) == (
        "https://download.example.com/cyclegan.ckpt",
        SHA256,
    )


def test_links_without_angle_brackets_and_items_in_one_line():
    text = PAGE.replace("<", "").replace(">", "").replace("-\n    file", "- file")
    assert parse_asset_page(text, "page") == parse_asset_page(PAGE, "page")


@pytest.mark.parametrize(
    "before, after, named",
    [
        ("file-format: ckpt", "file-format: onnx", "names no asset-link, asset-sha256"),
        ("repo-link: ", "repo: ", "names no repo-link"),
        ("---\n", "\n", "names no model-name"),
        (SHA256, "12ab", "'12ab' is no SHA-256"),
    ],
)
def test_a_page_that_lacks_something_is_refused(before, after, named):
    with pytest.raises(JobError, match=named):
        parse_asset_page(PAGE.replace(before, after), "page")


@pytest.mark.parametrize("given", ["network", "checkpoint"])
def test_a_network_comes_with_its_weights_and_the_other_way_round(given, pages, code):
    values = {given: f"hub:{MODEL}", "hub_url": pages, "hub_folder": code}
    job = Job.model_validate({"predict_data": "net:data", "ranks": 1} | values)
    resolved = resolve(job, {})
    assert resolved.network == f"{code}/mindspore_hub_conf.py:create_network"
    assert resolved.network_args == {"name": "cyclegan"}
    assert resolved.checkpoint == f"https://download.example.com/cyclegan.ckpt#sha256={SHA256}"


def test_either_half_may_be_ones_own(make_job, pages, code):
    of_hub = {"hub_url": pages, "hub_folder": code}
    job = resolve(make_job(network=f"hub:{MODEL}", checkpoint="/mine.ckpt", **of_hub), {})
    assert job.checkpoint == "/mine.ckpt"
    job = resolve(make_job(checkpoint=f"hub:{MODEL}", **of_hub), {})
    assert job.network == "net:make" and job.checkpoint.endswith(SHA256)


def test_arguments_reach_the_network(make_job, pages, code):
    job = make_job(
        network=f"hub:{MODEL}", hub_url=pages, hub_folder=code, network_args='{"num_classes": 10}'
    )
    assert resolve(job, {}).network_args == {"name": "cyclegan", "num_classes": 10}
    with pytest.raises(ValidationError, match="is no JSON"):
        make_job(network_args="num_classes=10")


def test_the_environment_names_another_hub(make_job, pages, code):
    job = make_job(network=f"hub:{MODEL}", hub_folder=code)
    assert resolve(job, {"LAUNCHER_HUB_URL": str(pages)}).network_args == {"name": "cyclegan"}
    assert DEFAULT_URL.startswith("https://gitee.com/mindspore/hub/raw/")


def test_without_code_the_error_says_what_to_clone(make_job, pages, tmp_path):
    with pytest.raises(JobError, match="clone https://gitee.com/.*CycleGAN .*--hub-folder"):
        resolve(make_job(network=f"hub:{MODEL}", hub_url=pages), {})
    with pytest.raises(JobError, match="there is no file .*mindspore_hub_conf.py"):
        resolve(make_job(network=f"hub:{MODEL}", hub_url=pages, hub_folder=tmp_path), {})


def test_code_is_downloaded_for_those_who_trust_it_only(make_job, pages, tmp_path):
    (tmp_path / "mindspore_hub.py").write_text("raise SystemExit('was run')")
    values = {"network": f"hub:{MODEL}", "hub_url": pages, "search_path": [str(tmp_path)]}
    with pytest.raises(JobError, match="--trust-code"):
        resolve(make_job(**values), {})
    job = resolve(make_job(**values, trust_code=True), {})
    assert job.network == "mindspore_hub:load"
    assert job.network_args == {"name": MODEL, "pretrained": False}
    assert "mindspore_hub" not in sys.modules


def test_a_model_that_the_hub_has_not(make_job, pages):
    with pytest.raises(JobError, match="network: the hub has no mindspore/1.7/none"):
        resolve(make_job(network="hub:mindspore/1.7/none", hub_url=pages), {})
    with pytest.raises(ValidationError, match="names no model"):
        make_job(network="hub:googlenet")


def test_a_job_without_the_hub_stays_as_it_is(make_job):
    job = make_job()
    assert resolve(job, {}) == job
