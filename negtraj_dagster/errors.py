"""The project's exceptions, one class per thing the user must mend."""


class NegtrajError(Exception):
    """Root of every error a user can cause and mend."""


class UsageError(NegtrajError):
    """A command line that says too little, or two things at once."""


class SettingsError(NegtrajError):
    """A settings file, a recipe or an environment variable is wrong."""


class RolloutFormatError(NegtrajError):
    """A landed record does not have its format's shape."""


class QuestionSetError(NegtrajError):
    """A question file is missing or malformed."""


class SqlContractError(NegtrajError):
    """A SQL file breaks the contract of its folder."""


class ContaminationError(NegtrajError):
    """A row of an evaluation question was about to enter training."""


class MaskError(NegtrajError):
    """A loss mask does not cover exactly what should be trained."""


class StoreError(NegtrajError):
    """A stored object is missing, damaged or not what its manifest says."""


class ModelError(NegtrajError):
    """A base model, tokenizer or checkpoint is missing or unusable."""


class TrainingError(NegtrajError):
    """Training cannot go on: nothing to train, a non-finite loss, a wrong engine."""


class ChildRunError(NegtrajError):
    """A trainer or evaluator process ended without publishing its result."""


class GateError(NegtrajError):
    """Checkpoints cannot be judged by their answers: too few questions, other ones than the incumbent's, failed machines."""
