from autophagy.store.artifacts import NUM_FILES, Artifact, Attempt
from autophagy.store.store import StageStore

__all__ = ["NUM_FILES", "Artifact", "Attempt", "StageStore"]
