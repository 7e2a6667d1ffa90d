"""Describing a file that is not of the expected type, with advice for the user."""

from __future__ import annotations


def describe_file_type(file_bytes: bytes, recognised: str = "") -> str:
    """Return what a file probably is, and what to do about it, for an error message.

    file_bytes: its first bytes (or all of them)
    recognised: what the reader of the expected type has recognised, if anything; it takes
        precedence over a guess from the first bytes

    >>> describe_file_type(b"<!DOCTYPE html><html>")
    'an HTML page (a failed download: fetch it again)'
    """
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
