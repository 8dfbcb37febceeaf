"""Every failure Holdfast foresees, in one table.

An error says what failed, on what and why (``message``), and what to do now (``hint``). Its
``code`` is stable and may be relied upon by scripts; ``exit_status`` is what the command line
returns. ``retryable`` means that the same call may succeed a moment later without anyone acting.
Adapters translate the errors of the libraries beneath them into these at their border; whatever
else escapes is a bug of ours and is reported as one. Secrets never enter a field.
"""

from __future__ import annotations

from string import Formatter
from typing import ClassVar

from .i18n import N_, _

# Exit statuses, as the command line returns them.
OK = 0
FAILED = 1
USAGE = 2
PARTIAL = 3
NOT_FOUND = 10
LOCKED = 11
WRONG_KEY = 12
VERIFICATION_FAILED = 20
REFERENCES_BROKEN = 21
ROLLED_BACK = 22
CANCELLED = 130


class HoldfastError(Exception):
    """A failure we foresaw. Subclasses are rows of the table: they hold data, not behaviour."""

    code: ClassVar[str]
    exit_status: ClassVar[int] = FAILED
    retryable: ClassVar[bool] = False
    message: ClassVar[str]
    hint_text: ClassVar[str] = ""

    def __init__(self, **fields: object) -> None:
        """Take exactly the fields that ``message`` and ``hint_text`` name; others are a bug."""
        wanted = fields_of(self.message) | fields_of(self.hint_text)
        if wanted != set(fields):
            different = sorted(wanted ^ set(fields))
            bug = f"{type(self).__name__} takes {sorted(wanted)}; different: {different}"
            raise TypeError(bug)
        self.fields = {name: printable(value) for name, value in fields.items()}
        super().__init__(self.message.format(**self.fields))

    def __str__(self) -> str:
        """Return the one line that a person reads, in the reader's language."""
        return _(self.message).format(**self.fields)

    @property
    def hint(self) -> str:
        """What to do now; empty where there is nothing to add."""
        return _(self.hint_text).format(**self.fields)

    def __reduce__(self) -> tuple[object, ...]:
        """Survive the way through a process pool, keyword fields and all."""
        return _rebuild, (type(self), self.fields)


def _rebuild(kind: type[HoldfastError], fields: dict[str, object]) -> HoldfastError:
    return kind(**fields)


def fields_of(template: str) -> set[str]:
    """Return the names of the fields of a message template."""
    return {name for _text, name, _spec, _conv in Formatter().parse(template) if name}


def printable(value: object) -> str:
    """Return ``value`` on one line: newlines and other control characters are shown, not obeyed."""
    text = str(value).encode("utf-8", "backslashreplace").decode("utf-8")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


# --- usage and configuration ---------------------------------------------------------------------


class UsageInvalid(HoldfastError):
    code, exit_status = "usage", USAGE
    message = N_("{problem}")
    hint_text = N_("see `holdfast --help`")


class ConfigMissing(HoldfastError):
    code, exit_status = "config-missing", USAGE
    message = N_("no configuration found: looked for {places}")
    hint_text = N_("run `holdfast init` here, or name a file with --config")


class ConfigInvalid(HoldfastError):
    code, exit_status = "config-invalid", USAGE
    message = N_("{place}: {problem}")
    hint_text = N_("{advice}")


class SecretMissing(HoldfastError):
    code, exit_status = "secret-missing", USAGE
    message = N_("{place}: {reference} cannot be read: {reason}")
    hint_text = N_("set it, or give a default as ${{env:NAME:-default}}")


class UnknownName(HoldfastError):
    code, exit_status = "unknown-name", USAGE
    message = N_("there is no {what} named {name}")
    hint_text = N_("known: {known}")


class ExtraMissing(HoldfastError):
    code, exit_status = "extra-missing", USAGE
    message = N_("{what} needs the Python package {package}, which is not installed")
    hint_text = N_("install it: pip install 'holdfast[{extra}]'")


class UnsafeName(HoldfastError):
    code, exit_status = "unsafe-name", USAGE
    message = N_("{what} is not a safe name: {name}: {reason}")
    hint_text = N_("names may not leave the folder they belong to")


# --- sources -------------------------------------------------------------------------------------


class SourceMissing(HoldfastError):
    code = "source-missing"
    message = N_("{component}: {path} does not exist")
    hint_text = N_("correct the path in the configuration, or remove the component")


