"""What a file is that should have been something else: a user's next step depends on it."""

from __future__ import annotations


def describe_file_type(file_bytes: bytes, recognised: str = "") -> str:
    """In words, with what to do. file_bytes: how it begins; recognised: what the reader that was
    expected to read
    it has recognised, which counts before a guess from the first bytes."""
    head = file_bytes[:1024].lstrip().lower()
    if head.startswith(b"version https://git-lfs"):
        return "a git-lfs pointer (git lfs pull fetches the file)"
    if head.startswith((b"<!doctype html", b"<html", b"<?xml")) or b"<html" in head:
        return "an HTML page (a failed download: fetch it again)"
    if recognised:
        return recognised
    if head.startswith(b"pk\3\4"):
        return "a zip archive (unpack it)"
    return f"nothing known (it starts with {file_bytes[:8]!r})"
