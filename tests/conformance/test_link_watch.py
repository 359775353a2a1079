"""Watching: a feed of the event exchange whose keys come and go."""

import asyncio

import pytest
from kombu import Exchange, Producer

from dure.errors import LinkDown
from dure.link import Link, WatchFeed
from dure.watch import ANY_TASK, in_messages, job_key, root_key, task_key, watch_keys
from dure.wire import EVENT_EXCHANGE, KEYS_HEADER, event_message
from tests.conformance.links import PATIENCE, Broker, depth, read, until

LAST = "dure.job.last"


@pytest.fixture
async def feed(link: Link) -> WatchFeed:
    feed = await link.watch()
    await feed.bind([LAST])
    return feed


async def told(link: Link, feed: WatchFeed) -> list[bytes]:
    """All that the feed has been given up to here."""
    await link.tell(b"last", "dure.told", [LAST])
    found: list[bytes] = []
    while b"last" not in found:
        found += await read(feed, 1)
    return found[:-1]


async def gone(link: Link, feed: WatchFeed, key: str) -> None:
    """Wait until the broker has let go of a key."""

    async def is_gone() -> bool:
        await link.tell(b"still here", "dure.told", [key])
        return await told(link, feed) == []

    await until(is_gone)


async def test_a_feed_is_given_what_has_one_of_its_keys_and_nothing_else(link: Link, feed: WatchFeed) -> None:
    await feed.bind([job_key("a"), root_key("w")])
    await link.tell(b"own key", job_key("a"))
    await link.tell(b"further key", "dure.entries", [job_key("x"), job_key("a")])
    await link.tell(b"both", job_key("a"), [root_key("w")])
    await link.tell(b"other", "dure.entries", [job_key("b"), root_key("x"), task_key("t")])
    await link.tell(b"longer", "dure.entries", [job_key("a.b")])
    assert await told(link, feed) == [b"own key", b"further key", b"both"]


async def test_several_keys_that_match_bring_one_copy(link: Link, feed: WatchFeed) -> None:
    keys = watch_keys("a", "shop.add", "w")
    await feed.bind([*keys, ANY_TASK, "dure.#"])
    await link.tell(b"1", "dure.entries", keys)
    await link.tell(b"2", job_key("a"), [job_key("a"), job_key("a")])
    assert await told(link, feed) == [b"1", b"2"]


async def test_a_pattern_matches_every_task(link: Link, feed: WatchFeed) -> None:
    await feed.bind([ANY_TASK, task_key("shop.*")])
    for task in ("add", "shop.add", "shop.deep.add"):
        await link.tell(task.encode(), "dure.entries", watch_keys("a", task))
    await link.tell(b"none", "dure.entries", watch_keys("a"))
    assert await told(link, feed) == [b"add", b"shop.add", b"shop.deep.add"]


async def test_what_is_published_after_bind_arrives_and_after_unbind_does_not(
    broker: Broker, link: Link, feed: WatchFeed
) -> None:
    publisher = await broker.link()
    for n in range(20):
        await feed.bind([job_key(f"{n}")])
        await publisher.tell(b"%d" % n, "dure.entries", [job_key(f"{n}")])
        assert await read(feed, 1) == [b"%d" % n]
        await feed.unbind([job_key(f"{n}")])
        await gone(publisher, feed, job_key(f"{n}"))


async def test_many_keys_are_bound_at_once_and_may_be_bound_and_unbound_twice(link: Link, feed: WatchFeed) -> None:
    keys = [job_key(f"{n}") for n in range(250)]
    await feed.bind(keys)
    await feed.bind(keys[:3])
    await feed.bind([])
    await feed.unbind(["dure.job.nobody"])
    for key in keys:
        await link.tell(key.encode(), "dure.entries", [key])
    assert await told(link, feed) == [key.encode() for key in keys]
    await feed.unbind(keys[1:])
    await feed.unbind(keys[1:2])
    await gone(link, feed, keys[-1])
    await gone(link, feed, keys[1])
    for key in keys:
        await link.tell(key.encode(), "dure.entries", [key])
    assert await told(link, feed) == [keys[0].encode()]


