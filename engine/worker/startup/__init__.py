"""What a start proves, step by step: one list, walked by the processes of `penstock run` and by `penstock check`."""