class SourceUnreadable(HoldfastError):
    code = "source-unreadable"
    message = N_("{component}: {path} cannot be read: {reason}")
    hint_text = N_("check the permissions and the health of the disk")


class SourceUnfit(HoldfastError):
    code = "source-unfit"
    message = N_("{component}: {path} is not {expected}: {reason}")
    hint_text = N_("correct `source` or the path of this component in the configuration")


class SourceCorrupt(HoldfastError):
    code = "source-corrupt"
    message = N_("{component}: {path} is damaged: {reason}")
    hint_text = N_(
        "restore it from a good backup; to keep the damaged state as evidence: backup --evidence"
    )


class SourceLocked(HoldfastError):
    code, exit_status, retryable = "source-locked", LOCKED, True
    message = N_("{component}: {path} stayed locked for {seconds} s")
    hint_text = N_("another program holds a lock on it; try again when it is done")


class SourceUnstable(HoldfastError):
    code, retryable = "source-unstable", True
    message = N_("{component}: {path} kept changing while it was copied: {reason}")
    hint_text = N_("try again when fewer writes are under way")


class ServerUnreachable(HoldfastError):
    code, retryable = "server-unreachable", True
    message = N_("{component}: {where} cannot be reached: {reason}")
    hint_text = N_("is the server running, and is its address in the configuration right?")


class AccessRefused(HoldfastError):
    code = "access-refused"
    message = N_("{component}: {where} refuses access: {reason}")
    hint_text = N_("correct the user, password or key of this component, or its rights there")


class HostUntrusted(HoldfastError):
    code = "host-untrusted"
    message = N_("{component}: {where} does not prove to be the host that {known_hosts} knows")
    hint_text = N_(
        "if its key was changed on purpose, correct that file; if not, somebody may be listening"
    )


class ServerFailed(HoldfastError):
    code = "server-failed"
    message = N_("{component}: {where}: {reason}")
    hint_text = N_("look at the server's own log; nothing half-made was kept")


class ConnectionLost(HoldfastError):
    code, retryable = "connection-lost", True
    message = N_("{component}: the connection to {where} broke off: {reason}")
    hint_text = N_("nothing half-made was kept; try again, and look at the network between")


class ToolMissing(HoldfastError):
    code = "tool-missing"
    message = N_("{component}: the program {tool} is needed and was not found")
    hint_text = N_("{advice}")


class ToolTooOld(HoldfastError):
    code = "tool-too-old"
    message = N_("{component}: {tool} is {found}, but the server is {server}")
    hint_text = N_("{advice}")


class NoScratch(HoldfastError):
    code = "no-scratch"
    message = N_("{component}: no empty twin can be made to restore into: {reason}")
    hint_text = N_("verify with --level native, or restore to another place with --target")


class TargetInUse(HoldfastError):
    code, exit_status = "target-in-use", LOCKED
    message = N_("{component}: {path} is in use by {users}")
    hint_text = N_("stop the application, or name its services under `services`")


class TargetUnfit(HoldfastError):
    code = "target-unfit"
    message = N_("{component}: cannot restore to {path}: {reason}")
    hint_text = N_("restore elsewhere with --target DIR")


# --- vaults and stores ---------------------------------------------------------------------------


class VaultUnavailable(HoldfastError):
    code = "vault-unavailable"
    message = N_("vault {vault}: {path}: {reason}")
    hint_text = N_("check that the folder exists and may be written")


class ValueTooShort(VaultUnavailable):
    code = "value-too-short"
    message = N_("vault {vault}: {path}: {reason}")
    hint_text = N_("it was cut off; look at the disk or bucket that it lies on")


class VaultEmptied(HoldfastError):
    code = "vault-emptied"
    message = N_("vault {vault} holds none of the {count} backups that were made there")
    hint_text = N_(
        "is its disk mounted? if they were removed on purpose, run `holdfast catalog rebuild`"
    )


class NoSpace(HoldfastError):
    code = "no-space"
    message = N_("no space left while writing {path}")
    hint_text = N_("free some room there; nothing half-made was kept")


class RetentionHolds(HoldfastError):
    code = "retention-holds"
    message = N_("{path} is locked until {until} and cannot be deleted before")
    hint_text = N_("nothing was deleted; try again after that time")


class AppendOnly(HoldfastError):
    code = "append-only"
    message = N_("the vault at {vault} is append-only: {path} is neither deleted nor replaced")
    hint_text = N_("do it from a machine whose configuration does not say `append_only`")


