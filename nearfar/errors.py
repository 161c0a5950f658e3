"""Errors of three parts: what happened, where, and what to type instead. One class per exit code."""

from __future__ import annotations


class NearfarError(Exception):
    """Base of all errors that are the user's to mend.

    Args:
        what: What was found, in one sentence.
        where: File, key, line or argument it was found in.
        mend: What to type or change instead.
    """

    code = "E-nearfar"
    exit_code = 1

    def __init__(self, what: str, *, where: object = "", mend: str = "") -> None:
        super().__init__(what)
        self.what, self.where, self.mend = what, str(where), mend

    def __str__(self) -> str:
        return " | ".join(part for part in (f"{self.code} {self.what}", self.where, self.mend) if part)


class UsageError(NearfarError, ValueError):
    """A wrong argument, flag or setting."""

    code, exit_code = "E-usage", 2


class DataError(NearfarError):
    """Data that is missing, empty, damaged or unfit for the task."""

    code, exit_code = "E-data", 3


class MissingColumn(DataError):
    """Data without a column that was asked for."""


class DeviceError(NearfarError):
    """The environment: a missing device, package, disk space or permission."""

    code, exit_code = "E-device", 4


class HealthError(NearfarError):
    """Training that went wrong: collapse, NaN."""

    code, exit_code = "E-health", 5


class IntegrityError(NearfarError):
    """A file that is damaged, or that would run code if it were read."""

    code, exit_code = "E-integrity", 6


class Stopped(NearfarError):
    """Stopped on request, after a checkpoint was written."""

    code, exit_code = "E-stopped", 130
