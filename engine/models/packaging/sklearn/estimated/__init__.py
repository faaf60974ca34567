"""Steps that estimate what they put in: imputers by neighbours and by regressions, splines."""
