"""Why a rollout is in or out."""
