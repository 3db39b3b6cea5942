"""State-space models: a state that is updated by a linear recurrence."""
