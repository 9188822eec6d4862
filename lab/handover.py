"""Where a home's batches wait: its own outbox and, with `LADDER_OUTBOX`, one shared with other machines.

With a URL set, `record` hands its batch in there, or keeps it in the home while the URL cannot be reached and
hands it on later. One home's store takes batches from both; every other home with the same URL only hands in.
Homes are told apart by an id of their own, so machines that mount one home are one store.
"""

from __future__ import annotations

import contextlib
import json
import logging
import re
import secrets
import socket
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path, PurePath

import pyarrow as pa

from lab.durable import write_durably
from lab.errors import UsageError
from lab.outbox import Batch, Outbox
from lab.shared_outbox import OWNER, VARIABLE, Owner, SharedOutbox, UnreachableError

logger = logging.getLogger(__name__)

KNOWN = "shared-outbox.json"
STORE_ID = "store-id"
REST_SECONDS = 30.0
"""After a URL could not be written to, batches stay in the home for so long before it is tried again."""

_tried_again_at: dict[str, float] = {}


class Handover:
    """The outboxes of a home as one.

    Parameters
    ----------
    home
        Its own outbox is `outbox/` there.
    url
        Of the shared outbox; none when empty.

    Raises
    ------
    UsageError
        The URL is not one that can be opened here.
    """

    def __init__(self, home: Path, url: str) -> None:
        self.local = Outbox(home / "outbox")
        self.directory, self.rejected = self.local.directory, self.local.rejected
        self.shared = SharedOutbox(url) if url else None
        self.unreachable: str | None = None
        """Why the shared outbox could not be reached when it was last asked."""
        self._home = home
        self._is_ours: bool | None = None if url else True
        if self.shared is not None and self.shared.is_folder and self.shared.folder == self.directory:
            raise UsageError(
                f"{VARIABLE} is {url!r}, the home's own outbox; name a folder that no home uses, or unset it"
            )

    def write(self, tables: Mapping[str, pa.Table], *, durable: bool = True) -> str:
        """Write one batch where it is handed in, else in the home; returns its id.

        Raises
        ------
        OSError
            The home's disk is full or cannot be written either; nothing was recorded.
        """
        if self.shared is not None:
            try:
                with self._reaching() as shared:
                    batch_id = shared.write(tables)
                self._remember(self._seen()[1])
                return batch_id
            except UnreachableError as error:
                logger.warning("%s; batches stay in %s and are handed on later", error, self.directory)
        return self.local.write(tables, durable=durable)

    def make_durable(self, batch_id: str) -> None:
        """As `Outbox.make_durable`; a batch that was handed in is durable already."""
        self.local.make_durable(batch_id)

    def waiting(self) -> list[PurePath]:
        """Batch files not yet taken, in both outboxes, in the order they were recorded."""
        found: list[PurePath] = [*self.local.waiting()]
        if self.shared is not None:
            with contextlib.suppress(UnreachableError), self._reaching() as shared:
                found += shared.waiting()
        return sorted(found, key=lambda path: path.name)

    def load(self, path: PurePath) -> Batch:
        """Read a batch file and check it; raises as `Outbox.load`, and `UnreachableError`."""
        if isinstance(path, Path):
            return self.local.load(path)
        with self._reaching() as shared:
            return shared.load(path)

    def size(self, path: PurePath) -> int:
        """Bytes of a waiting file."""
        return self.local.size(path) if isinstance(path, Path) else self._shared.size(path)

    def remove(self, path: PurePath) -> None:
        """Delete a file whose rows are in the database; one that cannot be now is skipped next time."""
        if isinstance(path, Path):
            self.local.remove(path)
            return
        try:
            with self._reaching() as shared:
                shared.remove(path)
        except UnreachableError as error:
            logger.warning("batch %s is taken, but %s", path.name, error)

    def reject(self, path: PurePath, reason: str) -> None:
        """Move a file that cannot be stored to the home's `rejected/`, with the reason beside it."""
        if isinstance(path, Path):
            self.local.reject(path, reason)
            return
        with self._reaching() as shared:
            self.local.keep_rejected(path.name, shared.read(path), reason)
            shared.remove(path)

    def sweep(self) -> int:
        """Delete temporary files whose writer died long ago; returns how many."""
        swept = self.local.sweep()
        if self.shared is not None:
            with contextlib.suppress(UnreachableError), self._reaching() as shared:
                swept += shared.sweep()
        return swept

    def is_ours(self) -> bool:
        """Whether this home's store takes the batches; with no shared outbox it does.

        While the URL cannot be reached, what was last seen of it counts.
        """
        if self._is_ours is None:
            try:
                owner = self._owner()
            except UnreachableError:
                known = self._seen()[1]
                return known is not None and known.store == self._store_id()
            if owner is None:
                return False
            self._is_ours = owner.store == self._store_id()
        return self._is_ours

    def claim(self) -> bool:
        """Have this home's store take the batches unless another does; the caller holds the store's lock.

        Raises
        ------
        UnreachableError
            The URL cannot be reached, and nothing is known of it.
        """
        if self.is_ours() or self._is_ours is False:
            return self.is_ours()
        path = self._home / STORE_ID
        if not path.exists():
            write_durably(path, secrets.token_hex(8).encode())
        own = Owner(store=self._store_id() or "", host=socket.gethostname(), home=str(self._home))
        with self._reaching() as shared:
            owner = shared.claim(own)
        self._remember(owner)
        self._is_ours = owner.store == own.store
        if self._is_ours and owner == own:
            logger.info("the store in %s takes what is handed in at %s", self._home, self._shared.url)
        return self._is_ours

    def hand_on(self) -> int:
        """Hand in what stayed in the home; returns how many batches are still there."""
        left = self.local.waiting()
        for path in list(left):
            try:
                with self._reaching() as shared:
                    shared.put(path.name, path.read_bytes())
            except UnreachableError:
                break
            except FileNotFoundError:
                pass  # another process of this home has just handed it on
            self.local.remove(path)
            left.remove(path)
        return len(left)

    def said_elsewhere(self) -> str:
        """Whose store takes the batches, when it is not this home's."""
        return f"what is handed in at {self._shared.url} is taken by {self._seen()[1]}"

    @property
    def _shared(self) -> SharedOutbox:
        assert self.shared is not None
        return self.shared

    def _owner(self) -> Owner | None:
        """Who takes the batches now; a share whose owner has gone is not there, rather than nobody's."""
        with self._reaching() as shared:
            owner = shared.owner()
        if owner is not None:
            self._remember(owner)
        return owner

    @contextlib.contextmanager
    def _reaching(self) -> Iterator[SharedOutbox]:
        """The shared outbox for one use; after a failure it is left alone for a while.

        A folder without the owner's name, or no folder, where this home saw one is a share that is not
        mounted: what was written there would stay on this machine and lie under the share later.
        """
        shared = self._shared
        if time.monotonic() < _tried_again_at.get(shared.url, 0.0):
            self.unreachable = self.unreachable or f"the shared outbox {shared.url} could not be reached"
            raise UnreachableError(self.unreachable)
        try:
            seen, owner = self._seen()
            if seen and shared.is_folder and not (shared.has_owner() if owner else shared.folder.exists()):
                raise UnreachableError(
                    f"the shared outbox {shared.url} or its {OWNER} is gone; mount the share, or delete "
                    f"{self._home / KNOWN} to begin anew"
                )
            yield shared
            self.unreachable = None
        except UnreachableError as error:
            self.unreachable = str(error)
            _tried_again_at[shared.url] = time.monotonic() + REST_SECONDS
            raise

    def try_now(self) -> None:
        """Have the shared outbox tried again whenever it failed."""
        if self.shared is not None:
            _tried_again_at.pop(self.shared.url, None)

    def _store_id(self) -> str | None:
        path = self._home / STORE_ID
        try:
            found = path.read_bytes()
        except FileNotFoundError:
            return None
        if re.fullmatch(rb"[0-9a-f]{16}", found) is None:
            raise UsageError(f"{path} is damaged; write the `store` of {OWNER} at {self._shared.url} into it")
        return found.decode()

    def _seen(self) -> tuple[bool, Owner | None]:
        """Whether this home has reached the URL before, and the owner it saw."""
        try:
            told = json.loads((self._home / KNOWN).read_bytes())
            owner = None if told["owner"] is None else Owner(**told["owner"])
            return (True, owner) if told["url"] == self._shared.url else (False, None)
        except (FileNotFoundError, ValueError, KeyError, TypeError, RecursionError):
            return False, None

    def _remember(self, owner: Owner | None) -> None:
        if self._seen() == (True, owner):
            return
        told = {"url": self._shared.url, "owner": asdict(owner) if owner else None}
        with contextlib.suppress(OSError):  # a home that cannot be written asks again next time
            self._home.mkdir(parents=True, exist_ok=True)
            write_durably(self._home / KNOWN, json.dumps(told, indent=1).encode())
