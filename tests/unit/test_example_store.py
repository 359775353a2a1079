"""The store of examples/media, on a file system that is not this machine's."""

from collections.abc import AsyncIterator

import pytest

from examples.media.store import NoReference, Store, TooLarge


async def test_another_file_system_of_fsspec_does_as_well() -> None:
    store = Store("memory://bucket/media")
    reference = f"{store.folder()}/source"

    async def pieces() -> AsyncIterator[bytes]:
        yield b"one "
        yield b"two"

    assert not store.is_local
    with pytest.raises(TooLarge):
        await store.receive(reference, pieces(), 6)
    assert not store.exists(reference)
    assert await store.receive(reference, pieces(), 7) == store.size(reference) == 7
    with store.reading(reference) as path:
        assert path.read_bytes() == b"one two"
    assert not path.exists()
    with store.writing(reference) as draft:
        draft.write_bytes(b"new")
    with pytest.raises(ZeroDivisionError):
        _fail_in_the_middle(store, reference)
    with store.reading(reference) as path:
        assert path.read_bytes() == b"new"


def _fail_in_the_middle(store: Store, reference: str) -> None:
    with store.writing(reference) as draft:
        draft.write_bytes(b"half")
        raise ZeroDivisionError


@pytest.mark.parametrize("reference", ["", "/etc/passwd", "../x", "a/b", f"{'0' * 32}/../x", f"{'0' * 32}/a\n"])
def test_a_reference_cannot_leave_the_store(reference: str) -> None:
    with pytest.raises(NoReference):
        Store("memory://bucket").path(reference)
