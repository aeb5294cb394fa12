"""The numbers of devices for a process that is shown only some of them."""

from __future__ import annotations

import pytest

from launcher.errors import HostError
from launcher.visible_devices import own_numbers, visible_devices


def test_without_the_variable_numbers_are_those_of_the_host() -> None:
    assert visible_devices({}) is None
    assert own_numbers([2, 0], None) == {2: 2, 0: 0}


def test_a_process_counts_the_devices_that_it_is_shown() -> None:
    visible = visible_devices({"ASCEND_RT_VISIBLE_DEVICES": "6, 2,3"})
    assert visible == (6, 2, 3)
    assert own_numbers([2, 6], visible) == {2: 1, 6: 0}


def test_a_hidden_device_is_an_error() -> None:
    with pytest.raises(HostError, match="device 1 .* hidden by ASCEND_RT_VISIBLE_DEVICES=2,3"):
        own_numbers([2, 1], (2, 3))


@pytest.mark.parametrize("text", ["", "0,,1", "0-3", "all", "-1", "1,1"])
def test_what_is_no_list_of_different_devices_is_an_error(text: str) -> None:
    with pytest.raises(HostError, match=f"ASCEND_RT_VISIBLE_DEVICES={text} "):
        visible_devices({"ASCEND_RT_VISIBLE_DEVICES": text})
