"""What a rank of a device foresees of its slices is what simulated ranks work out."""

from __future__ import annotations

from pathlib import Path

import pytest

from workers.resharding.strategy_file import read_strategy_file
from workers.runtimes.foreseen_layout import foresee
from workers.spec import DeviceOptions, WorkerSpec

ROOT = Path(__file__).parents[3]
FIXTURES = ROOT / "tests" / "fixtures"


def test_a_rank_foresees_the_slices_of_its_pipeline_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))  # as the launcher sets it for its ranks
    spec = WorkerSpec(
        rank=5,
        rank_size=8,
        device_id=5,
        server_id="localhost",
        device="ascend",
        network="networks:TwoStageMLP",
        predict_data="factories:two_stage_mlp_input",
        search_path=(str(FIXTURES),),
        device_options=DeviceOptions(pipeline_stages=2, load_before_init=True),
    )
    foreseen = {name: wanted.layout for name, wanted in foresee(spec).items()}
    trained = read_strategy_file(FIXTURES / "two_stage_mlp" / "train" / "train_strategy.ckpt")
    assert foreseen == {name: trained[name] for name in ("second.weight", "second.bias")}
