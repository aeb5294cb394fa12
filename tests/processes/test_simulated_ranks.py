"""Whole jobs on simulated ranks: real slices, real processes, MindSpore's answer on one device."""

from __future__ import annotations

import json
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest

FIXTURES = Path(__file__).parents[1] / "fixtures"
ROOT = Path(__file__).parents[2]


def launch(*arguments):
    command = [sys.executable, "-m", "launcher", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=110, cwd=ROOT)


def predict(case, training, out, *more, ranks=8):
    folder = FIXTURES / case / training
    return launch(
        *("run", "--ranks", ranks, "--device", "cpu", "--output", out),
        *("--network", f"{FIXTURES}/factories.py:{case}"),
        *("--predict-data", f"{FIXTURES}/factories.py:{case}_input"),
        *("--checkpoint", f"{folder}/slices/rank_{{rank}}/parallel-2_2.ckpt"),
        *("--strategy", folder / "train_strategy.ckpt"),
        *more,
    )


@pytest.mark.parametrize(
    "case, training, flags",
    [
        ("transformer_dp2_mp4", "train", ["--dataset-strategy", "[[4, 1, 1]]"]),
        ("embedding_rows", "train", []),
        ("layout_two_axes", "train_zero", []),
        ("two_stage_mlp", "train_zero", []),  # trained in two pipeline stages
    ],
)
def test_sliced_weights_give_the_answer_of_one_device(case, training, flags, tmp_path):
    done = predict(case, training, tmp_path / "out", *flags)
    assert done.returncode == 0, done.stderr
    reference = np.load(FIXTURES / case / "reference.npz")["y"]
    found = np.load(tmp_path / "out" / "predictions.npy")
    scale = np.abs(reference).max()
    np.testing.assert_allclose(found, reference, rtol=0, atol=1e-5 * scale)