async def test_what_was_asked_for_last_holds(link: Link, feed: WatchFeed) -> None:
    keys = [job_key(f"{n}") for n in range(50)]
    await feed.bind(keys)
    await asyncio.gather(feed.unbind(keys), feed.bind(keys[10:]), feed.unbind(keys[20:]), feed.bind(keys[30:]))
    await gone(link, feed, keys[29])
    for key in keys:
        await link.tell(key.encode(), "dure.entries", [key])
    assert await told(link, feed) == [key.encode() for key in (*keys[10:20], *keys[30:])]


async def test_who_comes_does_not_wait_for_those_who_leave(link: Link, feed: WatchFeed) -> None:
    keys = [job_key(f"{n}") for n in range(500)]
    await feed.bind(keys)
    await feed.unbind(keys)
    await feed.bind(["dure.job.new"])
    await link.tell(b"1", "dure.job.new")
    assert await told(link, feed) == [b"1"]
    await gone(link, feed, keys[-1])


async def test_a_binding_that_nobody_waits_for_any_more_leaves_the_feed_as_it_is(link: Link, feed: WatchFeed) -> None:
    for n in range(20):
        binding = asyncio.create_task(feed.bind([job_key(f"{n}.{m}") for m in range(5)]))
        await asyncio.sleep(0)
        binding.cancel()
        await asyncio.gather(binding, return_exceptions=True)
    await feed.bind([job_key("a")])
    await link.tell(b"1", "dure.entries", [job_key("a")])
    assert await told(link, feed) == [b"1"]


async def test_two_watchers_are_given_their_own(broker: Broker, link: Link, feed: WatchFeed) -> None:
    other = await (await broker.link()).watch()
    await feed.bind([job_key("a"), job_key("both")])
    await other.bind([job_key("b"), job_key("both"), LAST])
    for name in ("a", "b", "both"):
        await link.tell(name.encode(), "dure.entries", [job_key(name)])
    assert await told(link, feed) == [b"a", b"both"]
    assert (await read(other, 3))[:2] == [b"b", b"both"]


async def test_a_slow_reader_loses_the_oldest(link: Link) -> None:
    feed = await link.watch(limit=20)
    await feed.bind([job_key("a")])
    bodies = [*(b"%d" % n for n in range(100)), b"last"]
    assert set(await link.publish([event_message(body, job_key("a")) for body in bodies])) == {None}
    found: list[bytes] = []
    while b"last" not in found:
        found += await read(feed, 1)
    assert found[-20:] == bodies[-20:]
    assert len(found) <= 40
    await link.tell(b"next", job_key("a"))
    assert await read(feed, 1) == [b"next"]


async def test_more_than_a_broker_sends_ahead_is_read_in_order(link: Link) -> None:
    feed = await link.watch()
    await feed.bind([job_key("a")])
    bodies = [b"%d" % n for n in range(3000)]
    for body in bodies:
        await link.tell(body, "dure.entries", [job_key("a")])
    assert await read(feed, 3000) == bodies


async def test_a_feed_waits_and_gives_nothing_within_its_time(link: Link, feed: WatchFeed) -> None:
    async with asyncio.timeout(PATIENCE):
        assert list(await feed.batch(10, within=0.01)) == []
    waiting = asyncio.create_task(feed.batch(10))
    await asyncio.sleep(0)
    await link.tell(b"1", LAST)
    async with asyncio.timeout(PATIENCE):
        assert list(await waiting) == [b"1"]