class BackupNotFound(HoldfastError):
    code, exit_status = "backup-not-found", NOT_FOUND
    message = N_("there is no backup {backup} in {where}")
    hint_text = N_("`holdfast list` shows what there is")


class BackupExists(HoldfastError):
    code = "backup-exists"
    message = N_("{path} exists already and is never overwritten")
    hint_text = N_("try again in a second, or remove the file that is in the way")


class BackupDamaged(HoldfastError):
    code, exit_status = "backup-damaged", VERIFICATION_FAILED
    message = N_("backup {backup}: {path}: {reason}")
    hint_text = N_("use another backup (`holdfast list`), and check the disk this one lies on")


class BackupTooNew(HoldfastError):
    code = "backup-too-new"
    message = N_("backup {backup} has format {found}; this version reads up to {known}")
    hint_text = N_("upgrade Holdfast")


class BackupDiffers(HoldfastError):
    code = "backup-differs"
    message = N_("vault {vault} has another backup of the name {backup}")
    hint_text = N_("they were made in the same second in different vaults; nothing was copied")


class BackupPinned(HoldfastError):
    code = "backup-pinned"
    message = N_("backup {backup} is pinned: {reason}")
    hint_text = N_("`holdfast unpin {backup}` first")


class ArchiveUnsafe(HoldfastError):
    code, exit_status = "archive-unsafe", VERIFICATION_FAILED
    message = N_("backup {backup}: {path}: {reason}")
    hint_text = N_("nothing outside the target was touched; do not trust this archive")


class TreeUnsafe(HoldfastError):
    code, exit_status = "tree-unsafe", VERIFICATION_FAILED
    message = N_("{component}: {path}: {reason}")
    hint_text = N_("nothing outside the target was touched; do not trust this backup")


class NotVerified(HoldfastError):
    code, exit_status = "not-verified", VERIFICATION_FAILED
    message = N_("backup {backup} did not pass: {problems}")
    hint_text = N_("use another backup; `holdfast list` shows which were verified")


# --- repositories --------------------------------------------------------------------------------


class RepositoryMissing(HoldfastError):
    code, exit_status = "repository-missing", NOT_FOUND
    message = N_("there is no repository in {where}: {reason}")
    hint_text = N_("is its place right, and mounted? `holdfast vault init` makes a new one")


class RepositoryExists(HoldfastError):
    code = "repository-exists"
    message = N_("there is a repository in {where} already")
    hint_text = N_("use it as it is, or choose another place; never remove what lies there")


class RepositoryTooNew(HoldfastError):
    code = "repository-too-new"
    message = N_("the repository in {where} has version {found}; this program knows {known}")
    hint_text = N_("upgrade Holdfast")


class RepositoryDamaged(HoldfastError):
    code, exit_status = "repository-damaged", VERIFICATION_FAILED
    message = N_("repository {where}: {path}: {reason}")
    hint_text = N_("no wrong byte was given out; `holdfast vault check` tells what else is damaged")


class RepositoryLocked(HoldfastError):
    code, exit_status, retryable = "repository-locked", LOCKED, True
    message = N_("the repository in {where} is locked by {holder}")
    hint_text = N_("wait for it to end; if it died on another machine: `holdfast vault unlock`")


class RepositoryLockLost(HoldfastError):
    code, exit_status = "repository-lock-lost", LOCKED
    message = N_("this run may not go on: its lock of the repository in {where} is gone: {reason}")
    hint_text = N_("run it again; what was stored is found and not stored twice")


class WrongPassword(HoldfastError):
    code, exit_status = "wrong-password", WRONG_KEY
    message = N_("the password opens none of the {count} keys of the repository in {where}")
    hint_text = N_("without a password of it, nothing in a repository can ever be read")


class KeysMissing(HoldfastError):
    code, exit_status = "keys-missing", WRONG_KEY
    message = N_("the repository in {where} has no key left: the folder `keys` is empty")
    hint_text = N_("without a key nothing can be read; copy `keys` back from another copy of it")


class KeyInUse(HoldfastError):
    code, exit_status = "key-in-use", USAGE
    message = N_("key {key} is the one that opened the repository in {where}")
    hint_text = N_("open it with another password to remove this key")


# --- runs ----------------------------------------------------------------------------------------


