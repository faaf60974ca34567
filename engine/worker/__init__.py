"""The worker process: assembled, calibrated, supervised."""
