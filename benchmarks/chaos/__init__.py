"""Random faults against real workers: is anything lost, doubled or changed by them?"""
