"""Whether a path lies on a file system that other machines see too, where SQLite's write-ahead log cannot be trusted.

The log's index is shared memory, which processes on two machines do not share (https://sqlite.org/wal.html, "All
processes using a database must be on the same host computer"). A rollback journal needs nothing but locks.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

__all__ = ["shared_file_system"]

#: Types of file systems, as Linux names them, whose files other machines (or the host of a virtual one) may open.
_SHARED = frozenset({
    "9p", "acfs", "afs", "beegfs", "ceph", "cephfs", "cifs", "coda", "davfs", "drvfs", "fhgfs", "gfs", "gfs2",
    "glusterfs", "gpfs", "lustre", "ncpfs", "nfs", "nfs4", "ocfs2", "orangefs", "panfs", "prl_fs", "pvfs2", "smb2",
    "smb3", "smbfs", "vboxsf", "virtiofs", "vmhgfs", "wekafs",
})  # fmt: skip

#: The same, of those that are programs (``fuse.…``).
_PROGRAMS = frozenset({
    "beegfs", "ceph", "cephfs", "davfs2", "gcsfuse", "glusterfs", "grpcfuse", "juicefs", "moosefs", "mfs", "osxfs",
    "portal", "rclone", "s3fs", "sshfs", "vmhgfs-fuse", "weka",
})  # fmt: skip

_MOUNTS = Path("/proc/self/mountinfo")


def shared_file_system(path: str | os.PathLike[str], mounts: str | None = None) -> str:
    """The type of the file system on which a path lies, where other machines may see it; otherwise empty.

    Arguments:
        path: it need not exist.
        mounts: the text of Linux's ``/proc/self/mountinfo``; by default that of this machine. A machine that has none
            cannot be asked, so that all its file systems count as its own.

    Example:
        >>> mounts = "22 1 8:1 / / rw - ext4 /dev/sda1 rw\\n23 22 0:3 / /home rw - nfs4 server:/home rw\\n"
        >>> shared_file_system("/home/me/search.db", mounts), shared_file_system("/homework/search.db", mounts)
        ('nfs4', '')
    """
    if mounts is None:
        try:
            mounts = _MOUNTS.read_text(encoding="utf-8", errors="surrogateescape")
        except OSError:
            return ""
    parts, deepest, kind = Path(os.path.realpath(path)).parts, 0, ""
    for line in mounts.splitlines():
        before, separator, after = line.partition(" - ")
        fields, rest = before.split(" "), after.split(" ")
        if not separator or len(fields) < 5:
            continue
        point = Path(_plain(fields[4])).parts
        # Of several on the same point the last one covers the others.
        if parts[: len(point)] == point and len(point) >= deepest:
            deepest, kind = len(point), rest[0]
    return kind if kind in _SHARED or kind.removeprefix("fuse.") in _PROGRAMS else ""


def _plain(escaped: str) -> str:
    """A path with its blanks, which the table writes as three octal digits."""
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), escaped)