class NothingBackedUp(HoldfastError):
    code = "nothing-backed-up"
    message = N_("no component could be backed up: {problems}")
    hint_text = N_("nothing was kept; correct the problem and run the backup again")


class StackLocked(HoldfastError):
    code, exit_status, retryable = "stack-locked", LOCKED, True
    message = N_("another run holds this stack: {verb} {run}, {holder}")
    hint_text = N_("wait for it to end; `holdfast status` shows it")


class LeaseLost(HoldfastError):
    code, exit_status = "lease-lost", LOCKED
    message = N_("this run may not go on: it no longer holds the stack {stack}: {holder}")
    hint_text = N_("another run took over; `holdfast status` shows it")


class RecoveryNeeded(HoldfastError):
    code = "recovery-needed"
    message = N_("an interrupted restore is waiting to be put right: {run}")
    hint_text = N_("run `holdfast recover` first")


class NotConfirmed(HoldfastError):
    code, exit_status = "not-confirmed", USAGE
    message = N_("{what} was not confirmed; nothing was changed")
    hint_text = N_("add --yes, or type the confirmation when asked")


class CommandFailed(HoldfastError):
    code = "command-failed"
    message = N_("{what}: `{command}` {outcome}")
    hint_text = N_("run it by hand to see why")


class HealthFailed(HoldfastError):
    code = "health-failed"
    message = N_("{what} is not healthy: {reason}")
    hint_text = N_("look at the service's own logs")


class RestoreRolledBack(HoldfastError):
    code, exit_status = "rolled-back", ROLLED_BACK
    message = N_("the restore failed and everything was put back: {reason}")
    hint_text = N_("the live data is as it was before. {advice}")


class RollbackIncomplete(HoldfastError):
    code = "rollback-incomplete"
    message = N_("not everything could be put back: {problems}")
    hint_text = N_("nothing was deleted; correct the cause and run `holdfast recover`")


class SettleIncomplete(HoldfastError):
    code, exit_status = "settle-incomplete", PARTIAL
    message = N_("restored, but the replaced content could not be put away: {problems}")
    hint_text = N_("correct the cause and run `holdfast recover`")


class ServicesDown(HoldfastError):
    code, exit_status = "services-down", PARTIAL
    message = N_("the data is in order, but the services could not be started: {reason}")
    hint_text = N_("start them by hand")


class ReferencesBroken(HoldfastError):
    code, exit_status = "references-broken", REFERENCES_BROKEN
    message = N_("restored, but checks failed: {problems}")
    hint_text = N_("`holdfast check` shows each violation")


class CatalogUnusable(HoldfastError):
    code = "catalog-unusable"
    message = N_("the catalog {path} cannot be used: {reason}")
    hint_text = N_("backups are safe in their vaults; `holdfast catalog rebuild` makes a new one")


class JournalDamaged(HoldfastError):
    code = "journal-damaged"
    message = N_("the journal of restore {run} is damaged at record {record}: {reason}")
    hint_text = N_(
        "recovery touched nothing; {path} still tells, line by line, what was done to what"
    )


class AuditBroken(HoldfastError):
    code, exit_status = "audit-broken", VERIFICATION_FAILED
    message = N_("the audit trail is broken at entry {entry}: {reason}")
    hint_text = N_("entries before it are intact; keep a copy of the catalog as evidence")


class StateUnwritable(HoldfastError):
    code = "state-unwritable"
    message = N_("{path} cannot be written: {reason}")
    hint_text = N_("correct its permissions, or set `state` to another folder")


class Cancelled(HoldfastError):
    code, exit_status = "cancelled", CANCELLED
    message = N_("cancelled; nothing half-made was kept")


class AfterwardsFailed(HoldfastError):
    code, exit_status = "afterwards-failed", PARTIAL
    message = N_("{what}, but what was to follow failed: {reason}")
    hint_text = N_("correct the cause; what is done need not be done again")


class CancelledLate(HoldfastError):
    code, exit_status = "cancelled-late", CANCELLED
    message = N_("cancelled too late: {what}")
    hint_text = N_("only what was to follow it was left out")


def table() -> list[type[HoldfastError]]:
    """Return every row, in the order of this file: the reference page is made from it."""
    return [row for row in globals().values() if isinstance(row, type) and is_row(row)]


def is_row(kind: type) -> bool:
    """Tell whether a class is a row of the table, not its base."""
    return issubclass(kind, HoldfastError) and kind is not HoldfastError
