import threading

import pytest
import torch

from skfdan.utils.threads import one_thread


@pytest.fixture
def _two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("_two_threads")
def test_threads_come_back_even_after_an_error():
    def fail():
        with one_thread():
            assert torch.get_num_threads() == 1
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert torch.get_num_threads() == 2
    with one_thread(active=False):
        assert torch.get_num_threads() == 2


@pytest.mark.usefixtures("_two_threads")
def test_threads_come_back_after_several_at_a_time():
    both_in, first_out = threading.Barrier(2, timeout=60), threading.Event()
    seen = {}

    def work(name):
        with one_thread():
            both_in.wait()
            seen[name, "in"] = torch.get_num_threads()
            with one_thread():
                pass
            seen[name, "nested"] = torch.get_num_threads()
            if name == "last":
                assert first_out.wait(60)
        seen[name, "out"] = torch.get_num_threads()

    def late():
        seen["late"] = torch.get_num_threads()

    threads = [threading.Thread(target=work, args=[name]) for name in ("first", "last")]
    for thread in threads:
        thread.start()
    threads[0].join()
    first_out.set()
    threads[1].join()
    threading_late = threading.Thread(target=late)
    threading_late.start()
    threading_late.join()
    assert seen == {
        **{(name, what): 1 for name in ("first", "last") for what in ("in", "nested")},
        ("first", "out"): 2,
        ("last", "out"): 2,
        "late": 2,
    }
    assert torch.get_num_threads() == 2
