"""The trainings of a study: what is shared, what is decided, what is run."""
