"""Whole commands on a model of a stand-in hub: those of docs/remote.md, word by word."""

from __future__ import annotations

import hashlib
import json
from functools import partial

import numpy as np
import pytest

from workers.resharding.checkpoint_file import write_checkpoint

MODEL = "mindspore/1.7/googlenet_cifar10"
PAGE = """\
# googlenet

---

model-name: googlenet

repo-link: <https://gitee.com/mindspore/models/tree/r1.7/official/cv/googlenet>

evaluation: -

asset:

-
    file-format: ckpt
    asset-link: <{link}>
    asset-sha256: {sha256}

summary: googlenet is used for cv

---

## Introduction
"""
CODE = """\
from mindspore import Parameter, Tensor, nn, ops
from src.size import FEATURES

import numpy as np


class GoogLeNet(nn.Cell):
    def __init__(self, num_classes):
        super().__init__()
        self.w = Parameter(Tensor(np.zeros((FEATURES, num_classes), np.float32)), name="fc.weight")
        self.matmul = ops.MatMul().shard(((1, 1), (1, {split})))

    def construct(self, x):
        return self.matmul(x, self.w)


def create_network(name, *args, **kwargs):
    if name == "googlenet":
        return GoogLeNet(*args, **kwargs)
    raise NotImplementedError(f"{{name}} is not implemented in the repo")
"""
# With the signature of the real one.
PACKAGE = """\
import sys


def load(name, *args, source="gitee", pretrained=True, force_reload=False, **kwargs):
    assert name == "mindspore/1.7/googlenet_cifar10" and not pretrained
    sys.path.insert(0, {folder!r})
    from mindspore_hub_conf import create_network
    return create_network("googlenet", 10, *args, **kwargs)
"""


@pytest.fixture
def weights():
    return np.random.default_rng(0).random((16, 10), np.float32)


@pytest.fixture
def hub(server, tmp_path, weights):
    """A hub with one model, its weights, and a folder with its code beside data.py."""
    write_checkpoint(server.folder / "googlenet.ckpt", {"fc.weight": weights})
    sha256 = hashlib.sha256((server.folder / "googlenet.ckpt").read_bytes()).hexdigest()
    page = server.folder / f"{MODEL}.md"
    page.parent.mkdir(parents=True)
    page.write_text(PAGE.format(link=server.url("googlenet.ckpt"), sha256=sha256))
    code = tmp_path / "models" / "official" / "cv" / "googlenet"
    (code / "src").mkdir(parents=True)
    (code / "src" / "size.py").write_text("FEATURES = 16\n")
    (code / "mindspore_hub_conf.py").write_text(CODE.format(split=2))
    (tmp_path / "data.py").write_text(
        "import numpy as np\ndef images(): return np.eye(16, dtype=np.float32)\n"
    )
    return server


@pytest.fixture
def guide(hub, remote_guide):
    """Run a block of the page with this hub."""
    return partial(remote_guide, LAUNCHER_HUB_URL=hub.root)


def test_a_model_of_the_hub_predicts_on_two_ranks(guide, tmp_path, weights):
    done = guide("--hub-folder")
    assert done.returncode == 0, done.stderr
    np.testing.assert_array_equal(np.load(tmp_path / "out" / "predictions.npy"), weights)


def test_weights_that_are_not_those_of_the_page_are_refused(hub, guide):
    write_checkpoint(hub.folder / "googlenet.ckpt", {"fc.weight": np.ones((16, 10), np.float32)})
    done = guide("--hub-folder")
    assert done.returncode == 2
    assert "googlenet.ckpt: the content has the SHA-256" in done.stderr


def test_the_package_of_the_hub_makes_the_network_of_those_who_trust_it(
    guide, tmp_path, weights
):
    folder = tmp_path / "models" / "official" / "cv" / "googlenet"
    (folder / "mindspore_hub_conf.py").write_text(CODE.format(split=1))
    (tmp_path / "mindspore_hub.py").write_text(PACKAGE.format(folder=str(folder)))
    done = guide("--trust-code")
    assert done.returncode == 0, done.stderr
    np.testing.assert_array_equal(np.load(tmp_path / "trusted" / "predictions.npy"), weights)
    ranks = json.loads((tmp_path / "trusted" / "summary.json").read_text())["ranks"]
    assert [rank["bytes_read"] for rank in ranks] == [weights.nbytes]
