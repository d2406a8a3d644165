"""Workers: one thread an answer from beginning to end, and a bounded queue."""

import asyncio
import threading

import pytest

from tailorbird.server.failures import Refusal
from tailorbird.server.workers import Workers


async def all_of(work):
    results = []
    while True:
        await asyncio.wait_for(work.arrived(), 5)
        result = work.take()
        if result is None:
            return results
        results.append(result)


def run(scenario, num_threads=1, num_waiting=0):
    async def main():
        workers = Workers(num_threads, num_waiting)
        try:
            return await scenario(workers)
        finally:
            workers.stop()

    return asyncio.run(main())


def test_results_come_in_order_from_one_thread():
    def produce():
        for _ in range(50):
            yield threading.get_ident()

    async def scenario(workers):
        return await all_of(workers.start(produce))

    assert len(set(run(scenario, num_threads=4))) == 1


def test_a_failure_follows_the_results_before_it():
    def produce():
        yield 1
        raise ValueError("broken")

    async def scenario(workers):
        work = workers.start(produce)
        await work.arrived()
        assert work.take() == 1
        await work.arrived()
        with pytest.raises(ValueError, match="broken"):
            work.take()

    run(scenario)


def test_giving_up_a_wait_loses_no_result():
    gate = threading.Event()

    def produce():
        gate.wait(5)
        yield from range(200)

    async def scenario(workers):
        work = workers.start(produce)
        got = []
        gate.set()
        while len(got) < 200:
            waiting = asyncio.ensure_future(work.arrived())
            await asyncio.sleep(0)
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
            if work._results:
                got.append(work.take())
        return got

    assert run(scenario) == list(range(200))


def test_cancelled_work_is_closed_in_its_own_thread():
    closed_in, started_in = [], []

    def produce():
        started_in.append(threading.get_ident())
        try:
            while True:
                yield 1
        finally:
            closed_in.append(threading.get_ident())

    async def scenario(workers):
        work = workers.start(produce)
        await work.arrived()
        work.cancel()
        while workers.num_under_way:  # noqa: ASYNC110 - it changes in a thread
            await asyncio.sleep(0.01)

    run(scenario)
    assert closed_in == started_in


def test_more_than_fits_is_refused_and_there_is_room_again_afterwards():
    gate = threading.Event()

    def produce():
        gate.wait(5)
        yield 1

    async def scenario(workers):
        works = [workers.start(produce) for _ in range(3)]
        with pytest.raises(Refusal, match="3 requests are under way or wait already") as caught:
            workers.start(produce)
        assert caught.value.failure.status == 429
        assert caught.value.failure.headers == {"retry-after": "1"}
        works[2].cancel()
        assert workers.num_under_way == 2
        gate.set()
        return [await all_of(work) for work in works[:2]]

    assert run(scenario, num_threads=1, num_waiting=2) == [[1], [1]]


def test_stopping_tells_everybody_who_waits():
    gate = threading.Event()

    def produce():
        gate.wait(5)
        yield 1

    async def scenario(workers):
        works = [workers.start(produce) for _ in range(2)]
        workers.stop()
        for work in works:
            await work.arrived()
            with pytest.raises(Refusal, match="The server is stopping") as caught:
                work.take()
            assert caught.value.failure.status == 503
        gate.set()

    run(scenario, num_waiting=1)