async def test_what_nobody_watches_goes_nowhere(link: Link, feed: WatchFeed) -> None:
    recorded = await link.events(["task.#"], durable=True)
    for _ in range(20):
        await link.tell(b"x" * 1000, "dure.entries", watch_keys("unwatched", "t", "w"))
    assert await told(link, feed) == []
    assert await depth(link, "dure.events") == (0, 1, True)
    await recorded.close()


async def test_a_closed_feed_leaves_nothing_behind(broker: Broker, link: Link) -> None:
    feed = await link.watch()
    await feed.bind([job_key("a")])
    await feed.close()
    message = event_message(b"1", job_key("a"))

    async def nobody() -> bool:
        return [str(outcome) for outcome in await link.publish([message])] != ["None"]

    await until(nobody)
    again = await link.watch()
    await again.bind([job_key("a")])
    await link.tell(b"2", job_key("a"))
    assert await read(again, 1) == [b"2"]


async def test_the_keys_of_one_message_fit_its_header_and_no_queue_gets_a_part_twice(
    link: Link, feed: WatchFeed
) -> None:
    jobs = [f"{n:0200}" for n in range(1000)]
    await feed.bind([job_key(jobs[0]), job_key(jobs[-1])])
    sent = 0
    for bodies, keys in in_messages((job.encode(), watch_keys(job, "a.task", "w")) for job in jobs):
        await link.tell(b",".join(bodies), "dure.entries", keys)
        sent += 1
    found = await told(link, feed)
    assert len(found) == 2 < sent
    assert jobs[0].encode() in found[0]
    assert jobs[-1].encode() in found[1]


async def test_long_names_can_be_watched(link: Link, feed: WatchFeed) -> None:
    names = ["j" * 255, "é" * 255, "é" * 254 + "e"]
    for name in names:
        await feed.bind([job_key(name)])
        await link.tell(name.encode(), "dure.entries", watch_keys(name))
    assert await told(link, feed) == [name.encode() for name in names]


async def test_any_program_of_kombu_can_give_several_keys(broker: Broker, link: Link, feed: WatchFeed) -> None:
    await feed.bind([job_key("a"), task_key("t")])
    with broker.kombu() as connection, connection.channel() as channel:
        producer = Producer(channel, exchange=Exchange(EVENT_EXCHANGE, type="topic"))
        producer.publish(b"1", routing_key="task.multi", headers={KEYS_HEADER: watch_keys("a", "t")}, serializer="raw")
        producer.publish(b"2", routing_key="task.multi", headers={KEYS_HEADER: watch_keys("b", "u")}, serializer="raw")
    assert await read(feed, 1) == [b"1"]
    assert await told(link, feed) == []


@pytest.mark.parametrize("broker", ["rabbitmq"], indirect=True)  # a file has no connection
async def test_a_lost_connection_ends_the_feed_and_a_new_one_can_be_bound(broker: Broker, link: Link) -> None:
    assert broker.server is not None
    feed = await link.watch()
    await feed.bind([job_key("a")])
    waiting = asyncio.create_task(feed.batch(10))
    vhost = broker.url.rpartition("/")[2]
    await asyncio.to_thread(broker.server.ctl, "close_all_connections", "--vhost", vhost, "test")
    with pytest.raises(LinkDown):
        async with asyncio.timeout(PATIENCE):
            await waiting
    with pytest.raises(LinkDown):
        async with asyncio.timeout(PATIENCE):
            await feed.bind([job_key("b")])
    with pytest.raises(LinkDown):
        await feed.batch(10)
    await feed.close()

    async def connected() -> bool:
        return link.connected

    await until(connected)
    again = await link.watch()
    await again.bind([job_key("a")])
    await link.tell(b"1", "dure.entries", [job_key("a")])
    assert await read(again, 1) == [b"1"]


async def test_a_link_that_is_not_open_says_so(broker: Broker) -> None:
    link = await broker.link()
    await link.close()
    with pytest.raises(LinkDown):
        await link.watch()
    with pytest.raises(LinkDown):
        await link.tell(b"1", "dure.entries")
