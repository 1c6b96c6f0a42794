"""What the store takes: epochs, joining and asking at 10,000 trials, crowds, and a fleet."""