def test_a_rank_reads_and_holds_its_slices_and_nothing_else(tmp_path):
    done = predict("matmul_2x4_col", "train", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    ranks = json.loads((tmp_path / "out" / "summary.json").read_text())["ranks"]
    # A weight of 96 x 16 float32 in columns over 4 ranks: 96 * 4 * 4 bytes each.
    assert [r["bytes_held"] for r in ranks] == [1536] * 8
    assert [r["bytes_read"] for r in ranks] == [1536] * 8
    assert len(list((tmp_path / "out" / "logs").glob("rank_*.log"))) == 8


def test_memory_of_a_rank_grows_by_its_slice_not_by_the_model(tmp_path):
    from workers.resharding.checkpoint_file import write_checkpoint
    from workers.resharding.layout import Layout
    from workers.resharding.strategy_file import write_strategy_file

    (tmp_path / "big.py").write_text(
        "import mindspore as ms\n"
        "import numpy as np\n"
        "from mindspore import Parameter, nn, ops\n"
        "from mindspore.common.initializer import initializer\n"
        "class Big(nn.Cell):\n"
        "    def __init__(self, rows):\n"
        "        super().__init__()\n"
        "        self.w = Parameter(initializer('zeros', (rows, 4096)), name='w')\n"
        "        self.matmul = ops.MatMul().shard(((1, 1), (1, 8)))\n"
        "    def construct(self, x):\n"
        "        return self.matmul(x, self.w)\n"
        "def big(): return Big(16384)\n"
        "def small(): return Big(16)\n"
        "def big_data(): return ms.Tensor(np.ones((2, 16384), np.float32))\n"
        "def small_data(): return ms.Tensor(np.ones((2, 16), np.float32))\n"
    )
    layout = Layout((8,), ((), (0,)))
    peaks = {}
    for size, rows in (("big", 16384), ("small", 16)):  # 256 MiB of weights, 32 MiB a rank
        folder = tmp_path / size
        write_strategy_file(folder / "strategy.ckpt", {"w": layout})
        for rank in range(8):
            piece = np.zeros((rows, 512), np.float32)
            write_checkpoint(folder / f"rank_{rank}" / "w-1_1.ckpt", {"w": piece})
        done = launch(
            *("--ranks", 8, "--device", "cpu", "--output", tmp_path / f"out_{size}"),
            *("--network", f"{tmp_path}/big.py:{size}"),
            *("--predict-data", f"{tmp_path}/big.py:{size}_data"),
            *("--checkpoint", folder / "rank_{rank}" / "w-1_1.ckpt"),
            *("--strategy", folder / "strategy.ckpt"),
        )
        assert done.returncode == 0, done.stderr
        summary = json.loads((tmp_path / f"out_{size}" / "summary.json").read_text())
        peaks[size] = max(rank["peak_memory_bytes"] for rank in summary["ranks"])
    # The slice, the pages of the file while they are copied, and a margin: not 256 MiB.
    assert peaks["big"] - peaks["small"] < (32 + 32 + 64) << 20


def test_the_digits_are_recognised_by_the_job_that_runs_without_a_name(tmp_path):
    done = launch("--ranks", 8, "--device", "cpu", "--output", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert "accuracy" in done.stdout
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["accuracy"] >= 0.96


def test_the_tutorial_gives_the_answer_of_one_device(tmp_path):
    job = ROOT / "examples" / "tutorial" / "job.yaml"
    done = launch(job, "--ranks", 8, "--device", "cpu", "--output", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    expected = np.load(ROOT / "examples" / "tutorial" / "expected.npy")
    found = np.load(tmp_path / "out" / "predictions.npy")
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_layout_prints_the_layouts_and_refuses_what_mindspore_refuses():
    def layout(case):
        return launch(
            *("layout", "--ranks", 8, "--json"),
            *("--network", f"{FIXTURES}/factories.py:{case}"),
            *("--predict-data", f"{FIXTURES}/factories.py:{case}_input"),
        )

    done = layout("matmul_2x4_col")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)["parameters"]["matmul_weight"]
    assert found["device_matrix"] == [2, 4] and found["tensor_map"] == [-1, 0]
    assert found["full_shape"] == [96, 16] and found["slice_shape"] == [96, 4]

    refused = layout("tied_conflict")
    assert refused.returncode == 2
    assert "table" in refused.stderr and "multiple users" in refused.stderr


def test_a_strategy_of_the_network_that_cannot_be_is_refused_with_exit_code_2(tmp_path):
    (tmp_path / "net.py").write_text(
        "import mindspore as ms\n"
        "import numpy as np\n"
        "from mindspore import nn, ops\n"
        "class Net(nn.Cell):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.relu = ops.ReLU().shard(((3, 1),))\n"
        "    def construct(self, x):\n"
        "        return self.relu(x)\n"
        "def data(): return ms.Tensor(np.ones((8, 4), np.float32))\n"
    )
    done = launch(
        *("--ranks", 8, "--device", "cpu", "--output", tmp_path / "out"),
        *("--network", f"{tmp_path}/net.py:Net", "--predict-data", f"{tmp_path}/net.py:data"),
    )
    assert done.returncode == 2, done.stdout + done.stderr
    assert "ReLU" in done.stderr and "3" in done.stderr


def test_a_network_without_weights_or_checkpoint_runs(tmp_path):
    (tmp_path / "net.py").write_text(
        "import numpy as np\n"
        "from mindspore import nn\n"
        "class Net(nn.Cell):\n"
        "    def construct(self, x):\n"
        "        return x * 2, x.sum()\n"
        "def data():\n"
        "    for i in range(3):\n"
        "        yield np.full((8, 4), i, np.float32)\n"
    )
    done = launch(
        *("--ranks", 4, "--device", "cpu", "--output", tmp_path / "out"),
        *("--network", f"{tmp_path}/net.py:Net", "--predict-data", f"{tmp_path}/net.py:data"),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    first = np.load(tmp_path / "out" / "predictions_0.npy")
    np.testing.assert_array_equal(first, np.repeat([0, 2, 4], 8)[:, None] * np.ones((24, 4)))
    np.testing.assert_array_equal(np.load(tmp_path / "out" / "predictions_1.npy"), [0, 32, 64])


def test_a_shorter_last_batch_is_predicted_too(tmp_path):
    (tmp_path / "net.py").write_text(
        "import numpy as np\n"
        "import mindspore as ms\n"
        "from mindspore import nn, Parameter, Tensor\n"
        "class Net(nn.Cell):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.dense = nn.Dense(4, 2, has_bias=False)\n"
        "        self.rows = Parameter(Tensor(np.zeros((8, 1), np.float32)), name='rows')\n"
        "    def construct(self, x):\n"
        "        return self.dense(x) + self.rows[: x.shape[0]]\n"
        "def data():\n"
        "    for count in (8, 8, 6, 8, 6):\n"
        "        yield np.arange(count * 4, dtype=np.float32).reshape(count, 4)\n"
    )
    from workers.resharding.checkpoint_file import write_checkpoint

    weight = np.arange(8, dtype=np.float32).reshape(2, 4)
    rows = np.arange(8, dtype=np.float32)[:, None]
    write_checkpoint(tmp_path / "whole.ckpt", {"dense.weight": weight, "rows": rows})
    done = launch(
        *("--ranks", 4, "--device", "cpu", "--output", tmp_path / "out"),
        *("--network", f"{tmp_path}/net.py:Net", "--predict-data", f"{tmp_path}/net.py:data"),
        *("--checkpoint", tmp_path / "whole.ckpt"),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    inputs = [np.arange(n * 4, dtype=np.float32).reshape(n, 4) for n in (8, 8, 6, 8, 6)]
    wanted = np.concatenate([x @ weight.T + rows[: len(x)] for x in inputs])
    np.testing.assert_allclose(np.load(tmp_path / "out" / "predictions.npy"), wanted)


def run_net(tmp_path, code, *more):
    (tmp_path / "net.py").write_text(
        "import os\nimport numpy as np\nimport mindspore as ms\n"
        "from mindspore import Parameter, Tensor, nn, ops\n" + code
    )
    return launch(
        *("--ranks", 4, "--device", "cpu", "--output", tmp_path / "out"),
        *("--network", f"{tmp_path}/net.py:Net", "--predict-data", f"{tmp_path}/net.py:data"),
        *more,
    )


def test_ranks_that_build_different_networks_are_refused(tmp_path):
    done = run_net(
        tmp_path,
        "class Net(nn.Cell):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.t = Tensor(np.full(4, int(os.environ['RANK_ID']), np.float32))\n"
        "    def construct(self, x):\n"
        "        return x + self.t\n"
        "def data(): return np.ones((8, 4), np.float32)\n",
    )
    assert done.returncode == 2, done.stdout + done.stderr
    assert "built different networks" in done.stderr


def test_a_network_that_changes_its_parameters_is_refused_not_frozen(tmp_path):
    done = run_net(
        tmp_path,
        "class Net(nn.Cell):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.count = Parameter(Tensor(np.zeros(4, np.float32)), name='count')\n"
        "    def construct(self, x):\n"
        "        y = x + self.count\n"
        "        ops.assign(self.count, self.count + 1)\n"
        "        return y\n"
        "def data(): return np.ones((8, 4), np.float32)\n",
    )
    assert done.returncode == 2, done.stdout + done.stderr
    assert "writes into the parameter count" in done.stderr


def test_what_a_script_for_devices_does_is_understood(tmp_path):
    # init() as on a device, AutoParallel around the cell, and positions that are constants
    # looked up in a table split by rows.
    from workers.resharding.checkpoint_file import write_checkpoint

    table = np.arange(32, dtype=np.float32).reshape(8, 4)
    write_checkpoint(tmp_path / "whole.ckpt", {"table": table})
    done = run_net(
        tmp_path,
        "from mindspore.communication import init, get_group_size\n"
        "from mindspore.parallel.auto_parallel import AutoParallel\n"
        "class Inner(nn.Cell):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.table = Parameter(Tensor(np.zeros((8, 4), np.float32)), name='table')\n"
        "        self.places = Tensor(np.arange(8), ms.int32)\n"
        "        self.gather = ops.Gather().shard(((4, 1), (1,)))\n"
        "    def construct(self, x):\n"
        "        return x + self.gather(self.table, self.places, 0)\n"
        "def Net():\n"
        "    init()\n"
        "    return AutoParallel(Inner(), parallel_mode='semi_auto')\n"
        "def data(): return np.ones((8, 4), np.float32)\n",
        *("--checkpoint", tmp_path / "whole.ckpt"),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    np.testing.assert_array_equal(np.load(tmp_path / "out" / "predictions.npy"), table + 1)


def test_parameters_that_no_file_has_keep_one_initial_value_on_all_ranks(tmp_path):
    from workers.resharding.checkpoint_file import write_checkpoint

    write_checkpoint(tmp_path / "whole.ckpt", {"body": np.eye(4, dtype=np.float32)})
    code = (
        "from mindspore.common.initializer import initializer\n"
        "class Net(nn.Cell):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.body = Parameter(initializer('zeros', (4, 4)), name='body')\n"
        "        self.head = Parameter(initializer('normal', (4, 8)), name='head.weight')\n"
        "        self.first = ops.MatMul()\n"
        "        self.last = ops.MatMul().shard(((1, 1), (1, 4)))\n"
        "    def construct(self, x):\n"
        "        return self.last(self.first(x, self.body), self.head)\n"
        "def data(): return np.eye(4, dtype=np.float32)\n"
    )
    more = ("--checkpoint", tmp_path / "whole.ckpt", "--allow-missing", "head.*")
    done = run_net(tmp_path, code, *more)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 parameter that no file has: head.weight" in done.stdout
    # the output is the head itself: four slices of one random matrix
    found = np.load(tmp_path / "out" / "predictions.npy")
    np.random.seed(zlib.crc32(b"head.weight"))
    import mindspore
    from mindspore.common.initializer import initializer

    wanted = initializer("normal", (4, 8), mindspore.float32).init_data().asnumpy()
    np.testing.assert_array_equal(found, wanted)


NETWORKS = '''
import mindspore as ms
import numpy as np
from mindspore import nn, ops
from mindspore.communication import get_group_size

class Doubling(nn.Cell):
    """Adds itself to itself, in this many parts."""
    def __init__(self, factor):
        super().__init__()
        self.factor = factor
        self.mul = ops.Mul().shard(((2, 1), ()))
    def construct(self, x):
        return self.mul(x, self.factor)

class Ascend(Doubling):
    """Uses an operator that only Ascend has a kernel for."""
    def construct(self, x):
        return ops.swiglu(self.mul(x, self.factor))

class Looping(Doubling):
    """Decides by the data how often."""
    def construct(self, x):
        while x.sum() < 1000:
            x = self.mul(x, self.factor)
        return x

def right(): return Doubling(2.0)
def looping(): return Looping(2.0)
def wrong(): return Doubling(float(ms.get_auto_parallel_context("device_num")))
def ascend(): return Ascend(2.0)
def data(): return ms.Tensor(np.arange(8, dtype=np.float32).reshape(4, 2))
'''


@pytest.mark.parametrize(
    "network, against",
    [
        ("right", "one MindSpore process"),
        ("looping", "one MindSpore process"),
        ("ascend", "one simulated rank"),
    ],
)
def test_the_answer_of_one_process_is_compared_when_asked(network, against, tmp_path):
    (tmp_path / "net.py").write_text(NETWORKS)
    done = launch(
        *("--ranks", 2, "--device", "cpu", "--output", tmp_path / "out", "--check-single"),
        *("--network", f"{tmp_path}/net.py:{network}"),
        *("--predict-data", f"{tmp_path}/net.py:data"),
    )
    assert done.returncode == 0, done.stderr
    assert f"output 0 at [0, 0], beside {against}" in done.stdout
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["single"]["absolute"] == 0


def test_ranks_that_agree_on_another_answer_than_one_process_fail_the_run(tmp_path):
    (tmp_path / "net.py").write_text(NETWORKS)
    done = launch(
        *("--ranks", 2, "--device", "cpu", "--output", tmp_path / "out", "--check-single"),
        *("--network", f"{tmp_path}/net.py:wrong", "--predict-data", f"{tmp_path}/net.py:data"),
    )
    assert done.returncode == 3, done.stderr
    difference = "the ranks' result differs by 7 (1 of the largest value), output 0 at [3, 1]"
    assert difference in done.stderr
    assert not (tmp_path / "out" / "predictions.npy").exists()
    assert (tmp_path / "out" / "predictions.partial.npy").exists()
