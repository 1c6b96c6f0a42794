"""What the store takes: an epoch at any length of history, joining and asking at ten thousand trials, crowds, and a fleet."""
