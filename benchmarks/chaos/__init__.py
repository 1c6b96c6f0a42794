"""Random faults against the real workers of a real study, and whether anything was lost, doubled or changed by them."""
