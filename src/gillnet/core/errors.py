"""Every error that a user can meet, by name.

Each message is one readable paragraph that says what is wrong, where, and how to mend it; the command line prints
it without a traceback and exits with a code other than 0.
"""


class GillnetError(Exception):
    """The base of all errors that Gillnet raises on purpose."""


class DefinitionError(GillnetError):
    """A stream, feature, rule or pipeline is defined wrongly. Raised at definition time, before any record is read."""


class PlanError(GillnetError):
    """A serialised plan cannot be read: another version, an unknown node, or a torn file."""


class StateError(GillnetError):
    """Stored state cannot be read or written: of another version or plan, torn or changed, or of a part that has no form yet."""


class DefinitionChangedError(StateError):
    """Stored state is whole, and of another definition than the one that is to go on."""


class FencedError(StateError):
    """Another run has taken this one's place: what it would still write, it may not."""


class ModelError(GillnetError):
    """A model file is missing or broken, or does not fit the features of the pipeline."""


class ConfigurationError(GillnetError):
    """A source, sink or setting is given wrongly on the command line or in the configuration file."""


class SourceError(GillnetError):
    """A source cannot be opened or read, and waiting will not help."""


class SinkError(GillnetError):
    """A sink cannot be opened or written, and waiting will not help."""


class EngineError(GillnetError):
    """An engine that runs a pipeline elsewhere, such as Flink, cannot be reached, refuses what it is asked, or lost its job."""
