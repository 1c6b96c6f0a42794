"""The diagnosis of a trial: its likely cause, how sure that is, and remedies to try."""
