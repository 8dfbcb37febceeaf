"""Retention: which backups a policy keeps, and for which reason. Pure; no clock is asked."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Span:
    """A length of calendar time, as policies write it: ``24h``, ``30d``, ``12w``, ``12m``, ``1y``."""

    count: int
    unit: str  # one of h d w m y


@dataclass(frozen=True, slots=True)
class Keep:
    """A retention policy. A number keeps that many; a span keeps what is that close to the newest."""

    last: int = 0
    hourly: Span | int | None = None
    daily: Span | int | None = None
    weekly: Span | int | None = None
    monthly: Span | int | None = None
    yearly: Span | int | None = None
    within: Span | None = None
    max_count: int | None = None
