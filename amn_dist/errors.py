"""What can go wrong, said in one line: where, what was found, what was expected, what to do."""


class AmnError(Exception):
    """Base of every error a user is meant to read; its text is one line."""

    exit_code = 1


class ConfigError(AmnError):
    """An argument or a configuration that cannot be meant."""

    exit_code = 2


class ShardError(AmnError):
    """Input data or a shard set that cannot be used."""

    exit_code = 2


class StageError(AmnError):
    """A stage that could not be finished."""


class PeerLost(StageError):
    """A process of a gang is gone or does not answer; the gang can be started again from its last checkpoint."""
