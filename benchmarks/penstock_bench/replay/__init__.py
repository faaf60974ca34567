"""`penstock bench replay`: the real scaler and real workers under a real load; only the kubelet and the autoscaler are stand-ins."""
