"""Order, bounds and ends of work in threads."""

import threading
import time

import pytest

from basicsr_plugins.core.errors import OptionError
from basicsr_plugins.data.parallel import in_parallel, worker_count


def test_results_come_in_order():
    def late(number):
        time.sleep(0.01 * (number % 3))
        return number

    assert list(in_parallel(late, range(20), workers=4)) == list(range(20))


def test_items_are_taken_as_they_are_needed():
    taken = []

    def items():
        for number in range(100):
            taken.append(number)
            yield number

    results = in_parallel(str, items(), workers=2)
    assert next(results) == "0"
    assert len(taken) == 4
    results.close()
    assert len(taken) == 4


def test_an_error_ends_the_work_and_nothing_runs_on():
    done, end, before = [], threading.Event(), set(threading.enumerate())  # other libraries keep pools of their own

    def work(number):
        if number == 0:
            threading.Timer(0.5, end.set).start()
            raise ValueError("none")
        end.wait()
        done.append(number)

    with pytest.raises(ValueError, match="none"):
        list(in_parallel(work, range(100), workers=4))
    assert set(done) <= {1, 2, 3, 4}  # what ran already; 5, 6 and 7 were waiting
    assert not [thread for thread in set(threading.enumerate()) - before if thread.name.startswith("ThreadPool")]


def test_the_number_of_workers():
    assert worker_count(3) == 3
    assert 1 <= worker_count(None) <= 8
    with pytest.raises(OptionError, match="--workers: must be 1 or more, got 0"):
        worker_count(0)
