"""Files by reference: `<folder>/<name>`, below a folder or a bucket that every worker reaches.

A reference is all that travels in messages, results and URLs. Both of its parts are made here, never taken from a
user, and are checked before anything is opened: a reference can't leave the store.
"""

from __future__ import annotations

import re
import secrets
import tempfile
from collections.abc import AsyncIterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import fsspec
from anyio import to_thread
from fsspec.implementations.local import LocalFileSystem

from examples.media.settings import Media

REFERENCE = re.compile(r"[0-9a-f]{32}/[a-z0-9]{1,20}(-[a-z0-9]{1,20})?(\.[a-z0-9]{1,5})?")


class NoReference(ValueError):
    def __init__(self, reference: str) -> None:
        super().__init__(f"{reference!r} is not a file of the store")


class TooLarge(Exception):
    def __init__(self, most: int) -> None:
        super().__init__(f"a file may have {most:,} bytes")
        self.most = most


class Store:
    def __init__(self, url: str) -> None:
        self._files, self._root = fsspec.url_to_fs(url)

    @classmethod
    def configured(cls) -> Store:
        return cls(Media().store)

    @staticmethod
    def folder() -> str:
        """The name of a folder that nobody guesses."""
        return secrets.token_hex(16)

    @property
    def is_local(self) -> bool:
        return isinstance(self._files, LocalFileSystem)

    def path(self, reference: str) -> str:
        if not REFERENCE.fullmatch(reference):
            raise NoReference(reference)
        return f"{self._root.rstrip('/')}/{reference}"

    def size(self, reference: str) -> int:
        return int(self._files.size(self.path(reference)))

    def exists(self, reference: str) -> bool:
        return bool(self._files.isfile(self.path(reference)))

    def url(self, reference: str, seconds: int) -> str:
        """Where a browser may read the file for so long; of stores that can sign, such as S3."""
        return str(self._files.sign(self.path(reference), expiration=seconds))

    @contextmanager
    def reading(self, reference: str) -> Iterator[Path]:
        """The file as a local one: itself, or a copy for as long as it is needed."""
        path = self.path(reference)
        if self.is_local:
            yield Path(path)
            return
        with tempfile.TemporaryDirectory(prefix="media-") as folder:
            copy = Path(folder, path.rpartition("/")[2])
            self._files.get_file(path, str(copy))
            yield copy

    @contextmanager
    def writing(self, reference: str) -> Iterator[Path]:
        """A local file to write, kept under the reference if all went well; nobody sees half of one."""
        path = self.path(reference)
        with _draft(path) as draft:
            yield draft
            self._keep(draft, path)

    async def receive(self, reference: str, pieces: AsyncIterable[bytes], most: int, *, announced: int = 0) -> int:
        """Keep what comes in under the reference; returns its size. Raises TooLarge, with nothing kept."""
        path, size = self.path(reference), 0
        if announced > most:
            raise TooLarge(most)
        with _draft(path) as draft:
            with draft.open("wb") as file:
                async for piece in pieces:
                    size += len(piece)
                    if size > most:
                        raise TooLarge(most)
                    await to_thread.run_sync(file.write, piece)
            await to_thread.run_sync(self._keep, draft, path)
        return size

    def _keep(self, draft: Path, path: str) -> None:
        if not self.is_local:
            self._files.put_file(str(draft), path)
            return
        # Beside its place first: a rename is all or nothing within one file system only.
        self._files.makedirs(path.rpartition("/")[0], exist_ok=True)
        self._files.put_file(str(draft), f"{path}.part")
        Path(f"{path}.part").replace(path)


@contextmanager
def _draft(path: str) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="media-") as folder:
        yield Path(folder, path.rpartition("/")[2])
