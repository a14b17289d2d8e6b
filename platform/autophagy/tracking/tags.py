"""What things are called in MLflow: each name that more than one place writes or reads, once."""

DEFAULT_EXPERIMENT = "autophagy"  # of loops outside a sweep; those of a sweep are in one of its name

# Tags of ours.
DIGEST, NAME = "autophagy.digest", "autophagy.run"  # together they name a run, in every process
SEED = "autophagy.seed"
SWEEP, ARM = "autophagy.sweep", "autophagy.arm"
LABEL = "autophagy.label."  # and the name of an axis
STATE, WHY = "autophagy.state", "autophagy.why"  # what became of a loop of a sweep
COMMIT, DIRTY = "git.commit", "git.dirty"  # of the code

# Tags that MLflow itself knows.
PARENT, NOTE, SOURCE_NAME = "mlflow.parentRunId", "mlflow.note.content", "mlflow.source.name"

# Metrics.
GENERATION = "generation"  # logged last: MLflow has a generation once it has this
SECONDS = "seconds/"  # and the name of a stage
