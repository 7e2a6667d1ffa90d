"""What a conformance check raises, and how it asks."""

from __future__ import annotations


class ContractViolation(AssertionError):
    """A check failed; the message has the observed and the expected value.

    >>> raise ContractViolation("score has shape (2,), not (3,)")
    Traceback (most recent call last):
    adbench...ContractViolation: score has shape (2,), not (3,)
    """


def require(condition: object, message: str) -> None:
    """Raise ContractViolation with the message unless the condition is true.

    condition: of which the truth is asked
    message: what was observed, and what was expected

    >>> require([], "there is no sample")
    Traceback (most recent call last):
    adbench...ContractViolation: there is no sample
    """
    if not condition:
        raise ContractViolation(message)
