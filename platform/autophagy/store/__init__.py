from autophagy.store.artifacts import NUM_FILES, Artifact, Attempt
from autophagy.store.garbage import GarbageItem
from autophagy.store.store import StageInfo, StageStore

__all__ = ["NUM_FILES", "Artifact", "Attempt", "GarbageItem", "StageInfo", "StageStore"]
