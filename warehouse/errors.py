"""The errors Fairboard raises on purpose. Each message says what happened, what was kept and what to do next."""


class FairboardError(Exception):
    """Base of every error that is meant for a person; the command line prints it and exits with 1."""


class SettingsError(FairboardError):
    """The configuration contradicts itself, the lake, or the machine."""


class EventError(FairboardError):
    """An event breaks the contract.

    `field` is the JSON path of the offending value (`payload.deltaXp`), or `""` for the event as a whole.
    """

    def __init__(self, field: str, reason: str) -> None:
        self.field = field
        self.reason = reason
        super().__init__(f"{field}: {reason}" if field else reason)


class LakeError(FairboardError):
    """A file of the lake is missing, damaged or of a foreign schema."""


class StoreUnavailable(FairboardError):
    """Redis, the SQL database or the lake's bucket cannot be reached or refused the work."""
