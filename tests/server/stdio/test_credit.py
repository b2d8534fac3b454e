import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.stdio.credit import Allowance, Window
from server.stdio.frames import FrameError


@given(st.integers(1, 40), st.lists(st.booleans(), max_size=300))
def test_a_sender_that_honours_credit_never_overruns_and_never_starves(size: int, steps: list[bool]) -> None:
    window, allowance, waiting = Window(size), Allowance(size), 0
    for send in steps:
        if send and allowance.take():
            window.arrived()
            waiting += 1
        elif waiting:
            waiting -= 1
            grant = window.taken()
            if grant:
                allowance.add(grant)
        assert waiting + window.granted <= size
        assert waiting or allowance.messages, "nothing waits, yet the sender may not send: both would wait for ever"


def test_a_message_without_credit_is_a_fault() -> None:
    window = Window(1)
    window.arrived()
    with pytest.raises(FrameError, match="without credit"):
        window.arrived()


@pytest.mark.parametrize("messages", [0, -1])
def test_a_grant_of_nothing_is_a_fault(messages: int) -> None:
    with pytest.raises(FrameError, match="at least 1"):
        Allowance(0).add(messages)
