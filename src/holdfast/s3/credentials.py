"""Who asks an S3 server: as configured, or else as Amazon's own tools would find it out."""

from __future__ import annotations

import threading
from collections.abc import Callable

from holdfast.errors import AccessRefused, ExtraMissing

from .sign import Credentials


def credentials_of(
    component: str, where: str, access_key: str, secret_key: str, token: str
) -> Callable[[], Credentials]:
    """Return what gives the credentials for each request.

    Without keys they are looked for where Amazon's tools look: the environment, the files below
    ``~/.aws``, and the machine's own role. Those end after some hours and are renewed.
    """
    if access_key:
        fixed = Credentials(access_key, secret_key, token)
        return lambda: fixed
    return _Found(component, where)


class _Found:
    """Credentials that boto3 finds."""

    def __init__(self, component: str, where: str) -> None:
        self._component = component
        self._where = where
        self._lock = threading.Lock()
        self._found: object = None

    def __call__(self) -> Credentials:
        try:
            from botocore.exceptions import BotoCoreError
        except ModuleNotFoundError as error:
            what = "finding Amazon credentials"
            raise ExtraMissing(what=what, package="boto3", extra="objects") from error
        with self._lock:
            try:
                if self._found is None:
                    self._found = self._find()
                frozen = self._found.get_frozen_credentials()  # type: ignore[attr-defined]
            except BotoCoreError as error:
                raise self._refused(str(error)) from error
        return Credentials(frozen.access_key, frozen.secret_key, frozen.token or "")

    def _find(self) -> object:
        from botocore.session import Session

        found: object = Session().get_credentials()
        if found is None:
            raise self._refused("no access_key is configured, and none was found elsewhere")
        return found

    def _refused(self, reason: str) -> AccessRefused:
        return AccessRefused(component=self._component, where=self._where, reason=reason)
