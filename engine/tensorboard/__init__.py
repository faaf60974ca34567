"""What packaging found out, as event files for those who look in TensorBoard: the graph, importance, parity."""
